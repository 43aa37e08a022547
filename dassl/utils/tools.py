"""Files, seeds and messages."""

import difflib
import json
import os
import platform
import random
import warnings

import numpy as np
import PIL
import torch

from ..errors import MissingFile, UserError
from ..files import atomic_path, mkdir_if_missing  # noqa: F401  they belong to Dassl's interface


def check_isfile(fpath):
    """Return whether ``fpath`` is a file, and warn when it is not."""
    isfile = os.path.isfile(fpath)
    if not isfile:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return isfile


def is_lfs_pointer(fpath):
    """Return whether a file is what Git leaves in place of one that Git LFS keeps elsewhere: three lines of text."""
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
        except ValueError as error:
            reason = "a Git LFS pointer: run git lfs pull" if is_lfs_pointer(fpath) else error
            raise UserError(f'"{fpath}" is not valid JSON ({reason}): repair it or fetch it again') from error


def write_json(obj, fpath):
    """Write ``obj`` as indented JSON, atomically; missing folders are made."""
    with atomic_path(fpath) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


def set_random_seed(seed):
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info():
    """Return a few lines on the software and the devices of this machine; needs no network and no GPU."""
    import torchvision  # slow to import

    rows = [
        f"Python: {platform.python_version()} ({platform.platform()})",
        f"PyTorch: {torch.__version__} (CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()})",
        f"torchvision: {torchvision.__version__}",
        f"NumPy: {np.__version__}",
        f"Pillow: {PIL.__version__}",
        f"CPU threads: {torch.get_num_threads()}",
    ]
    if torch.cuda.is_available():
        rows += [f"GPU {i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    else:
        rows.append("GPU: none available")
    return "\n".join(rows)


def listdir_nohidden(path, sort=False):
    """List a folder without the names that begin with a dot."""
    items = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(items) if sort else items


def check_availability(requested, available, key="the name"):
    """Raise a ValueError with a suggestion unless the string ``requested`` is in the list ``available``.

    ``key`` says of what it is the value, such as ``DATASET.NAME``.
    """
    if requested not in available:
        guess = difflib.get_close_matches(requested, available, 1)
        raise UserError(f"{key} is {requested!r}, but must be one of {', '.join(available)}"
                        + (f": did you mean {guess[0]}?" if guess else ""))
