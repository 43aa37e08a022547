"""Put the files of a `Source` into a dataset's folder, whole and right or not at all, and never over existing files."""

import errno
import os
import os.path as osp
import shutil
import sys

import pooch
from filelock import FileLock, Timeout

from common.errors import UserError

from ..files import not_as_named
from .archives import extract


def obtain(source, folder, unverified=False):
    """Put the missing files of `source` into the dataset's `folder`.

    The archive is downloaded into the folder, unless it is there, and checked. It is unpacked into a temporary folder,
    from which its files are moved to their places; the archive is kept. Existing files are neither changed nor deleted.

    Args:
        unverified: whether to fetch a file over plain http, or one for which no checksum is published.

    Raises:
        UserError: the download, the check or the unpacking failed; the message says what to do.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        lock = osp.join(folder, ".prepare.lock")
        refuse_in_the_way(lock, osp.isfile)
        with FileLock(lock, timeout=0):
            missing = [path for path in source.paths if not source.is_there(path, folder)]
            for path in missing:
                above = osp.dirname(path)
                while above:
                    refuse_in_the_way(osp.join(folder, above), osp.isdir)
                    above = osp.dirname(above)
                refuse_in_the_way(osp.join(folder, path), lambda path: osp.isdir(path) and not os.listdir(path))
            if missing:
                archive = fetch(source, folder, unverified)
                if missing != [source.name]:
                    unpack(source, archive, missing, folder)
    except Timeout:
        raise UserError(f"another call prepares {folder} right now: wait for its end and try again") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"the disk is full, {source.name} could not be unpacked in {folder}: free space and run "
                             "the same command again") from error
        raise UserError(f"{folder} cannot be written ({error}): check the folder and run the same command again"
                         ) from error


def refuse_in_the_way(path, may_be):
    """Raise a UserError if `path` is a link, or exists and fails the test `may_be`; links are never followed."""
    if osp.islink(path) or osp.lexists(path) and not may_be(path):
        raise UserError(f"{path} is in the way, it is a link or of the wrong kind: move it away and run the same "
                        "command again")


def fetch(source, folder, unverified):
    """Return the path of the source's file in `folder`, downloaded unless it is there; a wrong file is a UserError."""
    path = osp.join(folder, source.name)
    if osp.lexists(path):
        if not osp.isfile(path):
            raise UserError(f"{path} is in the way, it is no file: move it away and run the same command again, or "
                            f"fetch it from {source.page}")
        if instead := not_as_named(path):
            raise UserError(f"{path} is {instead}: move it away and run the same command again, or fetch it from "
                            f"{source.page}")
        if wrong := wrong_checksum(path, source.checksum):
            raise UserError(f"{path} has {wrong}: move it away and run the same command again, which downloads it, "
                             f"or fetch it from {source.page}")
    else:
        if not unverified and (not source.checksum or not source.url.startswith("https:")):
            doubt = f"{source.url} is fetched over plain http" if source.checksum else (
                f"no checksum is published for {source.url}")
            raise UserError(f"{doubt}, so others may have changed it on its way: add --unverified to fetch it all the "
                            f"same, or put it into {folder} yourself, from {source.page}")
        print(f"{source.url} -> {path}")
        download(source, path)
    return path


def download(source, path):
    """Download the source's file to `path`, where it appears complete and right; until then it is `<path>.part`.

    Raises:
        UserError: no connection, an interrupted transfer, a full disk, a wrong checksum or a web page (such a file is
            removed), or a link in the place of the unfinished file.
    """
    part = f"{path}.part"
    refuse_in_the_way(part, osp.isfile)
    # Some servers refuse the name of a Python package. Seconds to connect, and between two packets.
    headers = {"User-Agent": "Mozilla/5.0", "Accept-Encoding": "identity"}
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 20, timeout=(5, 60), headers=headers,
                               hooks={"response": keep_packed})
    try:
        get(source.url, part, None)
        if instead := not_as_named(part):
            raise UserError(f"{source.url} arrived as {instead}, and was removed: fetch it from {source.page}")
        if wrong := wrong_checksum(part, source.checksum):
            raise UserError(f"{source.url} arrived with {wrong} and was removed: run the same command again, or fetch "
                             f"it from {source.page}")
        os.rename(part, path)
    except OSError as error:  # errors of requests are OSErrors, too
        if error.errno == errno.ENOSPC:
            raise UserError(f"the disk is full, {source.url} could not be stored in {part}: free space and run the "
                             "same command again") from error
        # The message of requests on a failed connection has the address twice and the reason at its end.
        reason = getattr(error.args[0], "reason", error) if error.args else error
        raise UserError(f"could not download {source.url} to {path} ({' '.join(str(reason).split())}): check the "
                         "network and run the same command again, which starts this file anew, or fetch it from "
                         f"{source.page}") from error
    finally:
        if osp.lexists(part):
            os.remove(part)


def keep_packed(response, **kwargs):
    """Have requests store a file as it was sent: some servers call .tar.gz an encoding, which it would take off."""
    response.raw.headers.pop("Content-Encoding", None)


def wrong_checksum(path, checksum):
    """Say how a file's digest differs from the checksum "md5:..." or "sha256:..."; "" if it does not, or for ""."""
    algorithm, _, expected = checksum.partition(":")
    actual = pooch.file_hash(path, algorithm) if checksum else expected
    return "" if actual == expected else f"the {algorithm.upper()} {actual} instead of {expected}"


def unpack(source, archive, missing, folder):
    """Unpack `archive` and move the paths `missing` from it to `folder`."""
    temporary = osp.join(folder, ".unpacking")
    refuse_in_the_way(temporary, osp.isdir)
    shutil.rmtree(temporary, ignore_errors=True)  # a killed call left it: the lock excludes one that is at work
    try:
        os.mkdir(temporary)
        top = osp.join(temporary, "outer")
        extract(archive, top, archive)
        if source.inner:
            inner = osp.join(top, source.inner)
            if not osp.isfile(inner):
                raise UserError(f"{archive} does not hold {source.inner}: fetch it from {source.page}")
            top = osp.join(temporary, "inner")
            extract(inner, top, f"{source.inner} in {archive}")
        found = {path: find_topmost(path, top, archive, source) for path in missing}
        for path in missing:
            target = osp.join(folder, path)
            os.makedirs(osp.dirname(target), exist_ok=True)
            os.rename(found[path], target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"{archive} ({osp.getsize(archive) / 1e9:.1f} GB) is unpacked and not needed any more; it is kept")


def find_topmost(path, top, archive, source):
    """Return the topmost file or folder below `top` whose path ends with `path`; there must be exactly one."""
    parts = path.split("/")
    matches = []
    for parent, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name != "__MACOSX"]
        if parts[-1] in (folders if path in source.folders else files):
            candidate = osp.relpath(osp.join(parent, parts[-1]), top).split(os.sep)
            if candidate[-len(parts):] == parts:
                matches.append(candidate)
    topmost = [match for match in matches if len(match) == min(map(len, matches))]
    if len(topmost) != 1:
        raise UserError(f"{archive} has {'no' if not topmost else 'more than one'} {path}: unpack it by hand, or "
                         f"fetch it from {source.page}")
    return osp.join(top, *topmost[0])
