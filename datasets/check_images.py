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
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import PIL
from joblib import cpu_count
from tqdm import tqdm

from common.errors import UserError
from common.images import BrokenImage, list_broken, read_image

from .files import IMAGE_SUFFIXES, PARTS

CHUNK = 128  # images that a process takes at once
FEW = 256  # images for which no process is started
READER = f"1 {PIL.__version__}"  # of what was found sound; another one looks again
NO_IMAGES = ("thumbs.db", "desktop.ini")  # that systems put beside images


def broken_images(paths):
    """Decode image files, a process per core, but for those that were found sound before.

    Args:
        paths: of the files; one that is listed twice is read once.

    Returns:
        {path: reason} of those that can't be read, see `BrokenImage`.

    Raises:
        UserError: a process that decodes was killed.
    """
    broken = {}
    with Memory() as memory:
        parts = chunks(memory.unknown(dict.fromkeys(paths)))
        count = sum(map(len, parts))
        with processes(count) as apply, tqdm(total=count, desc="checking images", disable=count <= FEW) as bar:
            try:
                for checked in apply(check, parts):
                    broken.update((path, reason) for path, _, reason in checked if reason)
                    memory.add((path, *state) for path, state, reason in checked if not reason)
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
    """(size, time of change, reader), which tell whether a file is still the one that was found sound, or None."""
    with contextlib.suppress(OSError, ValueError):
        state = os.stat(path)
        return state.st_size, state.st_mtime_ns, READER


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


class Memory:
    """Which image files were found sound, on disk; where that is not possible, a line says so and all are checked."""

    def __init__(self):
        folder = osp.expanduser(os.environ.get("SOFTCPT_CACHE") or "~/.cache/softcpt")
        self.path = osp.join(folder, "checked_images.sqlite")
        self.db = None

    def __enter__(self):
        with self.or_without():
            os.makedirs(osp.dirname(self.path), exist_ok=True)
            self.db = sqlite3.connect(self.path, timeout=60)
            self.db.execute("CREATE TABLE IF NOT EXISTS sound (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, "
                            "reader TEXT) WITHOUT ROWID")
        return self

    def __exit__(self, *_):
        if self.db:
            self.db.close()

    @contextlib.contextmanager
    def or_without(self):
        """Go on without memory where it fails."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            print(f"{self.path} can't be used ({error}): which images are sound is not remembered; delete the file if "
                  "it is damaged")
            if self.db:
                self.db.close()
            self.db = None

    def unknown(self, paths):
        """Those of `paths` that are not known to be sound, as a list."""
        known = {}
        if self.db:
            with self.or_without():
                for part in chunks([key(path) for path in paths]):
                    marks = ", ".join("?" * len(part))
                    for name, *state in self.db.execute(f"SELECT * FROM sound WHERE path IN ({marks})", part):
                        known[name] = tuple(state)
        return [path for path in paths if key(path) not in known or known[key(path)] != state_of(path)]

    def add(self, rows):
        """Remember (path, size, time of change, reader) of sound images."""
        if self.db:
            with self.or_without(), self.db:
                self.db.executemany("INSERT OR REPLACE INTO sound VALUES (?, ?, ?, ?)",
                                    [(key(path), *state) for path, *state in rows])


def key(path):
    """A path as it is remembered: file names need not be text."""
    return os.fsencode(osp.abspath(path))


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


def ignored_files(folders):
    """Counter {suffix: number} of the files directly in class folders that are not read because of their suffix."""
    return Counter(osp.splitext(entry.name)[1].lower() or "no suffix" for folder in folders
                   for entry in os.scandir(folder)
                   if not entry.name.startswith(".") and entry.name.lower() not in NO_IMAGES
                   and not entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file())


def describe_ignored(counts):
    """What `ignored_files` found, as a line; "" if that is nothing."""
    if not counts:
        return ""
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(counts.items()))
    return (f"{sum(counts.values()):,} files in class folders are not read ({kinds}): only "
            f"{', '.join(IMAGE_SUFFIXES)} are; convert them to PNG or JPEG")
