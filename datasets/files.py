"""Read the files of datasets: class folders, and the lists, MATLAB files and splits that their authors publish."""

import os
import os.path as osp
import re
from collections import Counter

import numpy as np

from common.errors import MissingFile, UserError
from common.files import is_lfs_pointer
from common.images import FORMATS, HEIF_HINT, HEIF_SUFFIXES, RAW_HINT, RAW_SUFFIXES
from common.names import did_you_mean

from .schemas import SplitZhou, read_checked

PARTS = ("train", "val", "test")
# Two members of RS8 are TIFF files.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif",
                  *HEIF_SUFFIXES * ("HEIF" in FORMATS))
# Files beside images that nobody takes for one.
NO_IMAGES = ("thumbs.db", "desktop.ini", "readme", "license", "licence", "copying", "makefile")
NO_IMAGE_SUFFIXES = (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".html", ".ini",
                     ".log", ".toml", ".cfg", ".py", ".sh", ".pkl", ".db", ".tmp", ".lock")
# Folders that file systems, archivers and servers leave beside the classes.
LEFTOVERS = ("__MACOSX", "@eaDir", "@Recycle", "#recycle", "lost+found", "$RECYCLE.BIN", "System Volume Information",
             "__pycache__")
MOST = 10  # paths of a kind that a message shows
FIRST = 3  # paths that a message names in passing


def list_images(folder):
    """Return the sorted paths of the image files directly in `folder`."""
    return sorted(entry.path for entry in os.scandir(folder)
                  if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith("."))


def is_unread(path):
    """Return whether a file may well be an image or a video, but has no suffix of a kind that is read."""
    name = osp.basename(path).lower()
    return not (name.startswith(".") or name in NO_IMAGES or name.endswith(IMAGE_SUFFIXES + NO_IMAGE_SUFFIXES))


def list_unread(folder):
    """Return the paths that `is_unread` finds directly in a folder."""
    return [entry.path for entry in os.scandir(folder) if is_unread(entry.path) and entry.is_file()]


def describe_unread(paths):
    """Return a sentence on files that `is_unread` finds (how many, of which suffixes, the first, what to do), or ""."""
    if not paths:
        return ""
    kinds = Counter(osp.splitext(path)[1].lower() or "no suffix" for path in paths)
    heif, raw = (any(kind in suffixes for kind in kinds) for suffixes in (HEIF_SUFFIXES, RAW_SUFFIXES))
    others = any(kind not in HEIF_SUFFIXES + RAW_SUFFIXES for kind in kinds)
    hints = [HEIF_HINT] * heif + [RAW_HINT] * raw
    hints += [f"convert {'all else' if hints else 'images'} to PNG or JPEG"] * others
    more = f" and {len(paths) - FIRST:,} more" if len(paths) > FIRST else ""
    return (f"{len(paths):,} file{'s are' if len(paths) > 1 else ' is'} not read ("
            + ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
            + f"): {', '.join(sorted(paths)[:FIRST])}{more}; {', '.join(hints)}")


def unread_in_class_folders(tasks):
    """Return the paths that `is_unread` finds directly in class folders.

    Args:
        tasks: of each task its parts {part: [(path, label)]}. A class folder that holds no image is found where the
            class has a folder with images in another part.
    """
    folders = set()
    for parts in tasks:
        own = {osp.split(osp.dirname(path)) for items in parts.values() for path, _ in items}
        places, names = map(set, zip(*own)) if own else ((), ())
        folders |= {osp.join(place, name) for place in places for name in names}
    return [path for folder in folders if osp.isdir(folder) for path in list_unread(folder)]


def list_folders(folder):
    """Return the sorted names of the folders in `folder`, without hidden ones and leftovers.

    Raises:
        UserError: a name is no UTF-8 text, so it can name neither a class nor a task.
    """
    names = sorted(entry.name for entry in os.scandir(folder)
                   if entry.is_dir() and not entry.name.startswith(".") and entry.name not in LEFTOVERS)
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"the folder {os.fsencode(osp.join(folder, name))} has a name that is no UTF-8 text: "
                            "rename it") from None
    return names


def near_paths(path):
    """The one path that differs from the missing `path` in case or signs alone, as a list; or an empty one."""
    def simplify(name):
        return re.sub("[^a-z0-9.]", "", name.lower())

    parent, name = osp.split(osp.abspath(path))
    while not osp.isdir(parent):
        parent, name = osp.split(parent)
    alike = [entry for entry in os.listdir(parent) if simplify(entry) == simplify(name)]
    return [osp.join(parent, alike[0])] if len(alike) == 1 else []


class MissingFiles(MissingFile):
    """Files or folders of a dataset are missing or empty; `paths` lists them."""

    def __init__(self, message, paths):
        super().__init__(message)
        self.paths = paths


def images_of(folder):
    """Return the images of a class folder; a missing or empty folder is a MissingFiles."""
    if not osp.isdir(folder):
        raise MissingFiles(f"the class folder {folder} does not exist{did_you_mean(near_paths(folder))}", [folder])
    images = list_images(folder)
    if not images:
        below = next((name for name in list_folders(folder) if list_images(osp.join(folder, name))), "")
        unread = describe_unread(list_unread(folder))
        raise MissingFiles(f"the class folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)}): "
                           + (f"its folder {below} does, they must be in {osp.dirname(folder)}/<class>" if below else
                              unread or "unpack or put its images there, or remove it if it is no class"), [folder])
    return images


def find_class_folders(folder, skip=()):
    """Return the sorted names of the class folders in `folder`, without those in `skip`.

    Raises:
        FileNotFoundError: the folder does not exist.
        UserError: there is no class folder in it.
    """
    if not osp.isdir(folder):
        raise MissingFile(f"the folder {folder} does not exist: unpack the dataset's images there"
                          f"{did_you_mean(near_paths(folder))}")
    found = [name for name in list_folders(folder) if name not in skip]
    if not found:
        raise UserError(f"{folder} has no class folders, it needs {folder}/<class>/<image>.jpg")
    return found


def read_class_folders(folder, classes):
    """Return [(path, label)] of the images `folder/<class>/<image>`; `classes` are the folders in order of labels."""
    return read_many_class_folders([(folder, classes)])[0]


def read_many_class_folders(folders):
    """Return a list as `read_class_folders` for each (folder, classes); one MissingFiles lists all missing folders."""
    parts, errors = [], []
    for folder, classes in folders:
        parts.append([])
        for label, name in enumerate(classes):
            try:
                parts[-1] += [(path, label) for path in images_of(osp.join(folder, name))]
            except MissingFiles as error:
                errors.append(error)
    if errors:
        raise MissingFiles(str(errors[0]), [path for error in errors for path in error.paths])
    return parts


def not_as_named(path):
    """Return "an empty file", "a web page" or "a Git LFS pointer ..." if a file is that instead of data; else ""."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        return "a web page"
    return "a Git LFS pointer, which only names the file" if is_lfs_pointer(path) else ""


def check_official_file(path):
    """Raise a MissingFiles unless the file `path` exists, and a UserError if it holds no data."""
    if not osp.isfile(path):
        raise MissingFiles(f"{path} does not exist: put the dataset's official file of that name "
                           f"there{did_you_mean(near_paths(path))}", [path])
    if other := not_as_named(path):
        raise UserError(f"{path} is {other}: fetch the official file again")


def parse_lines(path, parse):
    """Return [parse(line)] for the lines of a text file that are not blank.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: `parse` failed with an IndexError, KeyError or ValueError; the message names file and line.
    """
    check_official_file(path)
    parsed = []
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                try:
                    parsed.append(parse(line.strip()))
                except (IndexError, KeyError, ValueError):
                    raise UserError(f"{path}, line {number}: {line.strip()!r} is malformed or names an unknown "
                                     "class: fetch the official file again") from None
    return parsed


def read_list(path, parse, classes):
    """Return [(image path, label)] of an official list of images.

    Args:
        parse: function from a line to (image path, class).
        classes: all classes, in order of labels.

    Raises:
        FileNotFoundError, UserError: as `parse_lines`, also for a class that is not in `classes`.
    """
    labels = {name: label for label, name in enumerate(classes)}

    def parse_item(line):
        image, name = parse(line)
        return image, labels[name]

    return parse_lines(path, parse_item)


def read_mat(path, key, *fields):
    """Return the array `key` of a MATLAB file as a list, or, with `fields`, a list for each field of a struct array.

    Raises:
        FileNotFoundError, UserError: there is no such file; it is no MATLAB file or lacks the array or a field.
    """
    from scipy.io import loadmat  # slow to import

    check_official_file(path)
    try:
        array = np.atleast_1d(loadmat(path, squeeze_me=True)[key])
        return [array[name].tolist() for name in fields] if fields else array.tolist()
    except Exception:  # SciPy has no common error for the many ways in which a file can be broken
        wanted = f"the array {key!r}" + (f" with the fields {', '.join(fields)}" if fields else "")
        raise UserError(f"{path} is not a MATLAB file with {wanted}: fetch the official file again") from None


def read_split_zhou(path, images):
    """Read one of CoOp's split files `split_zhou_<dataset>.json`, which many papers use.

    The file has a list of [path below the folder `images`, label, class name] for each of train, val and test.
    Underscores in class names become spaces.

    Returns:
        (class names, {part: [(path, label)]}).

    Raises:
        UserError: the file is not of that form, a label has two names, or the labels are not 0, 1, 2 ...
    """
    remedy = "fetch CoOp's file again, or delete it to have the data split anew"
    split = read_checked(SplitZhou, path, remedy)
    missing = [part for part in PARTS if part not in split]
    if missing:
        raise UserError(f"{path} has no list {missing[0]!r}, it must have {', '.join(PARTS)}: {remedy}")
    parts = {part: [(osp.join(images, image), label) for image, label, _ in split[part]] for part in PARTS}
    pairs = sorted({(label, name.replace("_", " ")) for part in PARTS for _, label, name in split[part]})
    if [label for label, _ in pairs] != list(range(len(pairs))):
        raise UserError(f"{path} must give each of the labels 0, 1, 2 ... one class name: {remedy}")
    twice = {image for image, _ in parts["test"]} & {image for part in ("train", "val") for image, _ in parts[part]}
    if twice:  # published so, perhaps: it is not for us to change
        print(f"Note: {path} has {len(twice):,} test images that are trained on, too; one is {min(twice)}")
    return tuple(name for _, name in pairs), parts
