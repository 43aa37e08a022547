"""Make splits once, the same on every machine, and store them as JSON; `draws.py` makes few-shot draws."""

import os
import os.path as osp
import random
from collections import Counter

from common.errors import UserError
from common.files import write_json

from .files import PARTS
from .schemas import Split, read_checked

SHARES = (0.5, 0.2, 0.3)  # of a class's images in train, val and test


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


def split_train_val_test(items, shares=SHARES):
    """Split (path, label) pairs per class by the shares of train, val and test, with a generator of its own.

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
        n_train = min(max(1, round(len(paths) * shares[0])), len(paths) - 1)
        n_val = min(round(len(paths) * shares[1]), len(paths) - n_train - 1)
        for part, chosen in zip(PARTS, (paths[:n_train], paths[n_train:n_train + n_val], paths[n_train + n_val:])):
            parts[part] += [(path, label) for path in chosen]
    return parts


def folds_of(split, n):
    """Divide train and val of a stored split anew, n times, so that each image is in val once: a list of splits.

    Images of a folder are divided evenly; one that is alone there stays in train.

    Args:
        split: {part: [path]} of train, val and perhaps test, which stays.
    """
    folders = {}
    for path in [*split["train"], *split["val"]]:
        folders.setdefault(osp.dirname(path), []).append(path)
    fold_of = {path: i % n if len(paths) > 1 else None for paths in folders.values() for i, path in enumerate(paths)}
    return [{**split, "train": [path for path in fold_of if fold_of[path] != fold],
             "val": [path for path in fold_of if fold_of[path] == fold]} for fold in range(n)]


def split_train_val(items):
    """Split an official training list 80/20 per class: {"train", "val"}; a single image goes to train."""
    parts = {"train": [], "val": []}
    for label, paths in by_class(items).items():
        random.Random(f"0/{label}").shuffle(paths)
        n_val = min(round(len(paths) / 5), len(paths) - 1)
        parts["train"] += [(path, label) for path in paths[n_val:]]
        parts["val"] += [(path, label) for path in paths[:n_val]]
    return parts


def split_groups(items, groups, shares, placed):
    """Split (path, label) pairs so that a group of images stays whole, and each class comes near the shares.

    The groups go one after the other, the largest first, equal ones in an order of their own, to the part where the
    squared distances of all classes' shares from the wanted ones then sum to the least. The last groups of a class go
    to the first or last part if it has no image of the class yet.

    Args:
        items: [(path, label)].
        groups: {path: group}.
        shares: {part: share of the images}; they sum to 1.
        placed: {group: part} of groups that are placed already, with images of other classes.

    Returns:
        {part: [(path, label)]} in the order of labels and paths.

    Raises:
        UserError: there is one group alone.
    """
    total, sizes = Counter(label for _, label in items), {}  # group -> images of each label
    for path, label in items:
        sizes.setdefault(groups[path], Counter())[label] += 1
    if len({*sizes, *placed}) < 2:
        raise UserError(f"all images, such as {items[0][0]}, are of the group {groups[items[0][0]]!r}, which must not "
                        "be divided: a split needs at least two groups")
    left = Counter(label for size in sizes.values() for label in size)  # groups with images of a label
    parts, ends = list(shares), (list(shares)[0], list(shares)[-1])
    has, part_of = {part: Counter() for part in parts}, {}
    order = sorted(sizes)
    random.Random("0").shuffle(order)
    for group in sorted(order, key=lambda group: (group not in placed, -sizes[group].total())):
        size = sizes[group]

        def worth(part):
            needs = [label for label in size if part in ends and not has[part][label]
                     and left[label] <= sum(not has[end][label] for end in ends)]
            return len(needs), sum(n * (2 * (shares[part] * total[label] - has[part][label]) - n) / total[label] ** 2
                                   for label, n in size.items())

        part_of[group] = placed.get(group) or max(parts, key=worth)
        has[part_of[group]] += size
        left -= Counter(list(size))
    return {part: [(path, label) for label, paths in by_class(items).items() for path in paths
                   if part_of[groups[path]] == part] for part in parts}


def place_groups(parts, groups, where=""):
    """Return {group: part} of the images in {part: [(path, label)]}; a UserError if a group is in two parts."""
    first = {}  # group -> part and image
    for part, items in parts.items():
        for path, _ in items:
            other, image = first.setdefault(groups[path], (part, path))
            if other != part:
                raise UserError(f"{where}{image} is in {other} and {path} in {part}, but both are of the group "
                                f"{groups[path]!r}, which must not be divided: put them into one part, or leave "
                                "`groups` out")
    return {group: part for group, (part, _) in first.items()}


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


def complete_parts(parts, folder, store, key=None, shares=SHARES, groups=None):
    """Complete the official parts of a dataset.

    {"all"} is split by `shares` per class; of {"train", "test"} a fifth of train becomes val. The split is stored as
    JSON in the file `store`, which later calls read. Classes that are added later are split then; the others stay as
    they are. {"train", "val", "test"} and {"test"} are complete.

    Args:
        key: key of this split in a file of several splits; None for a file with one split.
        groups: {path: group} of images that must be in one part; None: every image for itself.

    Raises:
        UserError: as `split_train_val_test`, `split_groups`, `place_groups` and `stored_split`; `store` holds no split.
    """
    if "val" in parts or set(parts) == {"test"}:
        return parts
    whole = "all" in parts
    items = parts["all" if whole else "train"]
    file = {}
    if osp.isfile(store):
        file = read_checked(Split if key is None else dict[str, Split], store, "delete it to split again")
    split = file if key is None else file.get(key, {})
    drawn, new = stored_split(items, folder, split, store)
    placed = place_groups(drawn, groups, f"in the stored split {store} ") if groups else {}
    if new:
        if groups:
            split_new = split_groups(new, groups, dict(zip(PARTS, shares if whole else (0.8, 0.2))), placed)
        else:
            split_new = split_train_val_test(new, shares) if whole else split_train_val(new)
        for part, added in split_new.items():
            drawn[part] = sorted([*drawn.get(part, []), *added], key=lambda item: item[1])
            split = {**split, part: [*split.get(part, []), *(relative(path, folder) for path, _ in added)]}
        write_json(split if key is None else {**file, key: split}, store)
    return drawn if whole else {**drawn, "test": parts["test"]}
