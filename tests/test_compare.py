"""`parse_test_res.py --compare`: McNemar's test of two runs, against scipy and a plain sum, and end to end."""

import csv
import io
import subprocess
import sys
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

import parse_test_res
from common.csv_files import write_csv
from runs.compare import mcnemar
from runs.outcome import COLUMNS, Prediction, read_predictions
from tests.helpers import REPOSITORY, call, results, train_args
from tests.result_folders import cells, out

CLASSES = {"pets": ("cat", "dog", "owl"), "cars": ("van", "bus")}


def write_predictions(folder, seed, tasks=CLASSES, n=60, turned=False):
    """Predictions on images that do not depend on `seed`, in their order or the other way round."""
    rng, rows = np.random.default_rng(seed), []
    for task, classes in tasks.items():
        for i in range(n):
            label = classes[i % len(classes)]
            guess = label if rng.random() < 0.6 else classes[rng.integers(len(classes))]
            rows.append((f"{task}/{i}.jpg", task, label, guess, f"{rng.uniform(0.3, 1):.6f}"))
        rows.append(rows[-1])  # an image may stand twice in a task
    folder.mkdir()
    write_csv(folder / "predictions.csv", COLUMNS, rows[::-1] if turned else rows)
    return [Prediction(*row[:4], float(row[4])) for row in rows]


@pytest.fixture
def pair(tmp_path):
    """Two runs' folders and predictions."""
    return [SimpleNamespace(path=tmp_path / name, found=write_predictions(tmp_path / name, seed, turned=name == "b"))
            for seed, name in enumerate("ab")]


@pytest.mark.parametrize("only_a, only_b", [(0, 0), (0, 1), (5, 5), (3, 12), (12, 3), (0, 8), (40, 61)])
def test_the_p_value_is_the_sum_of_what_is_no_more_likely(only_a, only_b):
    n = only_a + only_b
    plain = sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, only_a)) / 2**n
    assert mcnemar(only_a, only_b) == pytest.approx(plain, rel=1e-9)


def test_counts_per_task_and_over_all(pair, capsys):
    printed = out(capsys, "--compare", pair[0].path, pair[1].path, "--format", "csv")
    rows = {row["task"]: row for row in csv.DictReader(io.StringIO(printed.out))}
    assert list(rows) == ["pets", "cars", "all"] and printed.err == ""
    for task, row in rows.items():
        # the images of the two files in the order in which they were written: the slow, plain count
        rights = [(p.right, q.right) for p, q in zip(*(one.found for one in pair)) if task in (p.task, "all")]
        counts = [sum(r == which for r in rights) for which in
                  ((True, True), (True, False), (False, True), (False, False))]
        assert [int(row[key]) for key in ("both right", "only A", "only B", "neither")] == counts
        assert int(row["images"]) == sum(counts) == len(rights) and min(counts[:3]) > 0
        assert float(row["A (%)"]) == pytest.approx(100 * np.mean([a for a, _ in rights]), abs=0.005)
        assert float(row["B (%)"]) == pytest.approx(100 * np.mean([b for _, b in rights]), abs=0.005)
        assert float(row["p"]) == pytest.approx(binomtest(counts[1], counts[1] + counts[2]).pvalue, rel=0.01)


def test_images_that_differ_are_printed_or_written(pair, tmp_path, capsys):
    differ = {(p.image, p.label, p.prediction, q.prediction) for p, q in zip(*(one.found for one in pair))
              if p.prediction != q.prediction}
    printed = out(capsys, "--compare", pair[0].path, pair[1].path).out
    twice = sum(image.endswith("/59.jpg") for image, *_ in differ)
    assert f"A and B differ on {len(differ) + twice} images, of which 10 are shown (--output x.csv has all)" in printed
    assert sum(".jpg" in line for line in printed.splitlines()) == 10
    out(capsys, "--compare", pair[0].path, pair[1].path, "--output", tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert {(row["image"], row["label"], row["prediction_a"], row["prediction_b"]) for row in rows} == differ
    assert len(rows) == len(differ) + twice
    for row in rows:
        right = {row["prediction_a"]: "A", row["prediction_b"]: "B"}.get(row["label"], "neither")
        assert row["right"] == right and 0.3 <= float(row["probability_a"]) <= 1
    kinds = [row["right"] == "neither" for row in rows]
    assert kinds == sorted(kinds) and set(kinds) == {True, False}


def test_a_run_is_as_good_as_itself(pair, capsys):
    printed = out(capsys, "--compare", pair[0].path, pair[0].path, "--format", "github").out
    assert [row[-1] for row in cells(printed).values()] == ["p", "1", "1", "1"] and "differ" not in printed


def test_tasks_of_one_run_only_are_left_out(pair, tmp_path, capsys):
    """As those of the linear probe, which runs on one task after the other."""
    write_predictions(tmp_path / "one", 0, {"pets": CLASSES["pets"]})
    printed = out(capsys, "--compare", pair[1].path, tmp_path / "one", "--format", "github")
    assert list(cells(printed.out))[:2] == ["task", "pets"] and "all" not in cells(printed.out)
    assert f"Note: only {pair[1].path} was tested on cars: left out" in printed.err


def change(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("spoil, message", [
    (lambda path: change(path, "pets/3.jpg", "pets/300.jpg"), "were tested on different images"),
    (lambda path: change(path, "pets/3.jpg,pets,cat", "pets/3.jpg,pets,dog"), "were tested on different images"),
    (lambda path: path.write_text("".join(path.read_text().splitlines(True)[:-1])), "were tested on different images"),
    (lambda path: path.write_text("".join(path.read_text().splitlines(True)[:1])), "different tasks (pets, cars; )"),
    (lambda path: path.unlink(), "predictions.csv is not there: call the run's command with TEST.SAVE"),
])
def test_what_can_not_be_compared_is_one_sentence(spoil, message, pair, capsys):
    spoil(pair[1].path / "predictions.csv")
    with pytest.raises(SystemExit) as stop:
        out(capsys, "--compare", pair[0].path, pair[1].path)
    said = capsys.readouterr()
    assert stop.value.code == 1 and message in said.err and said.err.count("\n") == 1 and said.out == ""


@pytest.mark.parametrize("arguments, message", [
    (["--compare", "a"], "expected 2 arguments"), (["a", "--compare", "a", "b"], "takes two runs"),
    (["--compare", "a", "b", "--ci95"], "takes two runs"),
    (["--compare", "a", "b", "--output", "x.txt"], "ends in .csv"),
    (["a", "--output", "x.csv"], "--output needs --compare"), ([], "give the folder of an experiment"),
    (["--compare", "a", "b", "--table"], "not allowed with argument"),
    (["--compare", "a", "b", "--chart", "x.png"], "--chart needs"),
])
def test_wrong_calls(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_test_res.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_missing_folder(pair):
    with pytest.raises(SystemExit, match="error: the folder /nowhere does not exist"):
        parse_test_res.main(["--compare", str(pair[0].path), "/nowhere"])


def test_comparing_loads_no_pytorch(pair, tmp_path):
    code = ("import sys, parse_test_res; parse_test_res.main(sys.argv[1:]); "
            "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, "--compare", pair[0].path, pair[1].path, "--output",
                           tmp_path / "x.csv"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "x.csv").exists(), done.stderr


def test_two_runs(photo_root, backbone, tmp_path, capsys):
    """The model of one that did not write predictions is tested again."""
    def arguments(output, trainer, *extra, **options):
        return train_args(photo_root, backbone, tmp_path / output, trainer, *extra, **{
            "DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 1, **options})

    call(arguments("a", "ZeroshotCLIP", "--eval-only", **{"TEST.SAVE_PREDICTIONS": True}))
    call(arguments("b", "MTCoOpHard"))
    with pytest.raises(SystemExit):
        out(capsys, "--compare", tmp_path / "a", tmp_path / "b")
    assert f"{tmp_path / 'b' / 'predictions.csv'} is not there" in capsys.readouterr().err
    call(arguments("c", "MTCoOpHard", "--eval-only", "--model-dir", str(tmp_path / "b"),
                   **{"TEST.SAVE_PREDICTIONS": True}))
    capsys.readouterr()
    rows = cells(out(capsys, "--compare", tmp_path / "a", tmp_path / "c", "--format", "github").out)
    for folder, column in (("a", 1), ("c", 2)):
        for task in results(tmp_path / folder)["tasks"]:
            assert float(rows[task["name"]][column]) == pytest.approx(task["overall_acc"], abs=0.005)
        right = [p.right for p in read_predictions(tmp_path / folder)]
        assert float(rows["all"][column]) == pytest.approx(100 * np.mean(right), abs=0.005)
