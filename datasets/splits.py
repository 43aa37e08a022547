"""Splits: made once, stored as JSON, and the same on every machine; `draws.py` has the few-shot draws."""

import os
import os.path as osp
import random

from dassl.errors import UserError
from dassl.utils import read_json, write_json

from .files import PARTS


def split_folder(folder, cfg):
    """Where a dataset's splits and few-shot draws are stored.

    `DATASET.SPLIT_DIR` if set; else `split_fewshot` in the dataset's folder, or, where that cannot be written, a
    folder of its own under `~/.cache/softcpt` (the draws are the same wherever they are stored).
    """
    if cfg.DATASET.SPLIT_DIR:
        return osp.join(osp.expanduser(cfg.DATASET.SPLIT_DIR), osp.basename(folder))
    if os.access(folder, os.W_OK):
        return osp.join(folder, "split_fewshot")
    cache = osp.join(osp.expanduser("~/.cache/softcpt/splits"), folder.strip(os.sep).replace(os.sep, "--"))
    print(f"{folder} cannot be written: its splits are stored in {cache}")
    return cache


def relative(path, folder):
    """`path` relative to `folder`; for the usual path below it this is much faster than os.path.relpath."""
    return path[len(folder) + 1:] if path.startswith(folder + os.sep) else osp.relpath(path, folder)


def by_class(items):
    """(path, label) pairs -> {label: sorted paths}."""
    groups = {}
    for path, label in items:
        groups.setdefault(label, []).append(path)
    return {label: sorted(paths) for label, paths in sorted(groups.items())}


def split_train_val_test(items, p_train=0.5, p_val=0.2, seed=0):
    """Split (path, label) pairs per class, 50/20/30 by default, with a generator of its own.

    The draw depends on `seed` and on the sorted paths of a class alone. Every class keeps at least one training
    and one test image.

    Returns:
        (train, val, test), lists of (path, label).

    Raises:
        UserError: a class has a single image.
    """
    train, val, test = [], [], []
    for label, paths in by_class(items).items():
        if len(paths) < 2:
            raise UserError(f"{paths[0]} is the only image of its class: a train/test split needs at least two")
        random.Random(f"{seed}/{label}").shuffle(paths)
        n_train = min(max(1, round(len(paths) * p_train)), len(paths) - 1)
        n_val = min(round(len(paths) * p_val), len(paths) - n_train - 1)
        for part, chosen in ((train, paths[:n_train]), (val, paths[n_train:n_train + n_val]),
                             (test, paths[n_train + n_val:])):
            part += [(path, label) for path in chosen]
    return train, val, test


def split_train_val(items, p_val=0.2, seed=0):
    """Split an official training list 80/20 per class into (train, val); a single image goes to train."""
    train, val = [], []
    for label, paths in by_class(items).items():
        random.Random(f"{seed}/{label}").shuffle(paths)
        n_val = min(round(len(paths) * p_val), len(paths) - 1)
        train += [(path, label) for path in paths[n_val:]]
        val += [(path, label) for path in paths[:n_val]]
    return train, val


def stored_split(items, folder, split, store):
    """{part: [(path, label)]} of a stored split {part: [path below `folder`]} of `items`.

    Raises:
        UserError: the split does not list exactly the images that are there; `store` is its file.
    """
    there = {relative(path, folder): (path, label) for path, label in items}
    listed = {path for paths in split.values() for path in paths}
    if listed != set(there):
        raise UserError(f"{folder} has {len(set(there) - listed)} images that the stored split {store} does not "
                         f"list and lacks {len(listed - set(there))} that it does: delete that file (and the "
                         "few-shot draws beside it) to split again")
    return {part: [there[path] for path in paths] for part, paths in split.items()}


def complete_parts(parts, folder, store):
    """Give the official parts of a dataset those they lack.

    {"all"} is split 50/20/30 per class; of {"train", "test"} a fifth of train becomes val. The draw is stored as
    JSON in the file `store` and read back from then on. {"train", "val", "test"} and a mere {"test"} stay as they are.

    Raises:
        UserError: as `split_train_val_test` and `stored_split`.
    """
    if "val" in parts or set(parts) == {"test"}:
        return parts
    whole = "all" in parts
    items = parts["all" if whole else "train"]
    if osp.isfile(store):
        drawn = stored_split(items, folder, read_json(store), store)
    else:
        drawn = dict(zip(PARTS, split_train_val_test(items) if whole else split_train_val(items)))
        write_json({part: [relative(path, folder) for path, _ in chosen] for part, chosen in drawn.items()}, store)
    return drawn if whole else {**drawn, "test": parts["test"]}
