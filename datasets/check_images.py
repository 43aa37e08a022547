"""Find images that can't be read, by decoding all once, and leave them out of a dataset if that is asked for.

`checked_images.sqlite` in `$SOFTCPT_CACHE` (or `~/.cache/softcpt`) remembers which images were sound, by path, size,
times of change and inode, so that a second check opens none of them. Broken images are decoded again: a permission may
have been mended.
"""

import contextlib
import os
import os.path as osp
import signal
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import PIL
from joblib import cpu_count
from tqdm import tqdm

from common.errors import UserError
from common.file_digests import state_of
from common.images import READER, BrokenImage, list_broken, read_image

from .files import PARTS

CHUNK = 128  # images that a process decodes at once
FEW = 256  # images for which no process is started


def broken_images(paths):
    """Decode image files, a process per core, except those that were found sound before.

    Args:
        paths: of the files; one that is listed twice is read once.

    Returns:
        {path: reason} of those that can't be read, see `BrokenImage`.

    Raises:
        UserError: a process that decodes was killed, or the database of sound images can't be used.
    """
    broken = {}
    with open_database() as db:
        query = "SELECT 1 FROM sound_images WHERE state = ?"
        paths = [path for path in dict.fromkeys(paths) if not db.execute(query, [fingerprint(path)]).fetchone()]
        chunks = [paths[i:i + CHUNK] for i in range(0, len(paths), CHUNK)]
        jobs = min(cpu_count(), len(chunks)) if len(paths) > FEW else 1
        # Ctrl-C is the caller's: the processes end with the pool
        pool = ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
        bar = tqdm(total=len(paths), desc="checking images", disable=len(paths) <= FEW)
        try:
            for decoded in (pool.map if jobs > 1 else map)(decode, chunks):
                broken.update((path, reason) for path, _, reason in decoded if reason)
                with db:
                    db.executemany("INSERT OR IGNORE INTO sound_images VALUES (?)",
                                   [[found] for _, found, reason in decoded if not reason])
                bar.update(len(decoded))
        except BrokenProcessPool:
            raise UserError("a process that decodes images was killed, perhaps for want of memory: call the same "
                            "command with LOKY_MAX_CPU_COUNT=1, which goes on from here") from None
        finally:
            bar.close()
            pool.shutdown(cancel_futures=True)
    return broken


def decode(paths):
    """Decode image files; return [(path, fingerprint, reason)], where the reason of a sound one is ""."""
    decoded = []
    for path in paths:
        found, reason = fingerprint(path), ""
        try:
            read_image(path)
        except BrokenImage as error:
            reason = error.reason
        decoded.append((path, found, reason))
    return decoded


def fingerprint(path):
    """Return bytes that stand for a file as it is now, and for its reader; None if it is gone."""
    state = state_of(path)
    return state and state + f" {READER} {PIL.__version__}".encode()


@contextlib.contextmanager
def open_database():
    """Open the database of fingerprints of sound images; a failure is a UserError."""
    path = osp.join(osp.expanduser(os.environ.get("SOFTCPT_CACHE") or "~/.cache/softcpt"), "checked_images.sqlite")
    with contextlib.suppress(OSError):  # the database then says that it can't be opened
        os.makedirs(osp.dirname(path), exist_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as db:
            db.execute("CREATE TABLE IF NOT EXISTS sound_images (state BLOB PRIMARY KEY) WITHOUT ROWID")
            yield db
    except sqlite3.Error as error:
        raise UserError(f"{path}, which remembers sound images, can't be used ({error}): delete it, free space on its "
                        "disk, or set SOFTCPT_CACHE to another folder") from error


def leave_out_broken(whole, data, place):
    """Leave out the images that can't be read; of a draw, the class's next sound image takes a broken one's place.

    What a draw has of other images stays as it is.

    Args:
        whole: list of `TaskData` with all images.
        data: the same after the few-shot draw.
        place: function from a listed path to the path where the image lies.

    Returns:
        `data` without them; files that are not there stay.

    Raises:
        UserError: a class has no training image left.
    """
    paths = [place(path) for task_data in whole for part in PARTS for path, _ in getattr(task_data, part)]
    broken = {path: reason for path, reason in broken_images(paths).items() if osp.exists(path)}
    if not broken:
        return data
    print(f"{list_broken(broken)}\nDATASET.SKIP_BROKEN leaves out {len(broken):,} of {len(set(paths)):,} images")
    kept = []
    for before, drawn in zip(whole, data):
        parts = {part: replace_broken(getattr(before, part), getattr(drawn, part), lambda path: place(path) in broken)
                 for part in PARTS}
        lost = {label for _, label in drawn.train} - {label for _, label in parts["train"]}
        if lost:
            raise UserError(f"no training image of class {before.task.classnames[min(lost)]!r} of task "
                            f"{before.task.name!r} can be read: put whole files there, or remove the class")
        kept.append(replace(drawn, **parts))
    return kept


def replace_broken(whole, drawn, is_broken):
    """Replace broken images of `drawn`, a list of (path, label), by sound ones of `whole`; drop those beyond."""
    if not any(is_broken(path) for path, _ in drawn):
        return drawn
    spare, taken = {}, {path for path, _ in drawn}
    for path, label in sorted(whole, reverse=True):
        if path not in taken and not is_broken(path):
            spare.setdefault(label, []).append(path)
    kept = []
    for path, label in drawn:
        if is_broken(path):
            path = spare[label].pop() if spare.get(label) else None
        if path:
            kept.append((path, label))
    return kept
