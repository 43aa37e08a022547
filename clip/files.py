"""Weight files: fetch them once with a checksum, read them without running any code they hold."""

import errno
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path

import pooch
import requests
import torch
from filelock import FileLock
from huggingface_hub import constants, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained as open_clip_download
from safetensors.torch import load_file

SAVE = "save a state dict alone with torch.save or safetensors"  # advice for a file of another kind


class ClipError(RuntimeError):
    """No model could be loaded, for a reason that its user can mend; the message says how."""


class MissingFile(ClipError, FileNotFoundError):
    """A weight file, a model's folder or its config is not there."""


class UnusableModel(ClipError, ValueError):
    """A name stands for no model, or a file's content for none that this package takes."""


def one_line(error):
    """Return an exception's text on one line of at most 300 characters, for use inside a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def download(url, root=None):
    """Fetch `url` into the folder `root` and return the file's path (str).

    The second last part of the URL's path is the file's SHA-256, as in OpenAI's URLs. The file appears under
    its own name only when it is complete and right; until then it is `<name>.part`, which is never continued.
    A file that is already there is used as it is, with a warning if its SHA-256 differs: people put converted
    weights there.

    Args:
        url: what to fetch.
        root: target folder; default `~/.cache/clip`.
    Raises:
        ClipError: no connection, an interrupted transfer, a full disk, or a wrong checksum (that file is removed).
    """
    target = Path(root or "~/.cache/clip").expanduser() / os.path.basename(url)
    expected = url.split("/")[-2]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):  # jobs that start together fetch it once
            if not target.exists():
                _fetch(url, target, expected)
    elif pooch.file_hash(target) != expected:
        warnings.warn(f"{target} is used although its SHA-256 is not the published {expected}")
    return str(target)


def _fetch(url, target, expected):
    part = Path(f"{target}.part")
    # Seconds to connect and between two packets. pooch.retrieve would do the rest, too, but a killed one leaves
    # files of random names, and only their owner can read its files.
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 20, timeout=(4, 60))
    try:
        fetch(url, str(part), None)
        actual = pooch.file_hash(part)
        if actual != expected:
            raise ClipError(f"{url} arrived with SHA-256 {actual} instead of {expected} and was removed; try again, "
                            f"or put the file at {target} by hand")
        os.replace(part, target)
    except OSError as error:  # errors of requests are OSErrors, too
        if error.errno == errno.ENOSPC:
            raise ClipError(f"the disk is full, {url} could not be stored in {target.parent}; free space and try "
                            "again") from error
        raise ClipError(f"could not download {url} ({_reason(error)}); try again, which starts anew, or put the file "
                        f"at {target} by hand") from error
    finally:
        part.unlink(missing_ok=True)


def read_content(path):
    """Read a weight file into CPU memory: usually a dict of name -> tensor, perhaps inside of other dicts.

    The file may be safetensors, a TorchScript archive (OpenAI's own files), or one that `torch.save` wrote, whatever
    its name. Only tensors and plain values are unpickled.

    Raises:
        MissingFile: no such file.
        UnusableModel: the file is damaged, something else, or holds Python objects.
    """
    path = Path(path)
    head = check_weight_file(path)
    try:
        if head[8:9] == b"{" and not head.startswith(b"PK"):
            return load_file(path)
        if head.startswith(b"PK") and _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated")
                return torch.jit.load(str(path), map_location="cpu").state_dict()
        with open(path, "rb") as file:  # by its path, PyTorch would go by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    # The readers share no exception type: zip, pickle, safetensors and TorchScript each have their own.
    except Exception as error:
        # of PyTorch's text the first sentence after its advice to unpickle everything
        reason = re.split(r"\. (?=[A-Z])|\n", str(error).rpartition("WeightsUnpickler error:")[2].strip())[0]
        raise UnusableModel(f"{path} is damaged, or holds more than tensors and plain values "
                            f"({reason or type(error).__name__}): get the file again, or {SAVE}") from error


def check_weight_file(path):
    """Return the first bytes of a weight file.

    Raises:
        MissingFile: no such file.
        UnusableModel: the file is something else.
    """
    if path.is_dir():
        raise UnusableModel(f"{path} is a folder, not a weight file: give the file in it")
    if not path.is_file():
        raise MissingFile(f"there is no weight file {path}")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise UnusableModel(f"{path} is empty: get the file again")
    if head.startswith(b"version https://git-lfs"):
        raise UnusableModel(f"{path} is a Git LFS pointer, not the file: run git lfs pull where it was cloned")
    if not head.startswith((b"PK", b"\x80")) and head[8:9] != b"{":  # zip, pickle, safetensors
        raise UnusableModel(f"{path} is neither a safetensors file nor one that torch.save wrote: get the file again, "
                            f"or {SAVE}")
    return head


def _is_torchscript(path):
    with zipfile.ZipFile(path) as archive:
        members = [name.partition("/")[2] for name in archive.namelist()]
    return "constants.pkl" in members and any(name.startswith("code/") for name in members)


def download_pretrained(config, cache_dir=None):
    """Return the weight file (str) of an entry of open_clip's table, from its cache or downloaded there.

    A cached file is used without network. A download without network fails at once; the hub's and urllib's own clients
    would try for minutes.

    Raises:
        OSError, or what huggingface_hub raises: no connection.
    """
    if config.get("hf_hub"):
        repository, name = os.path.split(config["hf_hub"])
        name = name or HF_WEIGHTS_NAME
        safe = HF_SAFE_WEIGHTS_NAME if name == HF_WEIGHTS_NAME else os.path.splitext(name)[0] + ".safetensors"
        for file in (safe, name):
            cached = try_to_load_from_cache(repository, file, cache_dir=cache_dir)
            if isinstance(cached, str):
                return cached
        _check_connection(constants.ENDPOINT)
    elif "url" in config:
        cached = Path(cache_dir or "~/.cache/clip").expanduser() / os.path.basename(config["url"])
        if not cached.is_file():
            _check_connection(config["url"])
    return open_clip_download(config, cache_dir=cache_dir)


def _check_connection(url):
    """Raise an OSError unless a server answers within seconds."""
    try:
        requests.head(url, timeout=4)
    except OSError as error:
        raise OSError(_reason(error)) from error


def _reason(error):
    """Return the reason of a failed connection in a line, without the addresses that requests puts before it."""
    return one_line(getattr(error.args[0], "reason", error) if error.args else error)
