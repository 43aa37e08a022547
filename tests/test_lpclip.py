"""The linear probe: search for C, metrics, what a run writes, and what is not done twice."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import parse_test_res
from clip import clip
from features.images import Images
from lpclip import linear_probe, logistic
from lpclip.linear_probe import parse_args, sweep
from lpclip.logistic import search_c
from tests.helpers import REPOSITORY, results

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (20, 20, 130)}


def arguments(root, backbone, output, tmp_path, *numbers, **options):
    options = {"DATASET.NAME": "FolderTasks", "INPUT.SIZE": "(32, 32)", "INPUT.TRANSFORMS": "('normalize',)",
               "DATALOADER.NUM_WORKERS": 0, "DATASET.SPLIT_DIR": tmp_path / "splits", **options}
    return ["--root", str(root), "--backbone", str(backbone), "--output-dir", str(output), *numbers,
            *[str(item) for pair in options.items() for item in pair]]


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
    sweep(parse_args(arguments(uneven_root, backbone, tmp_path / "lp", tmp_path, "--shots", "4", "--seeds",
                               "1")))
    task = results(tmp_path / "lp" / "task0" / "4shots" / "seed1")["tasks"][0]
    assert task["overall_acc"] == pytest.approx(90.0) and task["mean_acc"] == pytest.approx(250 / 3)
    assert task["metric"] == pytest.approx(percent) and task["metric_name"] == metric
    log = (tmp_path / "lp" / "task0" / "4shots" / "seed1" / "log.txt").read_text()
    assert "Finished training\n" in log
    assert (f"=> result\n* total: 10\n* overall_metric: {percent:.2f}%\n"
            "=> per-task result\n"
            f"* task: 0 (paint)\ttotal: 10\tmetric: {percent:.2f}%\n* average: {percent:.2f}%\n") in log


def test_runs_skips_and_encodes_once(photo_root, backbone, tmp_path, monkeypatch, capsys):
    encoded, fits = [], []
    read, fit = Images.__getitem__, logistic.LogisticRegression.fit

    def counted(self, idx):
        encoded.append(self.data_source[idx].impath)
        return read(self, idx)

    def counted_fit(self, x, y):
        fits.append(self.C)
        return fit(self, x, y)

    monkeypatch.setattr(Images, "__getitem__", counted)
    monkeypatch.setattr(logistic.LogisticRegression, "fit", counted_fit)
    args = arguments(photo_root, backbone, tmp_path / "lp", tmp_path, "--tasks", "1", "--shots", "1", "4", "--seeds",
                     "1", "2")
    sweep(parse_args(args))
    assert len(encoded) == len(set(encoded)) <= 24  # all images of dark and light
    assert len(fits) == 4 * (7 + 2 + 6)  # coarse list, two ends, a new end in steps 3 to 8
    written = results(tmp_path / "lp" / "task1" / "4shots" / "seed2")
    dim = clip.load(backbone, device="cpu")[0].visual.output_dim
    expected = {"trainer": "LP-CLIP", "dataset": "FolderTasks", "backbone": backbone, "shots": 4, "seed": 2,
                "precision": "fp32", "overall_metric": 100.0, "n_tasks": 1, "n_classes": 2, "n_train": 8,
                "n_val": 4, "n_test": 8}
    assert {key: written[key] for key in expected} == expected  # dark and light are easy
    assert written["n_params"] == (dim + 1) * 2 and 1e-7 <= written["C"] <= 1e7
    assert written["config"]["DATASET"]["NUM_SHOTS"] == 4 and written["config"]["SEED"] == 2
    assert written["config"]["DATASET"]["SUBSAMPLE_TASKS"] == "task1"
    assert set(written) >= {"train_seconds", "test_seconds", "wall_seconds", "peak_memory_mb", "device"}
    # every (shots, seed) has the draw that train.py makes and stores
    assert len(list((tmp_path / "splits").rglob("shot_*-seed_*.json"))) == 4

    (tmp_path / "lp" / "task1" / "1shots" / "seed2" / "results.json").unlink()
    n_fits = len(fits)
    capsys.readouterr()
    sweep(parse_args(args))
    assert capsys.readouterr().out.count("is finished, with these settings") == 3 and len(fits) == n_fits + 15
    # what is said of other runs is in nobody's log
    assert all("is finished" not in log.read_text() for log in (tmp_path / "lp").rglob("log.txt"))
    with pytest.raises(ValueError, match="INPUT.INTERPOLATION is 'bicubic' there and 'nearest' here"):
        sweep(parse_args([*args, "INPUT.INTERPOLATION", "nearest"]))


def test_all_tasks_in_one_process(photo_root, backbone, tmp_path, monkeypatch):
    """Both tasks, one after the other: the same as each alone, but CLIP is loaded and every image encoded once."""
    loaded, encoded = [], []
    load_clip, read = linear_probe.load_clip, Images.__getitem__

    def counted_load(cfg):
        loaded.append(cfg.MODEL.BACKBONE.NAME)
        return load_clip(cfg)

    def counted(self, idx):
        encoded.append(self.data_source[idx].impath)
        return read(self, idx)

    def call(output, *tasks):
        sweep(parse_args(arguments(photo_root, backbone, tmp_path / output, tmp_path, "--tasks", *tasks, "--shots", "2",
                                   "4", "--seeds", "1", **{"DATALOADER.FEATURE_CACHE": False})))

    call("alone", "0")
    call("alone", "1")
    monkeypatch.setattr(linear_probe, "load_clip", counted_load)
    monkeypatch.setattr(Images, "__getitem__", counted)
    call("together", "0", "1")
    assert len(loaded) == 1 and len(encoded) == len(set(encoded))
    folders = {path.parent.relative_to(tmp_path / "together") for path in (tmp_path / "together").rglob("results.json")}
    assert folders == {Path(f"task{task}/{shots}shots/seed1") for task in (0, 1) for shots in (2, 4)}
    for folder in folders:
        alone, together = (results(tmp_path / output / folder) for output in ("alone", "together"))
        for key in ("C", "tasks", "overall_metric", "n_classes", "n_train", "n_val", "n_test", "n_params"):
            assert together[key] == alone[key]
    assert [results(tmp_path / "together" / f"task{task}" / "2shots/seed1")["n_classes"] for task in (0, 1)] == [3, 2]


def test_fits_in_several_processes_are_the_same(photo_root, backbone, tmp_path, monkeypatch):
    for cores in ("1", "2"):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", cores)
        sweep(parse_args(arguments(photo_root, backbone, tmp_path / cores, tmp_path, "--tasks", "0", "1", "--shots",
                                   "4", "--seeds", "1", "2")))
    for task, seed in ((0, 1), (0, 2), (1, 1), (1, 2)):
        one, two = (results(tmp_path / cores / f"task{task}" / "4shots" / f"seed{seed}") for cores in ("1", "2"))
        assert (one["C"], one["tasks"]) == (two["C"], two["tasks"]) and one["seed"] == two["seed"] == seed


def test_command(photo_root, backbone, tmp_path):
    done = subprocess.run([sys.executable, "-m", "lpclip.linear_probe", *arguments(
        photo_root, backbone, tmp_path / "lp", tmp_path, "--shots", "2", "--seeds", "3")],
        cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    written = results(tmp_path / "lp" / "task0" / "2shots" / "seed3")
    assert written["n_classes"] == 3 and written["n_params"] % 3 == 0 and written["n_test"] == 12


def test_every_task(photo_root, backbone, tmp_path, capsys):
    args = parse_args(arguments(photo_root, backbone, tmp_path / "lp", tmp_path, "--shots", "2",
                                "--seeds", "1", "2"))
    sweep(args)
    names = {folder.relative_to(tmp_path / "lp").as_posix(): results(folder)["tasks"][0]["name"]
             for folder in (tmp_path / "lp").rglob("seed*")}
    assert names == {f"task{i}/2shots/seed{seed}": name for i, name in enumerate(("colour naming", "lightness"))
                     for seed in (1, 2)}
    assert results(tmp_path / "lp" / "task1" / "2shots" / "seed2")["config"]["DATASET"]["SUBSAMPLE_TASKS"] == "task1"
    capsys.readouterr()
    sweep(args)
    assert capsys.readouterr().out.count("is finished, with these settings") == 4
    parse_test_res.main([str(tmp_path / "lp"), "--side-by-side", "--format", "csv"])
    metrics = [results(tmp_path / "lp" / f"task1/2shots/seed{seed}")["overall_metric"] for seed in (1, 2)]
    row = next(row for row in csv.DictReader(io.StringIO(capsys.readouterr().out)) if row["experiment"] == "task1")
    assert float(row["average"]) == pytest.approx(sum(metrics) / 2, abs=0.006) and row["runs"] == "2"


@pytest.mark.parametrize("tasks, options, message", [
    (["0", "2"], {}, "there is no task 2: FolderTasks has the tasks 0 to 1"),
    (["0"], {"DATASET.SUBSAMPLE_TASKS": "task1"}, "DATASET.SUBSAMPLE_TASKS is 'task1', but .* from --tasks"),
])
def test_wrong_tasks_are_refused_in_one_sentence(tasks, options, message, photo_root, backbone, tmp_path, monkeypatch,
                                                      capsys):
    args = arguments(photo_root, backbone, tmp_path / "lp", tmp_path, "--tasks", *tasks, **options)
    monkeypatch.setattr(sys, "argv", ["linear_probe", *args])
    with pytest.raises(SystemExit):
        linear_probe.main()
    assert re.search(f"^error: {message}", capsys.readouterr().err, re.M)
    assert not list((tmp_path / "lp").rglob("results.json"))


@pytest.mark.parametrize("numbers", [["--shots", "0"], ["--shots", "four"], ["--seeds", "-1"]])
def test_numbers_are_checked(numbers):
    with pytest.raises(ValueError, match=f"^{numbers[0]} is {numbers[1]}, but must be numbers from"):
        parse_args(["--output-dir", "lp", *numbers, "SEED", "1"][:4])


def test_script_refuses_a_task_that_is_no_number():
    done = subprocess.run(["sh", "linearprob.sh", "outfits16", "tiny", "last"], cwd=REPOSITORY / "scripts",
                          capture_output=True, text=True)
    assert done.returncode == 2 and "MAX_TASK is 'last'" in done.stderr
