"""Seeds, messages, and a description of this machine."""

import os
import platform
import random
import warnings

import numpy as np
import PIL
import torch

from common.errors import UserError
from common.names import did_you_mean, near


def check_isfile(fpath):
    """Return whether ``fpath`` is a file, and warn when it is not."""
    isfile = os.path.isfile(fpath)
    if not isfile:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return isfile


def set_random_seed(seed):
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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


def check_availability(requested, available, key):
    """Raise a ValueError with a suggestion unless ``requested``, the value of ``key``, is in the list ``available``."""
    if requested not in available:
        raise UserError(f"{key} is {requested!r}, but must be one of {', '.join(available)}"
                        f"{did_you_mean(near(requested, available))}")
