"""What is kept on disk of image features, and its removal."""

import contextlib
import json
import os
import os.path as osp
import shutil
from dataclasses import dataclass, field

from safetensors import SafetensorError, safe_open

from .store import FOLDER_NAME, guard, list_packs, locks_of_users, owner_of


@dataclass
class Kept:
    """Features of one dataset that one encoder made in one way.

    Attributes:
        folder: of all features made in that way. description: of the way; {} if its `space.json` is lost or damaged.
        dataset, root: what they were made for, "" in packs of older versions.
        packs: paths. groups: names of their subfolders. count: of features. size: bytes.
        used: when a run last used one of them, in seconds since 1970.
    """

    folder: str
    description: dict
    dataset: str
    root: str
    packs: list = field(default_factory=list)
    groups: set = field(default_factory=set)
    count: int = 0
    size: int = 0
    used: float = 0.0


def list_kept(root):
    """[`Kept`] of all features below `root`, the folder of all of them. What is removed meanwhile is left out."""
    found = []
    for folder in folders_of(root):
        try:
            with open(osp.join(folder, "space.json"), encoding="utf-8") as f:
                description = json.load(f)
        except (OSError, ValueError):
            description = None
        here = {}
        for path in packs_below(folder):
            with contextlib.suppress(FileNotFoundError):
                state, (source, count) = os.stat(path), read_header(path)
                kept = here.setdefault(source, Kept(folder, description if isinstance(description, dict) else {},
                                                    *source))
                kept.packs.append(path)
                kept.groups.add(osp.basename(osp.dirname(path)))
                kept.count, kept.size = kept.count + count, kept.size + state.st_size
                kept.used = max(kept.used, state.st_mtime)
        found += here.values()
    return found


def folders_of(root):
    """Sorted paths of the folders below `root` that hold features; those with names of another form are not ours."""
    return sorted(entry.path for entry in os.scandir(root)
                  if entry.is_dir() and FOLDER_NAME.fullmatch(entry.name)) if osp.isdir(root) else []


def packs_below(folder):
    """Paths of the packs in all groups of a folder."""
    return [path for group in sorted(os.listdir(folder)) for path in list_packs(osp.join(folder, group))]


def read_header(path):
    """((dataset, root), number of features) of a pack; ("", "") and 0 of a damaged one."""
    try:
        with safe_open(path, "pt") as pack:
            about = pack.metadata() or {}
            return (about.get("dataset", ""), about.get("root", "")), pack.get_slice("keys").get_shape()[0]
    except SafetensorError:
        return ("", ""), 0


def remove(root, kept):
    """Remove features, except those in folders that a process uses; folders that are left without any go as a whole.

    Args:
        root: the folder of all features. kept: list of `Kept` below it.

    Returns:
        The `Kept` that are left since they are in use, and {their folder: the process, in words}.
    """
    users = {}
    with guard(root):
        for folder in folders_of(root):
            held, _ = locks_of_users(folder)
            if held:
                users[folder] = owner_of(held[0])
                continue
            for path in [path for one in kept if one.folder == folder for path in one.packs]:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
            if not packs_below(folder):
                shutil.rmtree(folder)
    left = [one for one in kept if one.folder in users]
    return left, {one.folder: users[one.folder] for one in left}
