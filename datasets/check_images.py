"""Images that can't be read: found by decoding all, each once, and left out of a dataset if that is asked for.

What was found sound is remembered by path, size and time of change in `checked_images.sqlite` in `$SOFTCPT_CACHE` (or
`~/.cache/softcpt`), so that a second check opens none of it. Broken images are looked at anew: a permission may have
been mended.
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
from common.images import BrokenImage, list_broken, read_image

from .files import PARTS

CHUNK = 128  # images that a process takes at once
FEW = 256  # images for which no process is started
READER = f"1 {PIL.__version__}"  # of what was found sound; another one looks again


def broken_images(paths):
    """Decode image files, a process per core, but for those that were found sound before.

    Args:
        paths: of the files; one that is listed twice is read once.

    Returns:
        {path: reason} of those that can't be read, see `BrokenImage`.

    Raises:
        UserError: a process that decodes was killed, or what was found sound can't be remembered.
    """
    broken = {}
    with memory() as db:
        known = "SELECT 1 FROM sound_images WHERE state = ?"
        paths = [path for path in dict.fromkeys(paths) if not db.execute(known, [state_of(path)]).fetchone()]
        with processes(len(paths)) as apply, tqdm(
                total=len(paths), desc="checking images", disable=len(paths) <= FEW) as bar:
            try:
                for checked in apply(check, chunks(paths)):
                    broken.update((path, reason) for path, _, reason in checked if reason)
                    with db:
                        db.executemany("INSERT OR IGNORE INTO sound_images VALUES (?)",
                                       [[state] for _, state, reason in checked if not reason])
                    bar.update(len(checked))
            except BrokenProcessPool:
                raise UserError("a process that decodes images was killed, perhaps for want of memory: call the same "
                                "command with LOKY_MAX_CPU_COUNT=1, which goes on from here") from None
    return broken


def chunks(items):
    return [items[i:i + CHUNK] for i in range(0, len(items), CHUNK)]


def check(paths):
    """[(path, state, reason)] of image files that are decoded; the reason of a sound one is ""."""
    found = []
    for path in paths:
        state = state_of(path)
        try:
            read_image(path)
        except BrokenImage as error:
            found.append((path, state, error.reason))
        else:
            found.append((path, state, ""))
    return found


def state_of(path):
    """Path, size, time of change and reader as bytes, which tell whether a file was found sound; None if it is gone."""
    with contextlib.suppress(OSError, ValueError):
        state = os.stat(path)
        return os.fsencode(f"{osp.abspath(path)} {state.st_size} {state.st_mtime_ns} {READER}")


@contextlib.contextmanager
def processes(count):
    """A `map` for chunks of `count` images: of a process per core, unless they are few."""
    jobs = min(cpu_count(), -(-count // CHUNK))
    if count <= FEW or jobs == 1:
        yield map
        return
    # Ctrl-C is the caller's: the processes end with the pool
    pool = ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def memory():
    """The database of the states of images that were found sound; a UserError if it fails."""
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
        whole: list of `TaskData` with all images. data: the same after the few-shot draw.
        place: function from a path in them to where the image lies.

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
        parts = {part: sound(getattr(before, part), getattr(drawn, part), lambda path: place(path) in broken)
                 for part in PARTS}
        lost = {label for _, label in drawn.train} - {label for _, label in parts["train"]}
        if lost:
            raise UserError(f"no training image of class {before.task.classnames[min(lost)]!r} of task "
                            f"{before.task.name!r} can be read: put whole files there, or remove the class")
        kept.append(replace(drawn, **parts))
    return kept


def sound(whole, drawn, is_broken):
    """`drawn`, a list of (path, label), with sound images of `whole` in the places of broken ones, as they last."""
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
