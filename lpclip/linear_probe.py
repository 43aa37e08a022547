"""LP-CLIP: logistic regression on the image tower's output, one task at a time, several shots and seeds.

    python -m lpclip.linear_probe --root R --dataset-config-file F --config-file F --output-dir O \
        [--shots 1 2 4 8 16] [--seeds 1 2 3] --every-task | DATASET.SUBSAMPLE_TASKS task0 [KEY VALUE ...]

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, with
CoOp's search for the regularisation. Every (shots, seed) is a run folder like those of `train.py`.
"""

import argparse
import functools
import itertools
import os
import os.path as osp
import resource
import sys
import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import trainers  # noqa: F401  registers the evaluator
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from dassl.evaluation import build_evaluator
from dassl.utils import setup_logger, write_json
from train import build_parser, one_sentence, setup_cfg
from trainers.image_features import ImageFeatures, Images
from trainers.multitask import RESULTS_FILE, load_clip, to_plain

COARSE = (1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6)
FINE_STEPS = 8


def search_c(accuracy):
    """CoOp's search for C: the best of a coarse list, then binary search between C/10 and 10C in log space.

    Args:
        accuracy: function from C to validation accuracy.

    Returns:
        The C of the last step's better end (the left one of equals). The better end is kept from step to step
        and the second step tries the coarse peak again, so no C that was tried is more accurate.
    """
    peak = COARSE[int(np.argmax([accuracy(c) for c in COARSE]))]
    left, right = np.log10(peak) - 1, np.log10(peak) + 1
    for _ in range(FINE_STEPS):
        middle = (left + right) / 2
        if accuracy(10**left) < accuracy(10**right):
            best, left = right, middle
        else:
            best, right = left, middle
    return float(10**best)


class Features:
    """Features of images by path, float32, each image encoded once, without augmentation."""

    def __init__(self, cfg):
        self.cfg = cfg
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.encode = ImageFeatures(cfg, load_clip(cfg).visual.to(self.device), self.device)
        self.transform = build_transform(cfg, is_train=False)
        self.known = {}

    def __call__(self, datums):
        """(features (n, dim), labels (n,)) of a list of `Datum`."""
        new = [datum for datum in datums if datum.impath not in self.known]
        if new:
            features = self.encode(Images(self.cfg, new, self.transform))
            self.known.update(zip((datum.impath for datum in new), features.numpy()))
        return (np.stack([self.known[datum.impath] for datum in datums]),
                np.array([datum.label for datum in datums]))


def probe(features, dataset):
    """Fit on the training images with the C that is best on the validation images.

    Returns:
        (classifier, C).

    Raises:
        ValueError: the dataset has more than one task, no validation images, or training images of one class.
    """
    if len(dataset.tasks) != 1:
        raise ValueError(f"the linear probe works on one task, but {len(dataset.tasks)} are chosen: give --every-task, "
                         "or set DATASET.SUBSAMPLE_TASKS task<i>")
    if not dataset.val:
        raise ValueError("the linear probe needs validation images to choose its regularisation")
    x, y = features(dataset.train_x)
    x_val, y_val = features(dataset.val)
    if len(set(y)) < 2:
        raise ValueError(f"task {dataset.tasks[0].name!r} has training images of a single class: the linear "
                         "probe needs two or more")

    @functools.cache  # the search comes back to ends that it kept
    def fit(c):
        with warnings.catch_warnings():
            # A large C seldom converges within the 1000 iterations that the protocol allows.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(solver="lbfgs", max_iter=1000, C=c).fit(x, y)

    c = search_c(lambda c: fit(c).score(x_val, y_val))
    return fit(c), c


def run(cfg, features):
    """One (shots, seed): fit, test, log and `results.json`, which marks the run as finished."""
    start = time.time()
    print(f"** Config **\n{cfg}")
    dataset = build_dataset(cfg)
    evaluator = build_evaluator(cfg, tasks=dataset.tasks)
    classifier, c = probe(features, dataset)
    trained = time.time()
    print(f"C = {c:.3g} by {len(dataset.val)} validation images\nFinished training")
    x, y = features(dataset.test)
    predicted = torch.from_numpy(classifier.predict(x))  # (n_test,)
    scores = torch.zeros(len(y), dataset.num_classes).scatter_(1, predicted[:, None], 1.0)
    evaluator.process(scores, torch.from_numpy(y))
    metric = evaluator.evaluate()["overall_metric"]
    end = time.time()
    peak = (torch.cuda.max_memory_allocated(features.device) / 2**20 if features.device.type == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    # The seconds hold the encoding of those images only that no earlier run of this process has encoded.
    write_json({
        "trainer": cfg.TRAINER.NAME, "dataset": cfg.DATASET.NAME, "backbone": cfg.MODEL.BACKBONE.NAME,
        "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED, "precision": "fp32", "overall_metric": metric,
        "tasks": evaluator.per_task, "n_tasks": 1, "n_classes": dataset.num_classes,
        "n_train": len(dataset.train_x), "n_val": len(dataset.val), "n_test": len(dataset.test),
        "n_params": (x.shape[1] + 1) * dataset.num_classes, "C": c,
        "train_seconds": round(trained - start, 2), "test_seconds": round(end - trained, 2),
        "wall_seconds": round(end - start, 2), "peak_memory_mb": round(peak, 1),
        "device": str(features.device), "config": to_plain(cfg),
    }, osp.join(cfg.OUTPUT_DIR, RESULTS_FILE))


def parse_args(arguments=None):
    """The command line as a namespace that `setup_cfg` reads too; `shots` and `seeds` are lists of int.

    Raises:
        ValueError: `--shots` or `--seeds` without a number, or shots below 1.
    """
    parser = argparse.ArgumentParser(description="Linear probe on one task, or on all one by one.", allow_abbrev=False)
    parser.add_argument("--root", default="", help="folder of the datasets")
    parser.add_argument("--dataset-config-file", default="", help="config file of the dataset")
    parser.add_argument("--config-file", default="", help="config file of the linear probe")
    parser.add_argument("--output-dir", required=True, help="folder of the runs: <shots>shots/seed<k>/")
    parser.add_argument("--backbone", default="", help="CLIP model, as in train.py")
    parser.add_argument("--every-task", action="store_true",
                        help="probe all tasks one after the other, into task<i>/<shots>shots/seed<k>/")
    parser.add_argument("--shots", nargs="+", default=["1", "2", "4", "8", "16"],
                        help="training images per class")
    parser.add_argument("--seeds", nargs="+", default=["1", "2", "3"], help="seeds of the few-shot draws")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides: KEY VALUE ...")
    given = parser.parse_args(arguments)
    # argparse gives an option with several values all that follows, the overrides too.
    for name in ("shots", "seeds"):
        values = getattr(given, name)
        n = next((i for i, value in enumerate(values) if not value.isdigit()), len(values))
        numbers = [int(value) for value in values[:n]]
        if not numbers or (name == "shots" and min(numbers) < 1):
            raise ValueError(f"--{name} is {' '.join(values)}, but must be numbers from "
                             f"{1 if name == 'shots' else 0}")
        setattr(given, name, numbers)
        given.opts = values[n:] + given.opts
    return argparse.Namespace(**{**vars(build_parser().parse_args([])), **vars(given)})


def count_tasks(cfg):
    """The number of tasks of the dataset, which has to be read for that."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASET.SUBSAMPLE_TASKS = "all"
    return len(build_dataset(cfg).tasks)


def sweep(args):
    """Do every (task, shots, seed) that is not finished yet; CLIP is loaded once, and only if there is one."""
    features = None
    args.seed = args.seeds[0]
    tasks = [f"task{i}" for i in range(count_tasks(setup_cfg(args)))] if args.every_task else [None]
    for task, shots, args.seed in itertools.product(tasks, args.shots, args.seeds):
        cfg = setup_cfg(args)
        folder = osp.join(cfg.OUTPUT_DIR, task or "", f"{shots}shots", f"seed{args.seed}")
        if osp.isfile(osp.join(folder, RESULTS_FILE)):
            print(f"Skipping {folder}: it is finished")
            continue
        cfg.defrost()
        cfg.TRAINER.NAME = "LP-CLIP"
        cfg.OUTPUT_DIR, cfg.DATASET.NUM_SHOTS, cfg.SEED = folder, shots, args.seed
        if task:
            cfg.DATASET.SUBSAMPLE_TASKS = task
        cfg.freeze()
        with setup_logger(folder):
            features = features or Features(cfg)
            run(cfg, features)


def main():
    try:
        sweep(parse_args())
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("SOFTCPT_TRACEBACK"):
            raise
        sys.stdout.flush()
        sys.exit(f"error: {one_sentence(error)} (SOFTCPT_TRACEBACK=1 shows where)")


if __name__ == "__main__":
    main()
