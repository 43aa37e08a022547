"""The linear probe: search, metrics, folders."""

import subprocess
import sys

import numpy as np
import pytest

from lpclip.linear_probe import search_c
from tests.helpers import REPOSITORY, results


def test_search_finds_the_best_c():
    tried = []

    def accuracy(c):
        tried.append(c)
        return -abs(np.log10(c) - 2.3)  # best at 10^2.3

    assert np.log10(search_c(accuracy)) == pytest.approx(2.3, abs=0.02)
    assert tried[:7] == [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6] and len(tried) == 7 + 2 * 8


def test_runs_and_skips(photo_root, backbone, tmp_path):
    command = [sys.executable, "-m", "lpclip.linear_probe", "--shots", "1", "4", "--seeds", "1", "--root", str(photo_root), "--backbone", backbone,
               "--output-dir", str(tmp_path / "lp"),
               "DATASET.NAME", "FolderTasks", "INPUT.SIZE", "(32, 32)", "INPUT.TRANSFORMS", "('normalize',)",
               "DATALOADER.NUM_WORKERS", "0", "DATASET.SPLIT_DIR", str(tmp_path / "splits"),
               "DATASET.SUBSAMPLE_TASKS", "task1"]

    def call(*extra):
        return subprocess.run([*command, *extra], cwd=REPOSITORY, capture_output=True, text=True)

    done = call()
    assert done.returncode == 0, done.stderr
    written = results(tmp_path / "lp" / "4shots" / "seed1")
    assert written["n_train"] == 8 and written["n_params"] == 65 * 2 and written["n_test"] == 8
    assert written["overall_metric"] == written["tasks"][0]["overall_acc"] == 100.0  # dark and light are easy
    log = (tmp_path / "lp" / "4shots" / "seed1" / "log.txt").read_text()
    assert "Finished training\n=> result\n* total: 8\n* overall_metric: 100.00%\n" in log
    assert call().stdout.count("Skipping") == 2
    several = call("DATASET.SUBSAMPLE_TASKS", "all", "OUTPUT_DIR", str(tmp_path / "all"))
    assert several.returncode == 1 and "error: the linear probe works on one task, but 2" in several.stderr
