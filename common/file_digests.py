"""Digests of the contents of files, which are read once: `file_digests.sqlite` remembers them."""

import contextlib
import hashlib
import os
import os.path as osp
import sqlite3
from concurrent.futures import ThreadPoolExecutor


def digest_files(paths):
    """Hex digests of the contents of files.

    A file is read again when its path, size, times of change (of content and of inode) or inode is another one. The
    database lies in `$SOFTCPT_CACHE`, or `~/.cache/softcpt`. Where it can't be used, all files are read.

    Returns:
        {path: digest}, "" for a file that can't be read.
    """
    states = {path: state_of(path) for path in paths}
    with contextlib.ExitStack() as stack:
        db = _open(stack)
        known = {}
        if db:
            with contextlib.suppress(sqlite3.Error):
                for path, state in states.items():
                    found = db.execute("SELECT digest FROM files WHERE state = ?", [state]).fetchone()
                    if found:
                        known[path] = found[0]
        new = [path for path in states if path not in known]
        with ThreadPoolExecutor() as pool:
            made = dict(zip(new, pool.map(_digest, new)))
        if db:
            with contextlib.suppress(sqlite3.Error), db:
                db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)",
                               [(states[path], found) for path, found in made.items() if found])
    return {**known, **made}


def state_of(path):
    """Bytes that tell a file without reading it: path, size, times of change and inode; None if it is gone."""
    with contextlib.suppress(OSError, ValueError):
        state = os.stat(path)
        told = state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino
        return os.fsencode(" ".join(map(str, (osp.abspath(path), *told))))


def _digest(path):
    found = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                found.update(block)
    except (OSError, ValueError):  # reading the image will say it better
        return ""
    return found.hexdigest()


def _open(stack):
    """The database, which `stack` closes, or None."""
    folder = osp.expanduser(os.environ.get("SOFTCPT_CACHE") or "~/.cache/softcpt")
    try:
        os.makedirs(folder, exist_ok=True)
        db = sqlite3.connect(osp.join(folder, "file_digests.sqlite"), timeout=60)
        stack.enter_context(contextlib.closing(db))
        db.execute("CREATE TABLE IF NOT EXISTS files (state BLOB PRIMARY KEY, digest TEXT) WITHOUT ROWID")
        return db
    except (sqlite3.Error, OSError):
        return None
