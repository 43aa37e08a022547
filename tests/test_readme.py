"""Commands of README.md and docs/use.md, as they stand there."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY


def block_after(heading, page="README.md"):
    """The first block of code below a heading of a page."""
    text = (Path(REPOSITORY) / page).read_text(encoding="utf-8")
    return re.search(r"```\n(.*?)```", text[text.index(f"\n{heading}\n"):], re.DOTALL)[1]


def execute(commands, folder, **environment):
    """Run lines as a user does, in a folder that holds the repository."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-euc", commands], cwd=folder, capture_output=True, text=True, env={
        **os.environ, "PATH": path, "SOFTCPT_CACHE": str(folder / "cache"), **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_runs_and_tables(tmp_path):
    for name in subprocess.run(["git", "ls-files"], cwd=REPOSITORY, text=True, capture_output=True,
                               check=True).stdout.split("\n")[:-1]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(REPOSITORY) / name, tmp_path / name)
    printed = execute(block_after("## Runs and tables"), tmp_path, SEEDS="1", OMP_NUM_THREADS="1")
    assert "SoftCPT-NATA" in printed
    assert len(list((tmp_path / "output").rglob("results.json"))) == 6  # zero-shot, two methods with 1 and 2 shots, one
    assert (tmp_path / "output" / "report.html").is_file()


@pytest.mark.slow
def test_step_by_step(photo_root, backbone, tmp_path):
    for entry in Path(REPOSITORY).iterdir():  # "output" is to be made elsewhere
        if entry.name not in ("output", "data"):
            (tmp_path / entry.name).symlink_to(entry)
    commands = block_after("## Step by step", "docs/use.md")
    assert len(re.findall("^python ", commands, re.MULTILINE)) == 6
    execute(commands, tmp_path, R=str(photo_root), BACKBONE=str(backbone))
    made = tmp_path / "output"
    with open(made / "labels.csv", newline="") as labels, open(made / "new.csv", newline="") as new:
        labels, new = list(csv.DictReader(labels)), list(csv.DictReader(new))
    assert len({row["image"] for row in labels}) == len(labels) == len(list(Path(photo_root).rglob("*.png")))
    assert {row["time of day recognition"] for row in new} <= {"day", "night"} and len(new) == len(labels)
    assert "<html" in (made / "report.html").read_text(encoding="utf-8")
    assert {"README.md", "classifier.onnx", "classifier.py"} <= set(os.listdir(made / "classifier"))
