"""Commands of the scripts, of which the shell part runs as it is and the Python part in this process."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import train
import trainers.__main__
from tests.helpers import REPOSITORY

BASE2NEW = "main_mtcoop_base2new_{}.sh"
VARIABLES = ("DATA", "OUTPUT", "SEEDS", "SHOTS", "OPTS", "METHODS")


def make_recorder(folder):
    """An interpreter for the scripts that writes `VARIABLES` and its arguments into the file `RECORD`."""
    recorder = folder / "recorder"
    values = " ".join(f'"${name}"' for name in VARIABLES)
    recorder.write_text(f'#!/bin/sh\n[ "$1" = -m ] || exit 0\nprintf "%s\\001" {values} "$@" > "$RECORD"\n')
    recorder.chmod(0o755)
    return {"PYTHON": str(recorder), "RECORD": str(folder / "record")}


def shell(command, env):
    """Run a command in `scripts/`, a list or as a user types it; it must exit with 0."""
    command = ["sh", "-c", command] if isinstance(command, str) else command
    done = subprocess.run(command, cwd=REPOSITORY / "scripts", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def labelled_calls(command, env, code=0):
    """What the Python part of a command makes of its words.

    Returns:
        [(label of a row or "", arguments of `train.py`)], and what it says on stderr.
    """
    shell(command, env)
    n = len(VARIABLES)
    recorded = Path(env["RECORD"]).read_text().split("\001")[:-1]
    module, *arguments = recorded[n + 1:]
    assert (recorded[n], module) == ("-m", "trainers")
    made, said = [], io.StringIO()
    with mock.patch.dict(os.environ, zip(VARIABLES, recorded)), mock.patch.object(sys, "argv", ["", *arguments]), \
            mock.patch("trainers.__main__.run_calls", lambda calls, **_: made.extend(calls)), \
            contextlib.redirect_stderr(said):
        try:
            trainers.__main__.main()
            status = 0
        except SystemExit as ended:
            status = ended.code
    assert status == code, said.getvalue()
    return made, said.getvalue()


def recorded_calls(command, env):
    """The argument lists with which a script calls `train.py`."""
    return [call for _, call in labelled_calls(command, env)[0]]


def make_calls(calls, monkeypatch):
    """Call `train.py` in this process; it stops with `SystemExit` where a process would fail."""
    monkeypatch.chdir(REPOSITORY)
    for call in calls:
        monkeypatch.setattr(sys, "argv", ["train.py", *call])
        train.main()


def run_folders(env):
    return {path.parent for path in Path(env["OUTPUT"]).rglob("results.json")}


def execute(command, env, monkeypatch):
    """Run a command; returns its run folders. Commands may need those of earlier lines, which are then run first."""
    if BASE2NEW.format("test") in command:
        execute(command.replace(BASE2NEW.format("test"), BASE2NEW.format("train")), env, monkeypatch)
    calls = recorded_calls(command, env)
    make_calls(calls, monkeypatch)
    folders = [Path(call[call.index("--output-dir") + 1]) for call in calls]
    assert set(folders) <= run_folders(env)
    written = [(folder / "results.json").stat().st_mtime_ns for folder in folders]
    make_calls(calls, monkeypatch)  # what is finished is not run again
    assert written == [(folder / "results.json").stat().st_mtime_ns for folder in folders]
    return folders
