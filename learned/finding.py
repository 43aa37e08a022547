"""Finds the images that a user names: files, folders, and paths on stdin."""

import itertools
import os
import os.path as osp
import sys

from common.errors import UserError
from datasets.files import IMAGE_SUFFIXES, describe_unread, is_unread


def find_images(places):
    """Paths of images: files as given, image files below folders by name; "-" stands for the lines of stdin.

    Links to folders are followed, as in training. Files below folders that may be images of kinds that are not read are
    counted and named in a line.

    Raises:
        UserError: there is no image, no such file, or a folder can't be read.
    """
    found = []
    for place in itertools.chain.from_iterable(stdin_lines() if place == "-" else [place] for place in places):
        if osp.isdir(place):
            files = [path for path in files_below(place) if not osp.basename(path).startswith(".")]
            images = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
            unread = describe_unread([path for path in files if is_unread(path)
                                      and f"{os.sep}." not in path.removeprefix(place)])  # a folder such as .git
            if not images:
                raise UserError(f"the folder {place} holds no image ({', '.join(IMAGE_SUFFIXES)})"
                                + f"; {unread}" * bool(unread))
            if unread:
                print(f"Warning: {unread}")
            found += sorted(images)
        elif osp.lexists(place):
            found.append(place)
        else:
            raise UserError(f"there is no image and no folder {place}")
    if not found:
        raise UserError("there is no image to predict: stdin gave no path")
    return found


def files_below(place):
    """Yield the paths of files below a folder."""
    def fail(error):
        raise UserError(f"the folder {error.filename} can't be read ({error.strerror}): change its permissions")

    seen = set()  # a link may lead to a folder above it
    for folder, below, names in os.walk(place, onerror=fail, followlinks=True):
        if osp.realpath(folder) in seen:
            below.clear()
            continue
        seen.add(osp.realpath(folder))
        yield from (osp.join(folder, name) for name in names)


def stdin_lines():
    """The lines of stdin that are not blank. File names may hold any bytes but a newline."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")
    return [line.removesuffix("\r") for line in sys.stdin.read().split("\n") if line.strip()]
