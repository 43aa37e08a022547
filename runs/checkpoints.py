"""Checkpoints of a run's parts, named as in the published code: `<part>/model.pth.tar-<epoch>`, `model-best.pth.tar`.

A file holds `state_dict`, `epoch`, the run's `identity`, the names of its `tasks` and classes, and None as `optimizer`
and `scheduler`, keys which Dassl's readers expect: a run goes on from its resume file, so checkpoints need no state of
these, which may be larger than what was learned.
"""

import os.path as osp
import re
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

import torch

from common.errors import MissingFile, NotFinite, UserError
from common.files import atomic_path
from dassl.utils import load_checkpoint

BEST = "model-best.pth.tar"
POINTER = "checkpoint"  # holds the name of the last epoch's file, as in Dassl


def load(path, **kinds):
    """A checkpoint file as a dict.

    Args:
        kinds: {key: type} of what it must hold.

    Raises:
        MissingFile, UserError: it is not there, not readable, or lacks one of the keys.
    """
    found = load_checkpoint(path)
    lacking = ["values by name"] if not isinstance(found, dict) else [
        repr(key) for key, kind in kinds.items() if not isinstance(found.get(key), kind)]
    if lacking:
        raise UserError(f"{path} has no {lacking[0]}: it is no checkpoint of a run; fetch it or train again")
    return found


def save(state, path):
    """Write a dict of tensors and plain values, whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def save_parts(directory, states, name, common):
    """Write the file `<part>/<name>` for every part; `states` is {part: {key: value}}, `common` {key: value}."""
    for part, state in states.items():
        save({**common, **state}, osp.join(directory, part, name))
        print(f"Checkpoint saved to {osp.join(directory, part, name)}")
    if name != BEST:
        for part in states:
            with atomic_path(osp.join(directory, part, POINTER)) as temporary, open(temporary, "w") as f:
                f.write(f"{name}\n")


def read_parts(directory, parts, which):
    """Read a run's model: {part: (path, checkpoint)}.

    Args:
        parts: names of the parts. which: "best", "last" or the number of an epoch.

    Raises:
        MissingFile, UserError: a file is missing, unreadable, or the parts are of different epochs or runs.
    """
    found = {}
    for part in parts:
        path = checkpoint_path(directory, part, which)
        found[part] = path, load(path, state_dict=dict, epoch=int)
    for key in ("epoch", "identity"):
        if len({repr(checkpoint.get(key)) for _, checkpoint in found.values()}) > 1:
            raise UserError(f"the parts of {directory} are of different {'epochs' if key == 'epoch' else 'runs'} "
                            f"({', '.join(path for path, _ in found.values())}): the run was stopped while it saved, "
                            "call its command again")
    return found


def checkpoint_path(directory, part, which):
    """The checkpoint file of a part; "last" is the one that the folder's file `checkpoint` names."""
    name, pointer = f"model.pth.tar-{which}", Path(directory, part, POINTER)
    if which == "best":
        name = BEST
    elif which == "last" and pointer.is_file():
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        if not re.fullmatch(r"model\.pth\.tar-\d+", name):
            raise UserError(f"{pointer} must hold the name of a checkpoint beside it, but holds {name[:40]!r}: give "
                            "the epoch instead of last")
    path = osp.join(directory, part, name)
    if not osp.isfile(path):
        raise MissingFile(f"the checkpoint {path} does not exist: check the run's folder and the epoch")
    return path


def best_or_last(directory, parts):
    """"best" if a run kept its best model, else "last"; the published code tests the same one."""
    return "best" if any(osp.isfile(osp.join(directory, part, BEST)) for part in parts) else "last"


def checkpoint_files(directory):
    """The checkpoint files of a run's folder: {part: sorted paths}."""
    found = defaultdict(list)
    for path in sorted(Path(directory).glob("*/model*.pth.tar*")):
        found[path.parent.name].append(str(path))
    return dict(found)


def model_identity(directory, which=None):
    """The identity of the run that trained a model; None if the model is a published checkpoint.

    Raises:
        MissingFile, UserError: there is no model, or `read_parts` refuses it.
    """
    parts = list(checkpoint_files(directory))
    if not parts:
        raise MissingFile(f"{directory} holds no checkpoints: give the folder of a run that trained (--model-dir)")
    (_, checkpoint), = read_parts(directory, parts[:1], which or best_or_last(directory, parts)).values()
    return checkpoint.get("identity")


def name_tasks(tasks):
    """The names of `tasks` (list of `Task`) and of their classes, as checkpoints hold them."""
    return [{"name": task.name, "classes": list(task.classnames)} for task in tasks]


def check_names(there, here, ties, path):
    """Refuse a model that was learned for other tasks or classes than a run's, though its shapes may fit.

    Args:
        there, here: the `name_tasks` of the checkpoint `path` and of the run.
        ties: {option: "task" or "class"}; with the option a method learns something for every task or class.

    Raises:
        UserError: the tasks (classes) that the model is tied to differ in name, number or order.
    """
    for who, kind in ties.items():
        pairs = zip_longest(_names_of(there, kind), _names_of(here, kind), fillvalue="nothing")
        for old, new in pairs:
            if old != new:
                raise UserError(f"{who} learns something of its own for every {kind} of training, and {path} was "
                                f"trained with {old} where this run has {new}: test on those of training, in order"
                                + (f", or train with {who} False" if who.startswith("TRAINER.") else ""))


def _names_of(tasks, kind):
    """The tasks or classes among `name_tasks` in words, list of str."""
    if kind == "task":
        return [f"task {task['name']!r}" for task in tasks]
    return [f"class {name!r} of task {task['name']!r}" for task in tasks for name in task["classes"]]


def load_part(module, state_dict, path):
    """Copy a checkpoint's values into a part; every value must be there, with the same shape, and finite.

    A tensor of the shape (0,) takes the checkpoint's shape: training makes it from images. Buffers `token_prefix` and
    `token_suffix` of published checkpoints are ignored: they hold the class names of training, but a run has its own.

    Raises:
        UserError: a value is missing, unknown, or has another shape. NotFinite: it is NaN or infinite.
    """
    there = {name: value for name, value in state_dict.items()
             if name.rsplit(".", 1)[-1] not in ("token_prefix", "token_suffix")}
    here = module.state_dict()
    for name, value in dict([*module.named_parameters(), *module.named_buffers()]).items():
        if value.shape == (0,) and isinstance(there.get(name), torch.Tensor) and there[name].ndim:
            value.data = torch.empty_like(there[name], dtype=value.dtype, device=value.device)
            here[name] = value
    if set(there) != set(here):
        raise UserError(f"{path} holds the values {sorted(there)}, but this run needs {sorted(here)}: use the options "
                        "that the checkpoint was trained with")
    for name, value in there.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{path}: {name} is no tensor: fetch the checkpoint or train again")
        if value.shape != here[name].shape:
            raise UserError(f"{path}: {name} has shape {tuple(value.shape)}, but this run needs "
                            f"{tuple(here[name].shape)}: use the backbone, tasks, classes and options of training")
        if not value.isfinite().all():
            raise NotFinite(f"{path}: {name} holds NaN or infinite values: fetch the checkpoint or train again")
    module.load_state_dict(there)
