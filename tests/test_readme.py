"""Commands of README.md and docs/use.md, as they stand there."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY


def block_after(heading, page="README.md"):
    """The first block of code below a heading of a page."""
    text = (Path(REPOSITORY) / page).read_text(encoding="utf-8")
    return re.search(r"```\n(.*?)```", text[text.index(f"\n{heading}\n"):], re.DOTALL)[1]


@pytest.mark.slow
def test_step_by_step(photo_root, backbone, tmp_path):
    for entry in Path(REPOSITORY).iterdir():  # "output" is to be made elsewhere
        if entry.name not in ("output", "data"):
            (tmp_path / entry.name).symlink_to(entry)
    commands = block_after("## Step by step", "docs/use.md")
    assert len(re.findall("^python ", commands, re.MULTILINE)) == 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-euc", commands], cwd=tmp_path, capture_output=True, text=True, env={
        **os.environ, "PATH": path, "R": str(photo_root), "BACKBONE": str(backbone),
        "SOFTCPT_CACHE": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stdout + done.stderr
    made = tmp_path / "output"
    with open(made / "labels.csv", newline="") as labels, open(made / "new.csv", newline="") as new:
        labels, new = list(csv.DictReader(labels)), list(csv.DictReader(new))
    assert len({row["image"] for row in labels}) == len(labels) == len(list(Path(photo_root).rglob("*.png")))
    assert {row["time of day recognition"] for row in new} <= {"day", "night"} and len(new) == len(labels)
    assert "<html" in (made / "report.html").read_text(encoding="utf-8")
    assert {"README.md", "classifier.onnx", "classifier.py"} <= set(os.listdir(made / "classifier"))
