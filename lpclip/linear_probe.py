"""LP-CLIP: logistic regression on the image tower's output, for each task alone, several shots and seeds.

    python -m lpclip.linear_probe --root R --dataset-config-file F --config-file F --output-dir O \
        [--tasks 0 1 2] [--shots 1 2 4 8 16] [--seeds 1 2 3] [KEY VALUE ...]

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, with
CoOp's search for the regularisation. Every (task, shots, seed) is a run folder like those of `train.py`.
"""

import argparse
import contextlib
import os.path as osp
import time

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the evaluator
from common.errors import UserError
from common.program import program
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from features.image_features import ImageFeatures
from features.images import Images
from runs.checkpoints import save
from runs.config import add_config_flags, set_value, setup_cfg
from runs.folder import RunFolder
from runs.identity import digests_of, identity_of
from runs.keys import all_keys
from runs.outcome import note_missing
from runs.results import describe_suite, print_results, write_results
from trainers.evaluation import make_evaluator
from trainers.multitask_clip import digest_of_weights, load_clip

from . import ROW
from .logistic import fit_best

CLASSIFIER_FILE = "classifier.pth.tar"


class LinearProbe:
    """What the identity of a run asks of its method: no options, no optimizer's steps."""

    node, keys, reads_training_images, not_neutral = "", {}, True, ()

    @staticmethod
    def learns(cfg):
        return False


class Features:
    """Features of images by path, float32, each image encoded once, without augmentation."""

    def __init__(self, cfg):
        self.cfg = cfg
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        clip_model = load_clip(cfg)
        self.weights = digest_of_weights(clip_model)
        self.input = {f"INPUT.{key}": value for key, value in cfg.INPUT.items()}  # as the backbone reads images
        self.encode = ImageFeatures(cfg, clip_model.visual.to(self.device), self.device)
        self.transform = build_transform(cfg, is_train=False)
        self.known = {}

    def add(self, datums):
        """Encode those images of a list of `Datum` that are not known yet."""
        new = list({datum.impath: datum for datum in datums if datum.impath not in self.known}.values())
        if new:
            self.known.update(zip((datum.impath for datum in new), self.encode(Images(self.cfg, new, self.transform))
                                  .numpy()))

    def __call__(self, datums):
        """Features (n, dim) of known images."""
        return np.stack([self.known[datum.impath] for datum in datums])


class TaskImages:
    """One task of a `MultiTaskDataset`: `task`, and `train`, `val`, `test`: (list of `Datum`, labels (n,)).

    These labels count from 0 within the task.
    """

    def __init__(self, dataset, number):
        self.task = dataset.tasks[number]
        first = dataset.task_of_class.index(number)
        for part, datums in (("train", dataset.train_x), ("val", dataset.val), ("test", dataset.test)):
            own = [datum for datum in datums or () if dataset.task_of_class[datum.label] == number]
            setattr(self, part, (own, np.array([datum.label - first for datum in own], dtype=np.int64)))

    def datums(self):
        return [datum for datums, _ in (self.train, self.val, self.test) for datum in datums]


def problem(features, images):
    """Arguments of `fit_best` for a `TaskImages`.

    Raises:
        UserError: no validation images, or training images of one class.
    """
    if not images.val[0]:
        raise UserError("the linear probe needs validation images to choose its regularisation, but task "
                         f"{images.task.name!r} has none")
    if len(set(images.train[1])) < 2:
        raise UserError(f"task {images.task.name!r} has training images of a single class: the linear "
                         "probe needs two or more")
    return [part for datums, labels in (images.train, images.val) for part in (features(datums), labels)]


def linear_map(classifier, n_classes):
    """A fitted `LogisticRegression` as {"weight": (n_classes, dim), "bias": (n_classes,)}.

    The softmax of weight @ feature + bias is its probabilities. A class without a training image has the bias -inf.
    """
    known, weight, bias = (torch.from_numpy(array) for array in (
        classifier.classes_, classifier.coef_, classifier.intercept_))
    if len(known) == 2:  # scikit-learn keeps the second class's lead over the first
        weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
    return {"weight": weight.new_zeros(n_classes, weight.shape[1]).index_copy(0, known, weight),
            "bias": bias.new_full((n_classes,), float("-inf")).index_copy(0, known, bias)}


def finish(cfg, identity, features, images, classifier, c, seconds):
    """Test and write `results.json`, which marks the run as finished; the last three come from `fit_best`."""
    start = time.time()
    print(f"** Config **\n{cfg}")
    evaluator = make_evaluator(cfg, [images.task])
    print(f"C = {c:.3g} by {len(images.val[0])} validation images\nFinished training")
    datums, labels = images.test
    x = features(datums)
    n_classes = len(images.task.classnames)
    learned = linear_map(classifier, n_classes)
    evaluator.process(torch.from_numpy(x).to(learned["bias"].dtype) @ learned["weight"].t() + learned["bias"],
                      torch.from_numpy(labels))
    evaluator.evaluate()
    evaluator.write(datums)
    test_seconds = time.time() - start
    save(learned, osp.join(cfg.OUTPUT_DIR, CLASSIFIER_FILE))
    # The seconds do not hold reading and encoding the images, which the runs share.
    write_results(
        cfg, ROW, identity, features.device, evaluator.per_task, suite=describe_suite([images.task]),
        precision="fp32", n_tasks=1, n_classes=n_classes,
        n_train=len(images.train[0]), n_val=len(images.val[0]), n_test=len(datums),
        n_params=(x.shape[1] + 1) * n_classes, model_dir="", C=c, train_seconds=seconds, test_seconds=test_seconds,
        wall_seconds=seconds + test_seconds)


def parse_args(arguments=None):
    """The command line as a namespace that `setup_cfg` reads too.

    `tasks` (None: all), `shots` and `seeds` are lists of int.

    Raises:
        UserError: `--tasks`, `--shots` or `--seeds` without a number, or shots below 1.
    """
    parser = argparse.ArgumentParser(description="Linear probe on each task alone.", allow_abbrev=False)
    add_config_flags(parser)
    parser.add_argument("--tasks", nargs="+", help="numbers of tasks of the dataset (default: all)")
    parser.add_argument("--shots", nargs="+", default=["1", "2", "4", "8", "16"],
                        help="training images per class")
    parser.add_argument("--seeds", nargs="+", default=["1", "2", "3"], help="seeds of the few-shot draws")
    given = parser.parse_args(arguments)
    # argparse gives an option with several values all that follows, the overrides too.
    for name in ("tasks", "shots", "seeds"):
        values = getattr(given, name)
        if values is None:
            continue
        n = next((i for i, value in enumerate(values) if not value.isdigit()), len(values))
        numbers = [int(value) for value in values[:n]]
        if not numbers or (name == "shots" and min(numbers) < 1):
            raise UserError(f"--{name} is {' '.join(values)}, but must be numbers from "
                             f"{1 if name == 'shots' else 0}")
        setattr(given, name, numbers)
        given.opts = values[n:] + given.opts
    if not given.output_dir:
        raise UserError("the linear probe needs --output-dir, the folder of the runs: task<i>/<shots>shots/seed<k>/")
    return given


def sweep_cfg(args, seed, shots):
    """The config of all tasks' runs of a seed and a number of shots.

    Raises:
        UserError: as `setup_cfg`, or the tasks are chosen by a config key.
    """
    args.seed, args.trainer = seed, ""
    cfg = setup_cfg(args)
    if cfg.DATASET.SUBSAMPLE_TASKS != "all":
        raise UserError(f"DATASET.SUBSAMPLE_TASKS is {cfg.DATASET.SUBSAMPLE_TASKS!r}, but the linear probe takes its "
                        "tasks from --tasks: leave it at all")
    return changed(cfg, {"TRAINER.NAME": ROW.label, "DATASET.NUM_SHOTS": shots})


def changed(cfg, values):
    """A copy of `cfg` with other `values` {key: value}."""
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in values.items():
        set_value(cfg, all_keys(), key, value, "by the linear probe")
    cfg.freeze()
    return cfg


def unfinished(args, cfg, features, folders):
    """[(folder, cfg, identity, `TaskImages`)] of the runs that are not finished; their folders are entered.

    Args:
        folders: ExitStack that leaves them.

    Raises:
        UserError: there is no such task, or a folder holds another run.
    """
    dataset = build_dataset(cfg)
    tasks = range(len(dataset.tasks)) if args.tasks is None else args.tasks
    if max(tasks) >= len(dataset.tasks):
        raise UserError(f"there is no task {max(tasks)}: {cfg.DATASET.NAME} has the tasks 0 to "
                        f"{len(dataset.tasks) - 1}")
    pending = []
    for number in tasks:
        place = osp.join(cfg.OUTPUT_DIR, f"task{number}", f"{cfg.DATASET.NUM_SHOTS}shots", f"seed{cfg.SEED}")
        own = changed(cfg, {"DATASET.SUBSAMPLE_TASKS": f"task{number}", "OUTPUT_DIR": place})
        images = TaskImages(dataset, number)
        data = digests_of([images.task], *(part[0] for part in (images.train, images.val, images.test)))
        identity = identity_of(own, LinearProbe, data, features.weights, "fp32")
        folder = folders.enter_context(RunFolder(place))
        folder.check(identity)
        if folder.state() == "finished":
            print_results(folder.results(), place)
            note_missing(own, trained=False)
        else:
            pending.append((folder, own, identity, images))
    return pending


def sweep(args):
    """Do every (task, shots, seed) that is not finished yet; CLIP is loaded once.

    The fits of the same shots are independent of each other: they share the processor's cores.
    """
    features = Features(sweep_cfg(args, args.seeds[0], args.shots[0]))
    for shots in args.shots:
        with contextlib.ExitStack() as folders:
            runs = []
            for seed in args.seeds:
                cfg = changed(sweep_cfg(args, seed, shots), features.input)
                runs += unfinished(args, cfg, features, folders)
            if not runs:
                continue
            features.add([datum for *_, images in runs for datum in images.datums()])
            problems = [problem(features, images) for *_, images in runs]
            jobs = min(cpu_count(), len(runs))
            found = Parallel(jobs, return_as="generator")(delayed(fit_best)(*arrays) for arrays in problems)
            for (folder, cfg, identity, images), best in zip(runs, found, strict=True):
                with folder.log():
                    finish(cfg, identity, features, images, *best)


def main():
    with program("makes the runs that are missing"):
        sweep(parse_args())


if __name__ == "__main__":
    main()
