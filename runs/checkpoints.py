"""Checkpoints of a run's parts: `<part>/model.pth.tar-<epoch>` and `<part>/model-best.pth.tar`, as published ones.

A part's file holds `state_dict`, `epoch`, `optimizer`, `scheduler` (these two under one part, None under the others,
since one optimizer steps all), the run's `identity`, and the names of its `tasks` and classes.
"""

import os
import os.path as osp
from itertools import zip_longest

import torch

from common.errors import MissingFile, NotFinite, UserError
from common.files import atomic_path
from dassl.utils import load_checkpoint

BEST = "model-best.pth.tar"
POINTER = "checkpoint"  # holds the name of the last epoch's file, as in Dassl


def load(path, keys=()):
    """A checkpoint file as a dict.

    Args:
        keys: what it must hold, {key: type}.

    Raises:
        MissingFile, UserError: it is not there, not readable, or lacks a key.
    """
    try:
        found = load_checkpoint(path)
    except FileNotFoundError as error:
        raise MissingFile(str(error)) from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no checkpoint but a {type(found).__name__}: fetch it or train again")
    for key, kind in dict(keys).items():
        if key not in found or not isinstance(found[key], kind):
            raise UserError(f"{path} has {'no' if key not in found else 'a wrong'} {key!r}: it is no checkpoint of a "
                            "run, or damaged; fetch it or train again")
    return found


def save(state, path):
    """Write a dict of tensors and plain values, whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def save_parts(directory, states, name, common):
    """Write the file `<part>/<name>` for every part.

    Args:
        states: {part: {key: value} of its own}. common: what all parts' files hold.
    """
    for part, state in states.items():
        save({**common, **state}, osp.join(directory, part, name))
        print(f"Checkpoint saved to {osp.join(directory, part, name)}")
    if name != BEST:
        for part in states:
            with atomic_path(osp.join(directory, part, POINTER)) as temporary, open(temporary, "w") as f:
                f.write(f"{name}\n")


def read_parts(directory, parts, which):
    """{part: (path, checkpoint)} of a run's model.

    Args:
        parts: names of the parts. which: "best", "last" or the number of an epoch.

    Raises:
        MissingFile, UserError: a file is missing, unreadable, or the parts are of different epochs or runs.
    """
    found = {}
    for part in parts:
        path = checkpoint_path(directory, part, which)
        found[part] = path, load(path, {"state_dict": dict, "epoch": int})
        if not _names_tasks(found[part][1].get("tasks", [])):
            raise UserError(f"{path} has a wrong 'tasks': it is damaged; fetch it or train again")
    for key in ("epoch", "identity"):
        if len({repr(checkpoint.get(key)) for _, checkpoint in found.values()}) > 1:
            raise UserError(f"the parts of {directory} are of different {'epochs' if key == 'epoch' else 'runs'} "
                            f"({', '.join(path for path, _ in found.values())}): the run was stopped while it saved, "
                            "call its command again")
    return found


def checkpoint_path(directory, part, which):
    """The checkpoint file of a part; "last" is the one that the folder's file `checkpoint` names.

    Raises:
        MissingFile: it does not exist.
    """
    folder = osp.join(directory, part)
    if which == "best":
        name = BEST
    elif which == "last":
        name = "model.pth.tar-<epoch>"
        if osp.isfile(osp.join(folder, POINTER)):
            with open(osp.join(folder, POINTER), encoding="utf-8") as f:
                name = f.readline().strip()
    else:
        name = f"model.pth.tar-{which}"
    path = osp.join(folder, name)
    if not osp.isfile(path):
        raise MissingFile(f"the checkpoint {path} does not exist: check the run's folder and the epoch")
    return path


def best_or_last(directory, parts):
    """"best" where a run kept its best model, else "last"; as the published code tests."""
    return "best" if any(osp.isfile(osp.join(directory, part, BEST)) for part in parts) else "last"


def checkpoint_files(directory):
    """{part: sorted paths of its checkpoint files} of a run's folder, empty if it has none."""
    found = {}
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name) if osp.isdir(directory) else ():
        names = sorted(os.listdir(entry.path)) if entry.is_dir() else ()
        paths = [osp.join(entry.path, name) for name in names if name.startswith("model") and ".pth.tar" in name]
        if paths:
            found[entry.name] = paths
    return found


def model_identity(directory, which=None):
    """The identity of the run that trained a model; None if it is a published checkpoint.

    Args:
        which: as in `read_parts`; None: as `best_or_last`.

    Raises:
        MissingFile, UserError: there is no model, or as `read_parts`.
    """
    parts = list(checkpoint_files(directory))
    if not parts:
        raise MissingFile(f"{directory} holds no checkpoints: give the folder of a run that trained (--model-dir)")
    (_, checkpoint), = read_parts(directory, parts[:1], which or best_or_last(directory, parts)).values()
    return checkpoint.get("identity")


def name_tasks(tasks):
    """Names of tasks (list of `Task`) and their classes, as checkpoints hold them."""
    return [{"name": task.name, "classes": list(task.classnames)} for task in tasks]


def _names_tasks(value):
    """Return True if `value` has the form that `name_tasks` returns."""
    return isinstance(value, list) and all(
        isinstance(task, dict) and isinstance(task.get("name"), str) and isinstance(task.get("classes"), list)
        for task in value)


def check_names(there, here, ties, path):
    """Refuse what was learned for other tasks or classes than a run's, though it might fit in shape.

    Args:
        there, here: the `name_tasks` of the checkpoint `path` and of the run.
        ties: {who: "task" or "class"}, who learns something of its own for every task or class.

    Raises:
        UserError: the tasks (classes) of such a model differ in name, number or order.
    """
    for who, kind in ties.items():
        pairs = zip_longest(_names_of(there, kind), _names_of(here, kind), fillvalue="nothing")
        for old, new in pairs:
            if old != new:
                raise UserError(f"{who} learns something of its own for every {kind} of training, and {path} was "
                                f"trained with {old} where this run has {new}: test on those of training, in their order"
                                + (f", or train with {who} False" if who.startswith("TRAINER.") else ""))


def _names_of(tasks, kind):
    """The tasks or classes of `name_tasks` in words, list of str."""
    if kind == "task":
        return [f"task {task['name']!r}" for task in tasks]
    return [f"class {name!r} of task {task['name']!r}" for task in tasks for name in task["classes"]]


def load_part(module, state_dict, path):
    """Copy a checkpoint's values into a part; every value must be there, with the same shape, and finite.

    A tensor of the shape (0,) is one that training makes of its images: it takes the checkpoint's shape.

    Buffers `token_prefix` and `token_suffix` of published checkpoints are ignored at any depth: they hold the class
    names of training time, while the prompts here follow the current ones.

    Raises:
        UserError: a value is missing, unknown, or has another shape. NotFinite: it is NaN or infinite.
    """
    there = {name: value for name, value in state_dict.items()
             if name.rsplit(".", 1)[-1] not in ("token_prefix", "token_suffix")}
    here = module.state_dict()
    for name, value in dict([*module.named_parameters(), *module.named_buffers()]).items():
        if value.shape == (0,) and name in there and there[name].ndim:
            value.data = torch.empty_like(there[name], dtype=value.dtype, device=value.device)
            here[name] = value
    if set(there) != set(here):
        raise UserError(f"{path} holds the values {sorted(there)}, but this run needs {sorted(here)}: use the options "
                        "that the checkpoint was trained with")
    for name, value in there.items():
        if value.shape != here[name].shape:
            raise UserError(f"{path}: {name} has shape {tuple(value.shape)}, but this run needs "
                            f"{tuple(here[name].shape)}: use the backbone, tasks, classes and options of training")
        if not value.isfinite().all():
            raise NotFinite(f"{path}: {name} holds NaN or infinite values: fetch the checkpoint or train again")
    module.load_state_dict(there)
