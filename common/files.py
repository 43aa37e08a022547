"""Paths, and files that are written whole or not at all. The tables need it without PyTorch, so it imports none."""

import errno
import json
import os
import shutil
from contextlib import contextmanager

from .errors import MissingFile, UserError


def mkdir_if_missing(dirname):
    """Create the folder and its parents; an existing one, or "", is fine."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def swap_prefix(path, old, new):
    """Return the path with `new` in place of `old` if it begins with `old`; with "" for `old`, the path itself."""
    return new + path[len(old):] if old and path.startswith(old) else path


@contextmanager
def atomic_path(fpath):
    """Yield a temporary name beside ``fpath``; on success it replaces ``fpath``, else it is removed."""
    folder, name = os.path.split(fpath)
    mkdir_if_missing(folder)
    # Not tempfile: its files are readable by their owner only, and run folders are shared.
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
        os.replace(temporary, fpath)
    except Exception as error:
        # PyTorch and safetensors have errors of their own for a full disk
        if getattr(error, "errno", None) == errno.ENOSPC or shutil.disk_usage(folder or ".").free < 2**20:
            raise UserError(f"the disk is full, {fpath} could not be written: free space and call the same command "
                            "again") from error
        raise
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def is_lfs_pointer(fpath):
    """Return whether a file is a Git LFS pointer: three lines of text in place of a file that is kept elsewhere."""
    start = b"version https://git-lfs.github.com/spec/"
    with open(fpath, "rb") as file:
        return file.read(len(start)) == start


def read_json(fpath):
    """Return the content of a JSON file.

    Raises:
        FileNotFoundError, ValueError: the file is missing or is not JSON.
    """
    if not os.path.isfile(fpath):
        raise MissingFile(f'No JSON file at "{fpath}": check the path')
    with open(fpath, encoding="utf-8") as file:
        try:
            return json.load(file)
        except (ValueError, RecursionError) as error:  # the latter where it is nested a thousand deep
            reason = "a Git LFS pointer: run git lfs pull" if is_lfs_pointer(fpath) else error
            raise UserError(f'"{fpath}" is not valid JSON ({reason}): repair it or fetch it again') from error


def write_json(obj, fpath):
    """Write ``obj`` as indented JSON, atomically; missing folders are made."""
    with atomic_path(fpath) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))
