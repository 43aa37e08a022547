"""Weight files: fetch them once with a checksum, read them without running any code they hold."""

import errno
import os
import sys
import warnings
import zipfile
from pathlib import Path

import pooch
import torch
from filelock import FileLock
from safetensors.torch import load_file


class ClipError(RuntimeError):
    """No model could be loaded, for a reason that its user can mend; the message says how."""


class MissingFile(ClipError, FileNotFoundError):
    """A weight file, a model's folder or its config is not there."""


class UnusableModel(ClipError, ValueError):
    """A name stands for no model, or a file's content for none that this package takes."""


def one_line(error):
    """An exception's text (str) on one line of at most 300 characters, for use inside a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def download(url, root=None):
    """Fetch `url` into the folder `root` and return the file's path (str).

    The second last part of the URL's path is the file's SHA-256, as in OpenAI's URLs. The file appears under
    its own name only when it is complete and right; until then it is `<name>.part`, which is never continued.
    A file that is already there is used as it is, with a warning where its SHA-256 is another one: people put
    converted weights there.

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
    # files of random names, and what it makes only its owner can read.
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 20, timeout=(5, 60))
    try:
        fetch(url, str(part), None)
        actual = pooch.file_hash(part)
        if actual != expected:
            raise ClipError(f"{url} arrived with SHA-256 {actual} instead of {expected} and was removed; try again, "
                            f"or put the file at {target} by hand")
        os.replace(part, target)
    except OSError as error:  # those of requests are such, too
        if error.errno == errno.ENOSPC:
            raise ClipError(f"the disk is full, {url} could not be stored in {target.parent}; free space and try "
                            "again") from error
        # What requests says of a failed connection has the address twice and the reason at its end.
        reason = getattr(error.args[0], "reason", error) if error.args else error
        raise ClipError(f"could not download {url} ({one_line(reason)}); try again, which starts anew, or put the file "
                        f"at {target} by hand") from error
    finally:
        part.unlink(missing_ok=True)


def read_state_dict(path):
    """Read the tensors of a weight file, on the CPU: dict of name -> tensor.

    Takes `.safetensors`, a TorchScript archive (OpenAI's own files), or what `torch.save` writes: a state
    dict, also under the key "state_dict" and with "module." before every name. Only tensors are unpickled.

    Raises:
        MissingFile: no such file.
        UnusableModel: the file is damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        elif _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*torch.jit.load.* is deprecated")
                content = torch.jit.load(str(path), map_location="cpu").state_dict()
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # The readers share no exception type: zip, pickle, safetensors and TorchScript each have their own.
    except Exception as error:
        raise UnusableModel(
            f"{path} is damaged or holds more than tensors ({one_line(error)}); get the file again"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise UnusableModel(f"{path} holds no state dict (names with tensors) but {type(content).__name__}")
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return content


def _is_torchscript(path):
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = [name.partition("/")[2] for name in archive.namelist()]
    return "constants.pkl" in members and any(name.startswith("code/") for name in members)
