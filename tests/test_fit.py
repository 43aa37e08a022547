"""fit.py: one call from folders to a classifier, chosen by validation images."""

import json
import subprocess
import sys

import pytest

from learned.fitting import choose, standard_error
from tests.helpers import REPOSITORY


def fit(root, backbone, out, *more, cache):
    return subprocess.run([sys.executable, "fit.py", root, "--backbone", backbone, "--output", out, *more],
                          cwd=REPOSITORY, capture_output=True, text=True, env=cache)


def test_validation_images_choose():
    runs = [(name, "", {"validation": {"overall_metric": validation}, "overall_metric": test})
            for name, validation, test in (("a", 60, 50), ("b", 70, 40), ("c", 70, 99))]
    assert choose(runs)[0] == "b"


def test_the_standard_error_is_that_of_the_mean():
    tasks = [{"metric": 50.0, "total": 100}, {"metric": 50.0, "total": 100}]
    assert standard_error(tasks) == pytest.approx(5 / 2**0.5)


@pytest.mark.slow
def test_from_folders_to_a_classifier_in_one_call(photo_root, backbone, tmp_path):
    import os

    environment, out = {**os.environ, "SOFTCPT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}, tmp_path / "out"
    call = (photo_root, backbone, out, "--methods", "ZS-CLIP", "LP-CLIP", "PLOT", "--opts", "OPTIM.MAX_EPOCH", "1")
    done = fit(*call, cache=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Chosen by" in done.stdout and "The hardest task is" in done.stdout and "chance is" in done.stdout
    assert (out / "report.html").is_file() and (out / "best" / "results.json").is_file()
    found = {path.parent: json.loads(path.read_text()) for path in (out / "runs").rglob("results.json")}
    assert {results["label"] for results in found.values()} == {"ZS-CLIP", "LP-CLIP", "PLOT"}
    best = json.loads((out / "best" / "results.json").read_text())
    assert best["validation"]["overall_metric"] == max(own["validation"]["overall_metric"] for own in found.values())
    exported = (out / "classifier" / "classifier.onnx").is_file()
    assert exported or best["label"] == "PLOT" and "predict.py" in done.stdout
    assert not (photo_root / "split_fewshot").exists()  # the images' folder is left alone
    times = {path: (path / "results.json").stat().st_mtime_ns for path in found}
    again = fit(*call, cache=environment)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert times == {path: (path / "results.json").stat().st_mtime_ns for path in found}
    refused = fit(photo_root, backbone, tmp_path / "x", "--methods", "SoftCPT", cache=environment)
    assert refused.returncode == 1 and "METHODS has 'SoftCPT'" in refused.stderr and "Traceback" not in refused.stderr
