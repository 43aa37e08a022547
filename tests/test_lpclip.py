"""The linear probe: search for C, metrics, what a run writes, and what is not done twice."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import parse_test_res
from clip import clip
from lpclip import linear_probe
from lpclip.linear_probe import parse_args, search_c, sweep
from tests.helpers import REPOSITORY, results
from trainers.image_features import Images

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
    task = results(tmp_path / "lp" / "4shots" / "seed1")["tasks"][0]
    assert task["overall_acc"] == pytest.approx(90.0) and task["mean_acc"] == pytest.approx(250 / 3)
    assert task["metric"] == pytest.approx(percent) and task["metric_name"] == metric
    log = (tmp_path / "lp" / "4shots" / "seed1" / "log.txt").read_text()
    assert "Finished training\n" in log
    assert (f"=> result\n* total: 10\n* overall_metric: {percent:.2f}%\n"
            "=> per-task result\n"
            f"* task: 0 (paint)\ttotal: 10\tmetric: {percent:.2f}%\n* average: {percent:.2f}%\n") in log


def test_runs_skips_and_encodes_once(photo_root, backbone, tmp_path, monkeypatch, capsys):
    encoded, fits = [], []
    read, fit = Images.__getitem__, linear_probe.LogisticRegression.fit

    def counted(self, idx):
        encoded.append(self.data_source[idx].impath)
        return read(self, idx)

    def counted_fit(self, x, y):
        fits.append(self.C)
        return fit(self, x, y)

    monkeypatch.setattr(Images, "__getitem__", counted)
    monkeypatch.setattr(linear_probe.LogisticRegression, "fit", counted_fit)
    args = arguments(photo_root, backbone, tmp_path / "lp", tmp_path, "--shots", "1", "4", "--seeds", "1",
                     "2", **{"DATASET.SUBSAMPLE_TASKS": "task1"})
    sweep(parse_args(args))
    assert len(encoded) == len(set(encoded)) <= 24  # all images of dark and light
    assert len(fits) == 4 * (7 + 2 + 6)  # coarse list, two ends, a new end in steps 3 to 8
    written = results(tmp_path / "lp" / "4shots" / "seed2")
    dim = clip.load(backbone, device="cpu")[0].visual.output_dim
    expected = {"trainer": "LP-CLIP", "dataset": "FolderTasks", "backbone": backbone, "shots": 4, "seed": 2,
                "precision": "fp32", "overall_metric": 100.0, "n_tasks": 1, "n_classes": 2, "n_train": 8,
                "n_val": 4, "n_test": 8}
    assert {key: written[key] for key in expected} == expected  # dark and light are easy
    assert written["n_params"] == (dim + 1) * 2 and 1e-7 <= written["C"] <= 1e7
    assert written["config"]["DATASET"]["NUM_SHOTS"] == 4 and written["config"]["SEED"] == 2
    assert set(written) >= {"train_seconds", "test_seconds", "wall_seconds", "peak_memory_mb", "device"}
    # every (shots, seed) has the draw that train.py makes and stores
    assert len(list((tmp_path / "splits").rglob("shot_*-seed_*.json"))) == 4

    (tmp_path / "lp" / "1shots" / "seed2" / "results.json").unlink()
    n_fits = len(fits)
    capsys.readouterr()
    sweep(parse_args(args))
    assert capsys.readouterr().out.count("Skipping ") == 3 and len(fits) == n_fits + 15
    # what is said of other runs is in nobody's log
    assert all("Skipping" not in log.read_text() for log in (tmp_path / "lp").rglob("log.txt"))


def test_command(photo_root, backbone, tmp_path):
    done = subprocess.run([sys.executable, "-m", "lpclip.linear_probe", *arguments(
        photo_root, backbone, tmp_path / "lp", tmp_path, "--shots", "2", "--seeds", "3",
        **{"DATASET.SUBSAMPLE_TASKS": "task0"})], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    written = results(tmp_path / "lp" / "2shots" / "seed3")
    assert written["n_classes"] == 3 and written["n_params"] % 3 == 0 and written["n_test"] == 12


def test_every_task(photo_root, backbone, tmp_path, capsys):
    args = parse_args(arguments(photo_root, backbone, tmp_path / "lp", tmp_path, "--every-task", "--shots", "2",
                                "--seeds", "1", "2"))
    sweep(args)
    names = {folder.relative_to(tmp_path / "lp").as_posix(): results(folder)["tasks"][0]["name"]
             for folder in (tmp_path / "lp").rglob("seed*")}
    assert names == {f"task{i}/2shots/seed{seed}": name for i, name in enumerate(("colour naming", "lightness"))
                     for seed in (1, 2)}
    assert results(tmp_path / "lp" / "task1" / "2shots" / "seed2")["config"]["DATASET"]["SUBSAMPLE_TASKS"] == "task1"
    capsys.readouterr()
    sweep(args)
    assert capsys.readouterr().out.count("Skipping ") == 4
    parse_test_res.main([str(tmp_path / "lp"), "--side-by-side", "--format", "csv"])
    metrics = [results(tmp_path / "lp" / f"task1/2shots/seed{seed}")["overall_metric"] for seed in (1, 2)]
    row = next(row for row in csv.DictReader(io.StringIO(capsys.readouterr().out)) if row["experiment"] == "task1")
    assert float(row["average"]) == pytest.approx(sum(metrics) / 2, abs=0.006) and row["runs"] == "2"


def test_several_tasks_are_refused_in_one_sentence(photo_root, backbone, tmp_path, monkeypatch):
    args = arguments(photo_root, backbone, tmp_path / "lp", tmp_path)
    monkeypatch.setattr(sys, "argv", ["linear_probe", *args])
    with pytest.raises(SystemExit, match="^error: the linear probe works on one task, but 2 are chosen"):
        linear_probe.main()
    assert not list((tmp_path / "lp").rglob("results.json"))


@pytest.mark.parametrize("numbers", [["--shots", "0"], ["--shots", "four"], ["--seeds", "-1"]])
def test_numbers_are_checked(numbers):
    with pytest.raises(ValueError, match=f"^{numbers[0]} is {numbers[1]}, but must be numbers from"):
        parse_args(["--output-dir", "lp", *numbers, "SEED", "1"][:4])


def test_script_refuses_a_task_that_is_no_number():
    done = subprocess.run(["sh", "linearprob.sh", "shapes8", "tiny", "last"], cwd=REPOSITORY / "scripts",
                          capture_output=True, text=True)
    assert done.returncode == 2 and "MAX_TASK is 'last'" in done.stderr
