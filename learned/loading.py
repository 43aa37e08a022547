"""A finished run as its folder tells it: the trainer with its learned values, and its classifier of images.

Nothing but the run's folder and its backbone is read, neither images nor lists of the dataset.
"""

import os.path as osp

import torch

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from common.errors import MissingFile, NotFinite, UserError
from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import Task
from runs.checkpoints import best_or_last, checkpoint_files
from runs.config import find_trainer, make_cfg
from runs.results import RESULTS_FILE, flatten, read_results

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
            another one; what was learned is tied to the run's tasks or classes, and `new_task` is given.
    """
    results, cfg = read_run(folder, settings)
    trainer_class = find_trainer(cfg)
    place = parts = None
    if trainer_class.saved_parts(cfg):
        place = folder if checkpoint_files(folder) else results.get("model_dir")
        parts = list(checkpoint_files(place)) if place else []
        if not parts:
            raise UserError(f"the model {place} that {folder} tested is not there: put it back" if place else
                            f"the run {folder} has no checkpoints: give one that trained (not --eval-only)")
        which = best_or_last(place, parts) if which is None else which
    elif which is not None:
        raise UserError(f"--epoch {which} chooses among models, but {folder} has learned none: leave it out")
    trainer = trainer_class(cfg, [new_task] if new_task else suite_of(results, folder))
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
    for option, kind in trainer.specific(trainer.options).items():
        raise UserError(f"--new-task: {trainer.name_of(option)} learns something of its own for every {kind} of "
                        "training, so there is nothing for a new task")


def suite_of(results, folder):
    """The tasks, a list of `Task` with their templates, that `results.json` holds.

    Raises:
        UserError: it holds none, as those of older versions, or they are damaged.
    """
    path = osp.join(folder, RESULTS_FILE)
    if "suite" not in results:
        raise UserError(f"{path} does not hold the names of its classes, since an older version made it: run it again "
                        "in another folder")
    named = results["suite"]
    if not isinstance(named, list) or not named or not all(map(is_named, named)):
        raise UserError(f"{path} has a wrong 'suite', which must hold names of tasks and classes: it is damaged, run it "
                        "again")
    for task in named:
        if isinstance(task.get("template"), list):
            task["template"] = tuple(task["template"])
    return [Task(task["name"], tuple(task["classes"]), task.get("template", Task.template), repeated_names=True)
            for task in named]


def is_named(task):
    """Whether a value is one of those that `describe_suite` makes."""
    return isinstance(task, dict) and isinstance(task.get("name"), str) and isinstance(task.get("classes"), list) and (
        len(task["classes"]) > 0 and all(isinstance(name, str) for name in task["classes"]))


class Classifier:
    """A run's classifier of images: a softmax over the classes of each task.

    Attributes:
        trainer: of the run, as `load_run`. tasks: list of `Task`. cfg: of the run.
        encode: `ImageFeatures`, as in testing. upright: whether images are turned as their EXIF orientation says.
    """

    @torch.no_grad()
    def __init__(self, trainer):
        self.trainer, self.cfg, self.tasks, self.encode = trainer, trainer.cfg, trainer.tasks, trainer.encode
        dataset = self.cfg.DATASET.NAME
        self.upright = dataset in DATASET_REGISTRY.registered_names() and getattr(
            DATASET_REGISTRY.get(dataset), "upright", False)
        with trainer.autocast():
            self.class_features = trainer.model.class_features()
        self.sizes = [len(task.classnames) for task in self.tasks]

    @torch.no_grad()
    def logits(self, images):
        """Logits (B, n_cls) of images whose task is not known, on the CPU, for the classes of each task.

        Args:
            images: features as `encode` makes them, or pixels (B, 3, H, W) where the image tower has learned.
        """
        with self.trainer.autocast():
            return self.trainer.model.logits_of_all_tasks(images.to(self.trainer.device), self.class_features).cpu()

    def probabilities(self, images):
        """Softmax over the classes of each task, a list of (B, n), float64; `images` as in `logits`.

        Raises:
            NotFinite: a logit is NaN.
        """
        logits = self.logits(images).double()
        if logits.isnan().any():
            raise NotFinite("logits are NaN: check the weights, or use another PREC")
        return [own.softmax(dim=1) for own in logits.split(self.sizes, dim=1)]


def load_classifier(folder, which=None, batch=64, new_task=None):
    """The `Classifier` of a finished run; no image feature is looked up or kept on disk.

    Args:
        folder, which, new_task: as in `load_run`. batch: images that are encoded at once.

    Raises:
        MissingFile, UserError: as `load_run`.
    """
    return Classifier(load_run(folder, which, {**NO_IMAGES, "DATALOADER.TEST.BATCH_SIZE": batch}, new_task))


def made_up_task(folder, name, classes, template=""):
    """A `Task` of names alone, for a classifier that RUN makes of it.

    Args:
        folder: of the run, whose method decides whether a template is needed. classes: list of str.

    Raises:
        MissingFile, UserError: as `read_run`; no or repeated classes; a template that is missing, or that isn't read.
    """
    _, cfg = read_run(folder)
    if not find_trainer(cfg).reads_templates:
        if template:
            raise UserError(f"--template {template!r}: {cfg.TRAINER.NAME} reads no template, leave it out")
        return Task(name, tuple(classes))
    if not template:
        raise UserError(f"--new-task: {cfg.TRAINER.NAME} needs a prompt for the classes, such as --template "
                        '"a photo of a {}."')
    return Task(name, tuple(classes), template)
