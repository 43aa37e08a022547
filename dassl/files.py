"""Paths, and files that are written whole or not at all. It imports no PyTorch, which the tables do without."""

import errno
import os
import shutil
from contextlib import contextmanager

from .errors import UserError


def mkdir_if_missing(dirname):
    """Create the folder and its parents; an existing one, or "", is fine."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def swap_prefix(path, old, new):
    """The path with `new` in place of `old`, if it begins with that; `old` may be ""."""
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
