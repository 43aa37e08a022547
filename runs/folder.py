"""The folder of a run: its files, its lock, its state and the identity of the run that it holds."""

import contextlib
import json
import os
import os.path as osp
import re
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from common.digests import digest_of_state
from common.errors import UserError
from common.files import write_json

from .checkpoints import checkpoint_files, load
from .identity import check_same
from .log import RunLog
from .results import RESULTS_FILE, read_results

RESUME_FILE = "resume.pth.tar"
LOCK_FILE, OWNER_FILE = ".lock", ".lock.owner"
TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")  # of `atomic_path`


class FolderInUse(UserError):
    """Another process works in the folder of a run."""


class RunFolder:
    """A run's folder; one process at a time can enter it. `path` is its path."""

    entered = {}  # absolute path -> the identity of its lock file, of folders that this process has entered

    def __init__(self, path):
        self.path = path
        self.resume_path = osp.join(path, RESUME_FILE)
        self._lock = FileLock(osp.join(path, LOCK_FILE))

    def __enter__(self):
        """Make the folder, lock it, and remove the temporaries of killed runs.

        Raises:
            FolderInUse: another process has it.
        """
        os.makedirs(self.path, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderInUse(f"another process works in {self.path}: {self._owner()}; wait for its end, or give "
                              "another --output-dir") from None
        self.entered[osp.abspath(self.path)] = self._lock_file()
        write_json({"pid": os.getpid(), "host": socket.gethostname()}, osp.join(self.path, OWNER_FILE))
        self._remove_temporaries()
        return self

    def _lock_file(self):
        """(device, inode) of the lock file, None where there is none."""
        with contextlib.suppress(OSError):
            state = os.stat(osp.join(self.path, LOCK_FILE))
            return state.st_dev, state.st_ino

    def check_own(self):
        """Refuse to write into a folder that is not the one which this process entered.

        Raises:
            UserError: it was deleted, and perhaps made anew by another process.
        """
        own = self.entered.get(osp.abspath(self.path))
        if own and self._lock_file() != own:
            raise UserError(f"the folder {self.path} was deleted or replaced while this run worked in it: the run "
                            "stops and writes nothing more; call its command again, or with another --output-dir")

    def _remove_temporaries(self):
        """Remove temporaries of killed runs here and in the folders of parts, but not in those of other runs."""
        for path in [*Path(self.path).glob(".*.tmp"), *Path(self.path).glob("*/.*.tmp")]:
            other_run = path.parent != Path(self.path) and (path.parent / LOCK_FILE).exists()
            if TEMPORARY.fullmatch(path.name) and not other_run:
                path.unlink()

    def __exit__(self, *_):
        if self._lock_file() == self.entered.pop(osp.abspath(self.path), None):
            Path(self.path, OWNER_FILE).unlink(missing_ok=True)
        self._lock.release()

    def _owner(self):
        """The process that has the lock, in words. It writes its name after it gets the lock, so this may wait."""
        for _ in range(20):
            try:
                with open(osp.join(self.path, OWNER_FILE), encoding="utf-8") as f:
                    owner = json.load(f)
                return f"pid {owner['pid']} on {owner['host']}"
            except (OSError, ValueError, KeyError):
                time.sleep(0.05)
        return f"it holds {LOCK_FILE}"

    def log(self):
        """The run's `RunLog`; it begins at once if the folder holds no run yet."""
        log = RunLog(osp.join(self.path, "log.txt"))
        if self.state() == "new":
            log.begin()
        return log

    def state(self):
        """"finished" (it has results), "unfinished" (it has a resume file or checkpoints) or "new"."""
        if osp.isfile(osp.join(self.path, RESULTS_FILE)):
            return "finished"
        return "unfinished" if osp.isfile(self.resume_path) or checkpoint_files(self.path) else "new"

    def results(self):
        """The results of a finished run, a dict."""
        return read_results(self.path)

    def unfinished(self, identity):
        """The content of the resume file, or None if there is none.

        Raises:
            UserError: it is damaged, or its run has another identity.
        """
        if not osp.isfile(self.resume_path):
            return None
        state = load(self.resume_path)
        if state.pop("digest", None) != digest_of_state(state):
            raise UserError(f"{self.resume_path} is damaged, or of another version of this code: delete it to begin "
                            "anew")
        check_same(state["identity"], identity, self.path, "an unfinished")
        return state

    def finish(self):
        """Remove the resume file of a run that has its results."""
        Path(self.resume_path).unlink(missing_ok=True)

    def check(self, identity):
        """Refuse a run if the folder holds one with another identity.

        Raises:
            UserError: the identity there differs, or is not known.
        """
        state = self.state()
        if state == "new":
            return
        path = osp.join(self.path, RESULTS_FILE) if state == "finished" else self.resume_path
        if not osp.isfile(path):
            path = next(iter(checkpoint_files(self.path).values()))[0]
        there = (self.results() if state == "finished" else load(path)).get("identity")
        if not isinstance(there, dict):
            raise UserError(f"{path} does not say what it depends on, since another version of this code made it: "
                            "give another --output-dir")
        check_same(there, identity, self.path, "a finished" if state == "finished" else "an unfinished")
