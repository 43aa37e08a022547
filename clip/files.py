"""Weight files: fetch them once with a checksum, read them without running any code they hold."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
import warnings
import zipfile
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file
from tqdm import tqdm

_CHUNK = 1 << 20


def one_line(error):
    """An exception's text (str) on one line of at most 300 characters, for use inside a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def download(url, root=None):
    """Fetch `url` into the folder `root` and return the file's path (str).

    The second last part of the URL's path is the file's SHA-256, as in OpenAI's URLs. The file appears under
    its own name only when it is complete and right; until then it is `<name>.part`, which a later call
    continues. A file that is already there is used as it is, with a warning where its SHA-256 is another one:
    people put converted weights there.

    Args:
        url: what to fetch.
        root: target folder; default `~/.cache/clip`.
    Raises:
        RuntimeError: no connection, an interrupted transfer, or a wrong checksum.
    """
    target = Path(root or "~/.cache/clip").expanduser() / os.path.basename(url)
    expected = url.split("/")[-2]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):  # jobs that start together fetch it once
            if not target.exists():
                _fetch_checked(url, target, expected)
    elif _sha256(target) != expected:
        warnings.warn(f"{target} is used although its SHA-256 is not the published {expected}")
    return str(target)


def _fetch_checked(url, target, expected):
    part = Path(f"{target}.part")
    try:
        _fetch(url, part)
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeError(
            f"could not download {url} ({one_line(error)}); try again, which continues where it stopped, "
            f"or put the file at {target} by hand"
        ) from error
    actual = _sha256(part)
    if actual != expected:
        part.unlink()
        raise RuntimeError(f"{url} arrived with SHA-256 {actual} instead of {expected}; download it again")
    os.replace(part, target)


def _fetch(url, part):
    """Complete the file `part` from `url`: continue it where the server can, else start it anew."""
    have = part.stat().st_size if part.exists() else 0
    try:
        reply = _open(url, have)
    except urllib.error.HTTPError as error:
        if not (have and error.code == 416):  # 416: the range starts at or after the end of the file
            raise
        have, reply = 0, _open(url, 0)
    with reply:
        if reply.status != 206:
            have = 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None)
        with open(part, "ab" if have else "wb") as out, bar:
            while chunk := reply.read(_CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
    # A connection that closes early ends the read loop without an exception.
    got = part.stat().st_size
    if total is not None and got != total:
        raise ConnectionError(f"the connection closed after {got:,} of {total:,} bytes")


def _open(url, start):
    headers = {"Range": f"bytes={start}-"} if start else {}
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_state_dict(path):
    """Read the tensors of a weight file, on the CPU: dict of name -> tensor.

    Takes `.safetensors`, a TorchScript archive (OpenAI's own files), or what `torch.save` writes: a state
    dict, also under the key "state_dict" and with "module." before every name. Only tensors are unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
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
        raise ValueError(
            f"{path} is damaged or holds more than tensors ({one_line(error)}); get the file again"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no state dict (names with tensors) but {type(content).__name__}")
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return content


def _is_torchscript(path):
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = [name.partition("/")[2] for name in archive.namelist()]
    return "constants.pkl" in members and any(name.startswith("code/") for name in members)
