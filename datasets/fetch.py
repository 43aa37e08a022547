"""Put the files of a `Source` into a dataset's folder: whole and right, or not at all, and never over what is there."""

import errno
import gzip
import os
import os.path as osp
import shutil
import sys
import tarfile
import zipfile
import zlib

import pooch
from filelock import FileLock, Timeout
from tqdm import tqdm

from dassl.errors import UserError


def obtain(source, folder):
    """Put what the dataset's `folder` lacks of `source` there.

    The archive is downloaded into the folder, unless it is there, checked, and unpacked into a folder beside what it
    is to become, which is then renamed; it is kept. What exists is neither changed nor deleted.

    Raises:
        UserError: the download, the check or the unpacking failed; the message says what to do.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with FileLock(osp.join(folder, ".prepare.lock"), timeout=0):
            missing = [path for path in source.paths if not source.is_there(path, folder)]
            for path in (osp.join(folder, path) for path in missing):
                if osp.lexists(path) and not (osp.isdir(path) and not os.listdir(path)):
                    raise UserError(f"{path} is in the way, it is a broken link or of the wrong kind: move it away "
                                     "and run the same command again")
            if missing:
                archive = fetch(source, folder)
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


def fetch(source, folder):
    """Path of the source's file in `folder`, downloaded unless it is there; a wrong checksum is a UserError."""
    path = osp.join(folder, source.name)
    if osp.lexists(path):
        if wrong := wrong_checksum(path, source.checksum):
            raise UserError(f"{path} has {wrong}: move it away and run the same command again, which downloads it, "
                             f"or fetch it from {source.page}")
    else:
        print(f"{source.url} -> {path}")
        if not source.checksum:
            print(f"no checksum is published for {source.name}: it is not checked")
        download(source, path)
    return path


def download(source, path):
    """Download the source's file to `path`, where it appears complete and right; until then it is `<path>.part`.

    Raises:
        UserError: no connection, an interrupted transfer, a full disk, or a wrong checksum (that file is removed).
    """
    part = f"{path}.part"
    # Some servers refuse the name of a Python package. Seconds to connect, and between two packets.
    headers = {"User-Agent": "Mozilla/5.0", "Accept-Encoding": "identity"}
    get = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 20, timeout=(5, 60), headers=headers,
                               hooks={"response": keep_packed})
    try:
        get(source.url, part, None)
        if wrong := wrong_checksum(part, source.checksum):
            raise UserError(f"{source.url} arrived with {wrong} and was removed: run the same command again, or fetch "
                             f"it from {source.page}")
        os.rename(part, path)
    except OSError as error:  # those of requests are such, too
        if error.errno == errno.ENOSPC:
            raise UserError(f"the disk is full, {source.url} could not be stored in {part}: free space and run the "
                             "same command again") from error
        # What requests says of a failed connection has the address twice and the reason at its end.
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
    """How a file's digest differs from the checksum "md5:..." or "sha256:...", in words; "" if it fits or is ""."""
    algorithm, _, expected = checksum.partition(":")
    actual = pooch.file_hash(path, algorithm) if checksum else expected
    return "" if actual == expected else f"the {algorithm.upper()} {actual} instead of {expected}"


def unpack(source, archive, missing, folder):
    """Unpack `archive` and rename what the paths `missing` are in it to what they are in `folder`."""
    temporary = osp.join(folder, ".unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a call that was killed: the lock tells that none is at work
    try:
        top = osp.join(temporary, "outer")
        extract(archive, top)
        if source.inner:
            inner = osp.join(top, source.inner)
            if not osp.isfile(inner):
                raise UserError(f"{archive} does not hold {source.inner}: fetch it from {source.page}")
            top = osp.join(temporary, "inner")
            extract(inner, top)
        found = {path: find(path, top, archive, source) for path in missing}
        for path in missing:
            target = osp.join(folder, path)
            os.makedirs(osp.dirname(target), exist_ok=True)
            os.rename(found[path], target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"{archive} ({osp.getsize(archive) / 1e9:.1f} GB) is unpacked and not needed any more; it is kept")


def extract(archive, folder):
    """Unpack a zip or tar file into `folder`; one that is damaged or neither is a UserError."""
    bar = {"desc": f"unpacking {osp.basename(archive)}", "unit": " files", "disable": None}
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for member in tqdm(opened.infolist(), **bar):
                    opened.extract(member, folder)
        else:
            with tarfile.open(archive) as opened:
                for member in tqdm(opened, **bar):
                    opened.extract(member, folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error,
            RuntimeError) as error:
        raise UserError(f"{archive} is damaged or no zip or tar file ({' '.join(str(error).split())}): move it away "
                         "and run the same command again, or fetch it by hand") from error


def find(path, top, archive, source):
    """The topmost file or folder below `top` whose path ends as `path`; none, or more than one, is a UserError."""
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
