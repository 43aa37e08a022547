"""fit.py: one call from folders to a classifier, chosen by validation images."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.splits import folds_of
from learned.fitting import FOLDS, choose, standard_error
from tests.helpers import REPOSITORY
from tests.test_readme import block_after


def test_of_equal_methods_the_first_is_chosen():
    assert choose({"a": 60, "b": 70, "c": 70}) == "b"


def test_in_the_folds_every_image_is_held_out_once():
    split = {"train": ["a/1", "a/2", "a/3", "b/1", "c/1"], "val": ["a/4", "b/2"], "test": ["a/9"]}
    folds = folds_of(split, 3)
    assert sorted(sum((fold["val"] for fold in folds), [])) == ["a/1", "a/2", "a/3", "a/4", "b/1", "b/2"]
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(split["train"] + split["val"])
        assert {path[0] for path in fold["train"]} == {"a", "b", "c"} and fold["test"] == ["a/9"]


def test_the_standard_error_is_that_of_the_mean():
    tasks = [{"metric": 50.0, "total": 100}, {"metric": 50.0, "total": 100}]
    assert standard_error(tasks) == pytest.approx(5 / 2**0.5)


@pytest.mark.slow
def test_the_readmes_lines(photo_root, backbone, tmp_path):
    """As they stand there, but with two methods."""
    out, table, before = tmp_path / "out", tmp_path / "labels.csv", sorted(photo_root.rglob("*"))
    names = {"NEW_IMAGES": photo_root, "IMAGES": photo_root, "ViT-B/32": backbone, "labels.csv": table}
    lines = block_after("## From folders to a classifier")
    for name, value in names.items():
        lines = lines.replace(name, str(value))
    check, fit, predict = re.sub(r"\bOUT\b", str(out), lines).strip().splitlines()
    fit += " --methods ZS-CLIP LP-CLIP"
    environment = {**os.environ, "SOFTCPT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(command):
        return subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, env=environment)

    assert run(check).returncode == 0
    done = run(fit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Chosen by" in done.stdout and "The hardest task is" in done.stdout and "chance is" in done.stdout
    assert (out / "report.html").is_file() and (out / "best" / "results.json").is_file()
    found = {path.parent: json.loads(path.read_text()) for path in (out / "runs").rglob("results.json")}
    assert {results["label"] for results in found.values()} == {"ZS-CLIP", "LP-CLIP"}
    best = json.loads((out / "best" / "results.json").read_text())
    scores = {}  # the few images are cross-validated
    for path in (out / "folds").rglob("results.json"):
        own = json.loads(path.read_text())
        scores.setdefault(own["label"], []).append(own["validation"]["overall_metric"])
    assert all(len(values) == FOLDS for values in scores.values()) and len(scores) == 2
    assert sum(scores[best["label"]]) == max(map(sum, scores.values())) and "cross-validation" in done.stdout
    assert (out / "classifier" / "classifier.onnx").is_file()
    assert sorted(photo_root.rglob("*")) == before  # the images' folder is left alone
    assert run(predict).returncode == 0
    assert len(table.read_text().splitlines()) == 1 + len(list(photo_root.rglob("*.png")))
    times = {path: (path / "results.json").stat().st_mtime_ns for path in found}
    again = run(fit)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert times == {path: (path / "results.json").stat().st_mtime_ns for path in found}
