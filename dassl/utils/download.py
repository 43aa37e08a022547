"""Files from the network: complete and right, or not there."""

import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request

from tqdm import tqdm

from .tools import mkdir_if_missing

CHUNK = 1 << 20  # bytes


def download_url(url, dst, checksum=""):
    """Download ``url`` to the file ``dst``.

    Until the file is complete and right it is ``<dst>.part``. With a checksum a later call goes on where that one
    ends; without, nothing could tell whether both parts are of the same file, so the download starts anew.

    Args:
        url: what to fetch.
        dst: the file's path.
        checksum: "md5:<hex digits>" or "sha256:<hex digits>".
    Raises:
        ValueError: no connection, an interrupted transfer, a full disk, or a wrong checksum (that file is removed).
    """
    mkdir_if_missing(os.path.dirname(dst))
    part = f"{dst}.part"
    try:
        _fetch(url, part, resume=bool(checksum))
        check_checksum(part, checksum)
    except WrongChecksum as error:
        os.remove(part)
        raise ValueError(f"{url} arrived with {error}: download it again") from None
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise ValueError(f"the disk is full, {url} could not be stored in {part}: free space and try again"
                             ) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"Could not download {url} to {dst} ({reason}): check the network and try again"
                         f"{', which continues where it stopped' if checksum else ''}, or fetch it by hand") from error
    os.replace(part, dst)


class WrongChecksum(ValueError):
    """A file's digest is another one than it should be."""


def check_checksum(path, checksum):
    """Raise WrongChecksum unless the file has the checksum "md5:..." or "sha256:..."; "" fits every file."""
    if checksum:
        algorithm, _, expected = checksum.partition(":")
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with open(path, "rb") as file, _bar(os.path.getsize(path), 0, f"checking {os.path.basename(path)}") as bar:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                bar.update(len(chunk))
        if digest.hexdigest() != expected:
            raise WrongChecksum(f"the {algorithm.upper()} {digest.hexdigest()} instead of {expected}")


def _fetch(url, part, resume):
    """Complete the file ``part``: with ``resume`` continue it where the server can, else start it anew."""
    have = os.path.getsize(part) if resume and os.path.exists(part) else 0
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
        with open(part, "ab" if have else "wb") as out, _bar(total, have, os.path.basename(part)[:-5]) as bar:
            got = have
            while chunk := reply.read(CHUNK):
                out.write(chunk)
                got += len(chunk)
                bar.update(len(chunk))
    if total is not None and got != total:  # a connection that closes early ends the loop without an exception
        raise ConnectionError(f"the connection closed after {got:,} of {total:,} bytes")


def _open(url, start):
    headers = {"User-Agent": "Mozilla/5.0"}  # some servers refuse Python's own
    if start:
        headers["Range"] = f"bytes={start}-"
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)


def _bar(total, initial, name):
    return tqdm(total=total, initial=initial, unit="B", unit_scale=True, desc=name, disable=None)
