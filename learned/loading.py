"""A finished run as its folder tells it: the trainer with its learned values, and its classifiers of images.

Nothing but the run's folder and its backbone is read, neither images nor lists of the dataset.
"""

import os.path as osp

import torch

from common.errors import MissingFile, NotFinite, UserError
from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import Task
from lpclip import ROW as PROBE
from lpclip.linear_probe import CLASSIFIER_FILE, Features
from runs.checkpoints import best_or_last, checkpoint_files, load, read_parts
from runs.config import find_trainer, make_cfg
from runs.results import RESULTS_FILE, flatten, read_results
from trainers.protonet import PROTOTYPES_FILE, ProtoNet
from trainers.zsclip import ZeroshotCLIP

NO_IMAGES = {"DATALOADER.FEATURE_CACHE": False}  # settings of programs that train on none


def read_run(folder, settings=()):
    """(results, config) of a finished run.

    Args:
        folder: of the run. settings: {key: value} that the config has instead of the run's.

    Raises:
        MissingFile, UserError: this is no finished run, or its results are damaged or of another version.
    """
    path = osp.join(folder, RESULTS_FILE)
    if not osp.isfile(path):
        if osp.isfile(osp.join(folder, "log.txt")):
            raise UserError(f"the run {folder} is unfinished: call the command that started it again, it goes on")
        raise MissingFile(f"{folder} is not the folder of a run: it has no {RESULTS_FILE}")
    results = read_results(folder)
    config = results.get("config")
    if not isinstance(config, dict):
        raise UserError(f"{path} has {'no' if config is None else 'a wrong'} 'config': it is damaged, run it again")
    found = [(key, value, f"in {path}") for key, value in flatten(config)]
    return results, make_cfg([*found, *((key, value, "by this program") for key, value in dict(settings).items())])


def load_run(folder, which=None, settings=(), new_task=None):
    """The trainer of a finished run with its learned values.

    Args:
        folder: of the run; of one with --eval-only, the model is that of the run that it tested.
        which: "best", "last" or the number of an epoch; None: the best model if the run kept it, else the last.
        settings: as in `read_run`.
        new_task: a `Task` to build it for instead of the run's own, or None.

    Raises:
        MissingFile, UserError: as `read_run`; it lacks that model; a file of it or of the backbone is damaged or
            another one; what was learned is tied to the run's tasks or images, and `new_task` is given.
    """
    results, cfg = read_run(folder, settings)
    if cfg.TRAINER.NAME == PROBE.label:
        raise UserError(f"the run {folder} is a linear probe, which learns no context")
    trainer_class = find_trainer(cfg)
    place = parts = None
    if trainer_class.learns(cfg):
        place = folder if checkpoint_files(folder) else results.get("model_dir")
        parts = list(checkpoint_files(place)) if place else []
        if not parts:
            raise UserError(f"the model {place} that {folder} tested is not there: put it back" if place else
                            f"the run {folder} has no checkpoints: give one that trained (not --eval-only)")
        which = best_or_last(place, parts) if which is None else which
        (path, checkpoint), = read_parts(place, parts[:1], which).values()
    elif which is not None:
        raise UserError(f"--epoch {which} chooses among models, but {folder} has learned none: leave it out")
    tasks = tasks_of(checkpoint, path) if place == folder else suite_of(results, folder)
    trainer = trainer_class(cfg, [new_task] if new_task else tasks)
    if new_task:
        check_free(trainer)
    check_backbone(results, trainer.weights, cfg, folder)
    if place:
        trainer.load_model(place, which)
        tested = (results.get("identity") or {}).get("model")
        if place != folder and trainer.digest_of_learned() != tested:
            raise UserError(f"the model {which} of {place} is not the one that {folder} tested: give --epoch, or that "
                            "run itself")
    return trainer


def check_backbone(results, weights, cfg, folder):
    """Compare the `weights` of the backbone, a digest, with those in the `results` of the run in `folder`.

    Raises:
        UserError: they differ.
    """
    if (results.get("identity") or {}).get("weights", weights) != weights:
        raise UserError(f"the backbone {cfg.MODEL.BACKBONE.NAME} has other values than when {folder} ran: put those "
                        "weights back")


def check_free(trainer):
    """Refuse a method whose classifiers can't be made from names alone.

    Raises:
        UserError: with the reason.
    """
    name = type(trainer).__name__
    if isinstance(trainer, ProtoNet):
        raise UserError(f"--new-task: {name} makes its classes of training images, and a new task has none")
    for who, kind in trainer.ties():
        raise UserError(f"--new-task: {who} ties each context to a {kind} of training, so there is none for a new task")


def suite_of(results, folder):
    """The tasks, a list of `Task` with their templates, that `results.json` holds.

    Raises:
        UserError: it holds none, as those of older versions, or they are damaged.
    """
    path = osp.join(folder, RESULTS_FILE)
    if "suite" not in results:
        raise UserError(f"{path} does not hold the names of its classes, since an older version made it: run it again "
                        "in another folder")
    return tasks_of({"tasks": results["suite"]}, path)


def tasks_of(content, path):
    """The tasks, a list of `Task`, whose names are in the `content` of a checkpoint or results at `path`.

    Raises:
        UserError: it holds none, or they are damaged.
    """
    if "tasks" not in content:
        raise UserError(f"{path} does not hold the names of its tasks and classes: train again with this version")
    named = content["tasks"]
    if not isinstance(named, list) or not named or not all(map(is_named, named)):
        raise UserError(f"{path} has a wrong 'tasks', which must hold names of tasks and classes: it is damaged, fetch "
                        "it or train again")
    return [Task(task["name"], tuple(task["classes"]), **{key: task[key] for key in ("template",) if key in task},
                 repeated_names=True) for task in named]


def is_named(task):
    """Whether a value is one of those that `runs.checkpoints.name_tasks` or `describe_suite` makes."""
    return isinstance(task, dict) and isinstance(task.get("name"), str) and isinstance(task.get("classes"), list) and (
        len(task["classes"]) > 0 and all(isinstance(name, str) for name in task["classes"]))


class Classifiers:
    """A run's classifiers, one per task, of image features.

    Attributes:
        cfg: of the run. tasks: list of `Task`.
        encode: `ImageFeatures`, as in testing. upright: whether images are turned as their EXIF orientation says.
    """

    def __init__(self, cfg, tasks, encode):
        self.cfg, self.tasks, self.encode = cfg, tasks, encode
        dataset = cfg.DATASET.NAME
        self.upright = dataset in DATASET_REGISTRY.registered_names() and getattr(
            DATASET_REGISTRY.get(dataset), "upright", False)

    def logits(self, features, number):
        """Logits (B, n) of features (B, ...) on the CPU for the classes of task `number`."""
        raise NotImplementedError

    @torch.no_grad()
    def probabilities(self, features, number):
        """Softmax over the classes of task `number` (B, n), float64 on the CPU, of features as `encode` makes them.

        Raises:
            NotFinite: a logit is NaN.
        """
        logits = self.logits(features, number).double().cpu()
        if logits.isnan().any():
            raise NotFinite("logits are NaN: check the weights, or use another PREC")
        return logits.softmax(dim=1)


class TrainedClassifiers(Classifiers):
    """Those of a trainer; `class_features` is what its tests compare images with."""

    @torch.no_grad()
    def __init__(self, trainer, class_features=None):
        super().__init__(trainer.cfg, trainer.tasks, trainer.encode)
        self.trainer = trainer
        with trainer.autocast():
            self.class_features = trainer.test_features() if class_features is None else class_features
        self.first = [sum(len(task.classnames) for task in self.tasks[:t]) for t in range(len(self.tasks))]

    def logits(self, features, number):
        first, n = self.first[number], len(self.tasks[number].classnames)
        features = features.to(self.trainer.device)
        labels = torch.full((len(features),), first, device=features.device)  # they tell the task
        with self.trainer.autocast():
            return self.trainer.model.logits(features, labels, self.class_features)[:, first:first + n]


class ProbeClassifier(Classifiers):
    """That of a linear probe, whose one task has the linear map `weight` (n, dim) and `bias` (n,)."""

    def __init__(self, cfg, tasks, encode, weight, bias):
        super().__init__(cfg, tasks, encode)
        self.weight, self.bias = weight, bias

    def logits(self, features, number):
        return features.to(self.weight.dtype) @ self.weight.t() + self.bias


def load_classifiers(folder, which=None, batch=64, new_task=None):
    """The `Classifiers` of a finished run; no image feature is looked up or kept on disk.

    Args:
        folder, which, new_task: as in `load_run`. batch: images that are encoded at once.

    Raises:
        MissingFile, UserError: as `load_run`, or a file with prototypes or of a linear probe is not there or damaged.
    """
    settings = {**NO_IMAGES, "DATALOADER.TEST.BATCH_SIZE": batch}
    results, cfg = read_run(folder, settings)
    if cfg.TRAINER.NAME == PROBE.label:
        if new_task:
            raise UserError("--new-task: a linear probe learns its classes of training images, and a new task has none")
        if which is not None:
            raise UserError(f"--epoch {which} chooses among models, but a linear probe has one: leave it out")
        state = load_made(folder, CLASSIFIER_FILE, {"weight": torch.Tensor, "bias": torch.Tensor})
        features = Features(cfg)
        check_backbone(results, features.weights, cfg, folder)
        return ProbeClassifier(cfg, suite_of(results, folder), features.encode, state["weight"], state["bias"])
    trainer = load_run(folder, which, settings, new_task)
    if isinstance(trainer, ProtoNet):
        state = load_made(folder, PROTOTYPES_FILE, {"prototypes": torch.Tensor, "embedding": str})
        if state["embedding"] != trainer.digest_of_learned():
            raise UserError(f"the prototypes in {folder} are those of the model that was tested, not of --epoch "
                            f"{which}: leave --epoch out")
        return TrainedClassifiers(trainer, state["prototypes"].to(trainer.device))
    return TrainedClassifiers(trainer)


def load_made(folder, name, keys):
    """The file that a run's classifier was written into, as `runs.checkpoints.load`.

    Raises:
        MissingFile, UserError: it is not there, as in runs of older versions and without a test, or damaged.
    """
    path = osp.join(folder, name)
    if not osp.isfile(path):
        raise MissingFile(f"the run {folder} did not keep its classifier ({name}), since it tested nothing or an older "
                          "version made it: run it again in another folder")
    return load(path, keys)


def made_up_task(folder, name, classes, template=""):
    """A `Task` of names alone, for a classifier that RUN makes of it.

    Args:
        folder: of the run, whose method decides whether a template is needed. classes: list of str.

    Raises:
        MissingFile, UserError: as `read_run`; no or repeated classes; a template that is missing, or that isn't read.
    """
    _, cfg = read_run(folder)
    if cfg.TRAINER.NAME == PROBE.label or not issubclass(find_trainer(cfg), ZeroshotCLIP):
        if template:
            raise UserError(f"--template {template!r}: {cfg.TRAINER.NAME} reads no template, leave it out")
        return Task(name, tuple(classes))
    if not template:
        raise UserError(f"--new-task: {cfg.TRAINER.NAME} needs a prompt for the classes, such as --template "
                        '"a photo of a {}."')
    return Task(name, tuple(classes), template)
