"""Loads a finished run: the trainer with its learned values, and its classifier of images.

It reads the run's folder and its backbone, neither images nor lists of the dataset.
"""

import json
import os.path as osp

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from common.errors import MissingFile, UserError
from common.files import read_json
from datasets.base import Task
from runs.checkpoints import best_or_last, checkpoint_files
from runs.config import find_trainer, make_cfg
from runs.results import RESULTS_FILE, flatten, read_results

from .classifier import Classifier

NO_IMAGES = {"DATALOADER.FEATURE_CACHE": False}  # settings of programs that train on none


def read_run(folder, settings=()):
    """(results, config) of a finished run.

    Args:
        folder: of the run. settings: {key: value} that the config has instead of the run's.

    Raises:
        MissingFile, UserError: this is no finished run, or its results are of another version.
    """
    path = osp.join(folder, RESULTS_FILE)
    if not osp.isfile(path):
        if osp.isfile(osp.join(folder, "log.txt")):
            raise UserError(f"the run {folder} is unfinished: call the command that started it again, it goes on")
        raise MissingFile(f"{folder} is not the folder of a run: it has no {RESULTS_FILE}")
    results = read_results(folder)
    for key in ("config", "suite"):
        if key not in results:
            raise UserError(f"{path} has no {key!r}, since an older version made it: run it again in another folder")
    found = [(key, value, f"in {path}") for key, value in flatten(results["config"])]
    return results, make_cfg([*found, *((key, value, "by this program") for key, value in dict(settings).items())])


def load_run(folder, which=None, settings=(), new_task=None):
    """The trainer of a finished run with its learned values.

    Its attribute `was_tested` says whether they are what the run tested; if so, it has the run's `validation`.

    Args:
        folder: of the run. If it was made with --eval-only, the model is that of the run that it tested.
        which: "best", "last" or the number of an epoch; None: the best model if the run kept it, else the last.
        settings: as in `read_run`.
        new_task: a `Task` to build it for instead of the run's own, or None.

    Raises:
        MissingFile, UserError: the run is not finished, lacks that model, or its backbone has other values; what was
            learned is tied to the run's tasks or classes, and `new_task` is given.
    """
    results, cfg = read_run(folder, settings)
    trainer_class = find_trainer(cfg)
    model_dir, tested = None, None
    if trainer_class.saved_parts(cfg):
        model_dir = folder if checkpoint_files(folder) else results.get("model_dir")
        parts = checkpoint_files(model_dir) if model_dir else {}
        if not parts:
            raise UserError(f"the model {model_dir} that {folder} tested is not there: put it back" if model_dir else
                            f"the run {folder} has no checkpoints: give one that trained (not --eval-only)")
        tested = best_or_last(model_dir, parts)
        which = tested if which is None else which
    elif which is not None:
        raise UserError(f"--epoch {which} chooses among models, but {folder} has learned none: leave it out")
    trainer = trainer_class(cfg, [new_task] if new_task else tasks_of(results))
    tied = new_task and not trainer.shared_parts(trainer.options)
    for option, kind in trainer.specific(trainer.options).items() if tied else ():
        raise UserError(f"--new-task: {trainer.name_of(option)} learns something of its own for every {kind} of "
                        "training, so there is nothing for a new task")
    identity = results.get("identity", {})
    if identity.get("weights", trainer.weights) != trainer.weights:
        raise UserError(f"the backbone {cfg.MODEL.BACKBONE.NAME} has other values than when {folder} ran: put those "
                        "weights back")
    if model_dir:
        trainer.load_model(model_dir, which)
        if model_dir != folder and trainer.digest_of_learned() != identity.get("model"):
            raise UserError(f"the model {which} of {model_dir} is not the one that {folder} tested: give --epoch, or "
                            "that run itself")
    trainer.was_tested = which == tested and not new_task
    if trainer.was_tested:
        trainer.validation = results.get("validation")
    return trainer


def tasks_of(results):
    """The tasks, a list of `Task`, that a `results.json` names; what was a tuple is a list there."""
    return [Task(task["name"], tuple(task["classes"]), template if isinstance(template, str) else tuple(template),
                 repeated_names=True) for task in results["suite"] for template in [task["template"]]]


def load_classifier(folder, which=None, batch=64, new_task=None):
    """The `Classifier` of a finished run, see `load_run`; it encodes `batch` images at once, and keeps no features."""
    return Classifier(load_run(folder, which, {**NO_IMAGES, "DATALOADER.TEST.BATCH_SIZE": batch}, new_task))


def task_of_names(folder, name, classes, template=""):
    """A `Task` that the run in `folder` was not trained on, made of names alone; `classes` is a list of str.

    Raises:
        MissingFile, UserError: `read_run` refuses the run; a single class or repeated ones; a template that is missing,
            or that the method does not read.
    """
    _, cfg = read_run(folder)
    if len(classes) == 1:
        raise UserError(f"--classes {classes[0]!r}: of a single class the probability is 1 for any image, give at "
                        "least two, such as one for all else that the images show")
    if not find_trainer(cfg).reads_templates:
        if template:
            raise UserError(f"--template {template!r}: {cfg.TRAINER.NAME} reads no template, leave it out")
        return Task(name, tuple(classes))
    if not template:
        raise UserError(f"--new-task: {cfg.TRAINER.NAME} needs a prompt for the classes, such as --template "
                        '"a photo of a {}."')
    return Task(name, tuple(classes), template)


def read_classes(text):
    """The class names, a list of str, that `--classes` gives.

    Args:
        text: names with commas between them; a JSON list; or a file: `x.json` with such a list, `@x.txt` with a name a
            line.

    Raises:
        MissingFile, UserError: there is no such file, it holds no list of names, or a name is empty or cut.
    """
    if text.startswith("[") or text.endswith(".json"):
        try:
            names = json.loads(text) if text.startswith("[") else read_json(text.removeprefix("@"))
        except json.JSONDecodeError as error:
            raise UserError(f"--classes {text} begins as a JSON list and is none ({error}): write '[\"a\", \"b\"]'"
                            ) from error
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise UserError(f"--classes {text} must be a JSON list of names, such as [\"fly agaric\", \"parasol\"]")
    elif text.startswith("@"):
        if not osp.isfile(text[1:]):
            raise MissingFile(f"--classes {text}: there is no file {text[1:]}")
        try:
            with open(text[1:], encoding="utf-8-sig") as file:
                names = [line for line in file.read().splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise UserError(f"--classes {text}: {text[1:]} is not UTF-8 text: save it as UTF-8") from None
    else:
        names = text.split(",")
        wrong = next((name for name in names if not name.strip() or '"' in name), None)
        if wrong is not None:
            raise UserError(f"--classes {text!r} has the name {wrong.strip()!r}: give names that hold a comma as a "
                            "JSON list, '[\"sweet, red\", \"sour\"]', or in a file, a name a line: @names.txt")
    if not names:
        raise UserError(f"--classes {text} names no class")
    return [name.strip() for name in names]
