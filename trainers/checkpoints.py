"""Reading the checkpoints of a run's parts, ours and published ones."""

import os.path as osp
from itertools import zip_longest


def checkpoint_path(directory, part, epoch=None):
    """The checkpoint of a part: of `epoch`, or the one that the folder's `checkpoint` file names."""
    folder = osp.join(directory, part)
    pointer = osp.join(folder, "checkpoint")
    if epoch is not None:
        path = osp.join(folder, f"model.pth.tar-{epoch}")
    elif osp.isfile(pointer):
        with open(pointer, encoding="utf-8") as f:
            path = osp.join(folder, f.readline().strip())
    else:
        path = osp.join(folder, "model.pth.tar-<epoch>")
    if not osp.isfile(path):
        raise FileNotFoundError(f"the checkpoint {path} does not exist: check the run's folder and the epoch")
    return path


def name_tasks(tasks):
    """Names of tasks (list of `Task`) and their classes, as checkpoints hold them."""
    return [{"name": task.name, "classes": list(task.classnames)} for task in tasks]


def check_names(there, here, ties, path):
    """Refuse contexts that were learned for other tasks or classes than a run's, though they might fit in shape.

    Args:
        there, here: the `name_tasks` of the checkpoint `path` and of the run.
        ties: [(who, "task" or "class")], as `MultiTaskTrainer.ties`.

    Raises:
        ValueError: a context per task (class) is asked for, and the tasks (classes) differ in name, number or order.
    """
    for who, kind in ties:
        pairs = zip_longest(names_of(there, kind), names_of(here, kind), fillvalue="nothing")
        for old, new in pairs:
            if old != new:
                raise ValueError(f"{who} ties each context to a {kind} of training, and {path} was trained with {old} "
                                 f"where this run has {new}: test on those of training, in their order"
                                 + (f", or train with {who} False" if who.startswith("TRAINER.") else ""))


def names_of(tasks, kind):
    """What to call each task or class of `name_tasks`, list of str."""
    if kind == "task":
        return [f"task {task['name']!r}" for task in tasks]
    return [f"class {name!r} of task {task['name']!r}" for task in tasks for name in task["classes"]]


def load_part(module, state_dict, path):
    """Copy a checkpoint's values into a part; every learned value must be there, with the same shape."""
    there = {name: value for name, value in state_dict.items()
             if name.rsplit(".", 1)[-1] not in ("token_prefix", "token_suffix")}
    here = module.state_dict()
    if set(there) != set(here):
        raise ValueError(f"{path} holds the values {sorted(there)}, but this run needs {sorted(here)}: use the options "
                         "that the checkpoint was trained with")
    for name, value in there.items():
        if value.shape != here[name].shape:
            raise ValueError(f"{path}: {name} has shape {tuple(value.shape)}, but this run needs "
                             f"{tuple(here[name].shape)}: use the backbone, tasks, classes and options of training")
    module.load_state_dict(there)
