"""Commands of the scripts, of which the shell part runs as it is and the Python part in this process."""

import subprocess
import sys
from pathlib import Path

import train
from lpclip import linear_probe
from tests.helpers import REPOSITORY

BASE2NEW = "main_mtcoop_base2new_{}.sh"


def make_recorder(folder):
    """An interpreter for the scripts that adds its arguments, a line each and an empty one, to the file `RECORD`."""
    recorder = folder / "recorder"
    recorder.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "" >> "$RECORD"\n')
    recorder.chmod(0o755)
    return {"PYTHON": str(recorder), "RECORD": str(folder / "record")}


def shell(command, env):
    """Run a command in `scripts/` as a user types it; it must exit with 0."""
    done = subprocess.run(["sh", "-c", command], cwd=REPOSITORY / "scripts", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def recorded_calls(command, env):
    """The argument lists with which a script calls Python."""
    record = Path(env["RECORD"])
    record.unlink(missing_ok=True)
    shell(command, env)
    text = record.read_text() if record.exists() else ""
    return [call.splitlines() for call in text.split("\n\n") if call]


def make_calls(calls, monkeypatch):
    """Call `train.py` or the linear probe in this process; they stop with `SystemExit` where a process would fail."""
    monkeypatch.chdir(REPOSITORY)
    for first, *arguments in calls:
        main = train.main
        if first == "-m":
            assert arguments.pop(0) == "lpclip.linear_probe"
            main = linear_probe.main
        else:
            assert first == "train.py"
        monkeypatch.setattr(sys, "argv", [first, *arguments])
        main()


def run_folders(env):
    return {path.parent for path in Path(env["OUTPUT"]).rglob("results.json")}


def execute(command, env, monkeypatch):
    """Run a command; returns its run folders. Commands may need those of earlier lines, which are then run first."""
    if BASE2NEW.format("test") in command:
        execute(command.replace(BASE2NEW.format("test"), BASE2NEW.format("train")), env, monkeypatch)
    calls = recorded_calls(command, env)
    make_calls(calls, monkeypatch)
    folders = [Path(call[call.index("--output-dir") + 1]) for call in calls]
    if "linearprob.sh" in command:
        folders = sorted(folders[0].rglob("seed1"))
    assert set(folders) <= run_folders(env)
    written = [(folder / "results.json").stat().st_mtime_ns for folder in folders]
    make_calls(calls, monkeypatch)  # what is finished is not run again
    assert written == [(folder / "results.json").stat().st_mtime_ns for folder in folders]
    return folders
