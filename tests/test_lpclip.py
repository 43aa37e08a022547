"""The linear probe: search for C, metrics, what a run writes, and that tasks do not depend on each other."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from lpclip.logistic import search_c
from tests.helpers import call, results, run, train_args

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (20, 20, 130)}


def arguments(root, backbone, output, tmp_path, **options):
    return train_args(root, backbone, output, "LinearProbe", **{"DATASET.SPLIT_DIR": tmp_path / "splits", **options})


@pytest.fixture(scope="module")
def uneven_root(tmp_path_factory):
    """One task: 6 red, 2 green and 2 blue test images, of which one "blue" is as red as the red ones."""
    root = tmp_path_factory.mktemp("uneven")
    rng = np.random.RandomState(0)
    test = {"red": ["red"] * 6, "green": ["green"] * 2, "blue": ["blue", "red"]}
    parts = {"train": {name: [name] * 6 for name in COLOURS}, "val": {name: [name] * 4 for name in COLOURS},
             "test": test}
    for part, looks in parts.items():
        for name, colours in looks.items():
            folder = root / "paint" / part / name
            folder.mkdir(parents=True)
            for i, colour in enumerate(colours):
                pixels = np.clip(np.array(COLOURS[colour]) + rng.randint(-20, 21, (32, 32, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize("best, found", [(2.6, 2.59375), (2.0, 2.0), (7.5, 7.0), (-9.0, -7.0)])
def test_search_halves_towards_the_best_c(best, found):
    tried = []

    def accuracy(c):
        tried.append(c)
        return -abs(np.log10(c) - best)

    # 2.6: the ends are 1..3, 2..3, 2.5..3, 2.5..2.75, 2.5..2.625, 2.5625..2.625, 2.59375..2.625 and
    # 2.59375..2.609375
    assert np.log10(search_c(accuracy)) == pytest.approx(found, abs=1e-9)
    assert tried[:7] == [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6]


def test_search_takes_the_first_peak_and_the_left_of_equals():
    assert search_c(lambda c: 0.5) == pytest.approx(1e5)


@pytest.mark.parametrize("metric, percent", [("overall_acc", 90.0), ("mean_acc", 250 / 3)])
def test_metrics_by_hand(metric, percent, uneven_root, backbone, tmp_path):
    """9 of 10 right; per class 6/6, 2/2 and 1/2."""
    (uneven_root / "tasks.yaml").write_text(json.dumps({"metric": metric, "tasks": [
        {"folder": "paint", "train": "train", "val": "val", "test": "test"}]}))
    call(arguments(uneven_root, backbone, tmp_path / "lp", tmp_path, **{"DATASET.NUM_SHOTS": 4}))
    task = results(tmp_path / "lp")["tasks"][0]
    assert task["overall_acc"] == pytest.approx(90.0) and task["mean_acc"] == pytest.approx(250 / 3)
    assert task["metric"] == pytest.approx(percent) and task["metric_name"] == metric
    log = (tmp_path / "lp" / "log.txt").read_text()
    assert "Finished training\n" in log and re.search(r"^task 0 \(paint\): C = \S+ by 12 validation images$", log, re.M)
    assert (f"=> result\n* total: 10\n* overall_metric: {percent:.2f}%\n"
            "=> per-task result\n"
            f"* task: 0 (paint)\ttotal: 10\tmetric: {percent:.2f}%\n* average: {percent:.2f}%\n") in log


def test_a_suite_has_the_results_of_its_tasks_alone(photo_root, backbone, tmp_path, monkeypatch):
    """Whatever the number of processes that fit."""
    both = call(arguments(photo_root, backbone, tmp_path / "both", tmp_path))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    call(arguments(photo_root, backbone, tmp_path / "again", tmp_path))
    written = results(tmp_path / "both")
    assert results(tmp_path / "again")["tasks"] == written["tasks"]
    classifier, first = both.model.classifier, 0
    assert written["n_params"] == (64 + 1) * 5 and written["precision"] == "fp32" and 1e-7 <= classifier.c.min()
    for number in (0, 1):
        alone = call(arguments(photo_root, backbone, tmp_path / f"task{number}", tmp_path,
                               **{"DATASET.SUBSAMPLE_TASKS": f"task{number}"})).model.classifier
        own = slice(first, first + len(alone.bias))
        assert torch.equal(alone.weight, classifier.weight[own]) and torch.equal(alone.bias, classifier.bias[own])
        assert alone.c.item() == classifier.c[number].item()
        assert results(tmp_path / f"task{number}")["tasks"] == [written["tasks"][number]]
        first += len(alone.bias)
    test = [*arguments(photo_root, backbone, tmp_path / "test", tmp_path)]
    test[test.index("--trainer"):test.index("--trainer")] = ["--eval-only", "--model-dir", str(tmp_path / "both")]
    call(test)
    assert results(tmp_path / "test")["tasks"] == written["tasks"]


def test_a_class_without_training_images_is_never_predicted(photo_root, backbone, tmp_path, monkeypatch):
    from trainers.linear_probe import LinearProbe

    features = LinearProbe.features

    def without_green(self, part, view=None):
        x, y = features(self, part, view)
        kept = y != self.model.classnames.index("green") if part == "train" else slice(None)
        return x[kept], y[kept]

    monkeypatch.setattr(LinearProbe, "features", without_green)
    trainer = call(arguments(photo_root, backbone, tmp_path / "lp", tmp_path))
    logits = trainer.model.score(features(trainer, "test")[0])
    green = trainer.model.classnames.index("green")
    assert (logits[:, green] == float("-inf")).all() and logits.isfinite().sum() == logits.numel() - len(logits)
    assert results(tmp_path / "lp")["tasks"][0]["metric"] < 70  # a third of the images is green
    monkeypatch.setattr(LinearProbe, "features", lambda self, part, view=None: [
        column[:2] if part == "train" else column for column in features(self, part, view)])
    with pytest.raises(UserError, match="has training images of a single class: the linear probe needs two"):
        call(arguments(photo_root, backbone, tmp_path / "single", tmp_path))


def test_it_needs_validation_images(uneven_root, backbone, tmp_path):
    (uneven_root / "tasks.yaml").write_text(json.dumps({"tasks": [
        {"folder": "paint", "train": "train", "test": "test", "name": "paint"}]}))
    root = uneven_root
    trainer = call(arguments(root, backbone, tmp_path / "lp", tmp_path))  # a fifth of the training images is taken
    assert len(trainer.plain_images["val"])
    trainer.plain_images["val"].data_source.clear()
    with pytest.raises(UserError, match="has no validation images, which LinearProbe needs"):
        trainer.make_features(range(0))


def test_script_refuses_a_task_that_is_no_number():
    done = run(["sh", "scripts/linearprob.sh", "outfits16", "tiny", "last"])
    assert done.returncode == 2 and "MAX_TASK is 'last'" in done.stderr
