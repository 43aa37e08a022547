"""Make splits once, the same on every machine, and store them as JSON; `draws.py` makes few-shot draws."""

import os
import os.path as osp
import random

from common.errors import UserError
from common.files import write_json

from .files import PARTS
from .schemas import Split, read_checked


def split_folder(folder, cfg):
    """Return the folder for a dataset's splits and few-shot draws.

    It is in `DATASET.SPLIT_DIR` if that is set; else it is `split_fewshot` in the dataset's folder, or, if that cannot
    be written, a folder of its own under `~/.cache/softcpt` (the draws are the same in any folder).
    """
    if cfg.DATASET.SPLIT_DIR:
        return osp.join(osp.expanduser(cfg.DATASET.SPLIT_DIR), osp.basename(folder))
    if os.access(folder, os.W_OK):
        return osp.join(folder, "split_fewshot")
    cache = osp.join(osp.expanduser("~/.cache/softcpt/splits"), folder.strip(os.sep).replace(os.sep, "--"))
    print(f"{folder} cannot be written: its splits are stored in {cache}")
    return cache


def relative(path, folder):
    """Return `path` relative to `folder`, with / between its parts; this is much faster than os.path.relpath."""
    path = path[len(folder) + 1:] if path.startswith(folder + os.sep) else osp.relpath(path, folder)
    return path.replace("\\", "/")


def by_class(items):
    """Group (path, label) pairs as {label: sorted paths}."""
    groups = {}
    for path, label in items:
        groups.setdefault(label, []).append(path)
    return {label: sorted(paths) for label, paths in sorted(groups.items())}


def split_train_val_test(items):
    """Split (path, label) pairs per class, 50/20/30, with a generator of its own.

    The draw depends on the sorted paths of a class alone. Every class keeps at least one training and one test image.

    Returns:
        {part: [(path, label)]} of train, val and test.

    Raises:
        UserError: a class has a single image.
    """
    parts = {part: [] for part in PARTS}
    for label, paths in by_class(items).items():
        if len(paths) < 2:
            raise UserError(f"{paths[0]} is the only image of its class: a train/test split needs at least two")
        random.Random(f"0/{label}").shuffle(paths)
        n_train = min(max(1, round(len(paths) / 2)), len(paths) - 1)
        n_val = min(round(len(paths) / 5), len(paths) - n_train - 1)
        for part, chosen in zip(PARTS, (paths[:n_train], paths[n_train:n_train + n_val], paths[n_train + n_val:])):
            parts[part] += [(path, label) for path in chosen]
    return parts


def split_train_val(items):
    """Split an official training list 80/20 per class: {"train", "val"}; a single image goes to train."""
    parts = {"train": [], "val": []}
    for label, paths in by_class(items).items():
        random.Random(f"0/{label}").shuffle(paths)
        n_val = min(round(len(paths) / 5), len(paths) - 1)
        parts["train"] += [(path, label) for path in paths[n_val:]]
        parts["val"] += [(path, label) for path in paths[:n_val]]
    return parts


def stored_split(items, folder, split, store):
    """Apply a stored split to `items`, and find the classes that it lacks.

    Listed images in folders that are not part of the dataset any more are left out.

    Args:
        items: [(path, label)].
        split: {part: [path below `folder`]}.
        store: the split's file, for messages.

    Returns:
        ({part: [(path, label)]}, [(path, label)] of the classes without a listed image).

    Raises:
        UserError: it lists an image twice, or other images of a class than are there.
    """
    there = {relative(path, folder): (path, label) for path, label in items}
    listed = [path for paths in split.values() for path in paths]
    if len(set(listed)) < len(listed):
        twice = next(path for path in listed if listed.count(path) > 1)
        raise UserError(f"the stored split {store} lists {twice} twice: an image must not be trained and tested on; "
                        "delete that file (and the few-shot draws beside it) to split again")
    listed = set(listed)
    split_labels = {label for path, (_, label) in there.items() if path in listed}
    unlisted = [item for path, item in there.items() if path not in listed and item[1] in split_labels]
    folders = {osp.dirname(path) for path in there}
    lost = [path for path in listed - set(there) if osp.dirname(path) in folders]
    if unlisted or lost:
        example = relative(unlisted[0][0], folder) if unlisted else min(lost)
        raise UserError(f"{folder} has {len(unlisted)} images that the stored split {store} does not list and lacks "
                        f"{len(lost)} that it does (one is {example}): delete that file (and the few-shot draws beside "
                        "it) to split again")
    parts = {part: [there[path] for path in paths if path in there] for part, paths in split.items()}
    return parts, [(path, label) for path, label in items if label not in split_labels]


def complete_parts(parts, folder, store, key=None):
    """Complete the official parts of a dataset.

    {"all"} is split 50/20/30 per class; of {"train", "test"} a fifth of train becomes val. The split is stored as
    JSON in the file `store`, which later calls read. Classes that are added later are split then; the others stay as
    they are. {"train", "val", "test"} and {"test"} are complete.

    Args:
        key: key of this split in a file of several splits; None for a file with one split.

    Raises:
        UserError: as `split_train_val_test` and `stored_split`; `store` holds no split.
    """
    if "val" in parts or set(parts) == {"test"}:
        return parts
    whole = "all" in parts
    items = parts["all" if whole else "train"]
    draw = split_train_val_test if whole else split_train_val
    file = {}
    if osp.isfile(store):
        file = read_checked(Split if key is None else dict[str, Split], store, "delete it to split again")
    split = file if key is None else file.get(key, {})
    drawn, new = stored_split(items, folder, split, store)
    if new:
        for part, added in draw(new).items():
            drawn[part] = sorted([*drawn.get(part, []), *added], key=lambda item: item[1])
            split = {**split, part: [*split.get(part, []), *(relative(path, folder) for path, _ in added)]}
        write_json(split if key is None else {**file, key: split}, store)
    return drawn if whole else {**drawn, "test": parts["test"]}
