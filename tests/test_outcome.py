"""What a run writes beside its results: figures, confusion matrices, predictions; each against a slow or known one."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

import parse_test_res
from common.errors import MissingFile, UserError
from dassl.data.datasets import build_dataset
from dassl.evaluation import build_evaluator
from datasets.base import Task
from runs import outcome
from runs.outcome import calibration_error, distinct, figures_of, read_confusion, read_predictions, write_outcome
from tests.helpers import REPOSITORY, call, make_cfg, metrics, results, train_args
from trainers.evaluation import ClassificationMT, make_evaluator
from trainers.multitask import MultiTaskTrainer

SAVE = {"TEST.SAVE_PREDICTIONS": True}


# ------------------------------------------------------------------ figures
def drawn(n_classes, n_images=400, seed=0):
    """Labels and predictions of which the last class has no image and the one before is never predicted."""
    rng = np.random.default_rng(seed)
    labels, guesses = rng.integers(0, n_classes - 1, n_images), rng.integers(0, n_classes, n_images)
    predictions = np.where(rng.random(n_images) < 0.5, labels, guesses)
    predictions[predictions == n_classes - 2] = 0
    return labels, predictions, rng.uniform(0.1, 1, n_images)


def test_figures_are_scikit_learns():
    labels, predictions, probabilities = drawn(7)
    found = figures_of("t", "abcdefg", labels, predictions, probabilities)
    columns = precision_recall_fscore_support(labels, predictions, labels=range(7), zero_division=np.nan)
    for key, column in zip(("precision", "recall", "f1", "total"), columns):
        ours = [np.nan if row[key] is None else row[key] for row in found["classes"]]
        np.testing.assert_allclose(ours, column if key == "total" else 100 * column, atol=1e-4)
    last, never = found["classes"][6], found["classes"][5]
    assert (last["total"], last["recall"], last["accuracy"], last["f1"]) == (0, None, None, 0)
    assert (never["predicted"], never["precision"], never["recall"]) == (0, None, 0)
    assert [row["accuracy"] for row in found["classes"]] == [row["recall"] for row in found["classes"]]
    f1 = f1_score(labels, predictions, average="macro", labels=range(6))  # of the classes that occur
    assert found["macro_f1"] == pytest.approx(100 * f1, abs=1e-4)
    assert found["accuracy"] == pytest.approx(100 * np.mean(labels == predictions), abs=1e-4)
    assert found["macro_recall"] == pytest.approx(100 * np.mean(columns[1][:6]), abs=1e-4)


def plain_calibration_error(probabilities, right, bins):
    """Guo et al., equations 2 to 4, image by image: bin m is ((m - 1) / M, m / M]."""
    error = 0
    for m in range(1, bins + 1):
        own = [(p, r) for p, r in zip(probabilities, right) if (m - 1) / bins < p <= m / bins]
        if own:
            accuracy, confidence = sum(r for _, r in own) / len(own), sum(p for p, _ in own) / len(own)
            error += len(own) / len(probabilities) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_is_the_published_one(seed):
    rng = np.random.default_rng(seed)
    probabilities = np.concatenate([rng.uniform(0.01, 1, 200), rng.beta(8, 1, 200), [1.0, 0.5, 1 / 15]])
    right = rng.random(len(probabilities)) < probabilities**2
    for bins in (15, 4):
        assert calibration_error(probabilities, right, bins) == pytest.approx(
            plain_calibration_error(probabilities, right, bins), abs=1e-12)


def test_calibration_error_by_hand():
    """Probabilities on the ends of bins belong to the lower one; a sure classifier that is half right is 0.5 off."""
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, False])) == 0.5
    assert calibration_error(np.array([0.25, 0.5, 0.5]), np.array([False, True, False]), 4) == pytest.approx(0.25 / 3)
    assert calibration_error(np.array([0.5, 0.51]), np.array([True, False]), 2) == pytest.approx((0.5 + 0.51) / 2)


# ------------------------------------------------------------------ files
NAMES = ["crane", 'a "b", c', "crane", "line\nbreak", "Ünï ½", "$x_1$"]


@pytest.fixture
def written(tmp_path):
    """Function that writes the outcome of two tasks, and returns their labels, predictions, images."""
    def write(classes=NAMES, **test):
        tasks = [Task("t", tuple(classes), repeated_names=True), Task("t", ("u", "v"))]
        labels, predictions, probabilities = drawn(len(classes))
        labels, predictions = (np.concatenate([x, [len(classes) + i for i in own]])
                               for x, own in ((labels, (0, 1, 1)), (predictions, (1, 1, 0))))
        images = [f"t/{i}\udcff,.jpg" for i in range(len(labels))]
        test = {"SAVE_PREDICTIONS": True, "COMPUTE_CMAT": False, **test}
        write_outcome(SimpleNamespace(OUTPUT_DIR=str(tmp_path), TEST=SimpleNamespace(**test)), tasks, images, labels,
                      predictions, np.concatenate([probabilities, [0.9, 0.8, 0.7]]))
        return labels, predictions, images
    return write


def test_names_are_told_apart():
    assert distinct(["a", "b", "a", "a (2)", "a"]) == ["a", "b", "a (2)", "a (2) (2)", "a (3)"]


def test_what_is_written_is_read_back(written, tmp_path):
    labels, predictions, images = written()
    names = [*distinct(NAMES), "u", "v"]
    found = read_predictions(tmp_path)
    assert [p.image for p in found] == images and {p.task for p in found} == {"t", "t (2)"}
    assert [(p.label, p.prediction) for p in found] == [(names[i], names[j]) for i, j in zip(labels, predictions)]
    assert [p.right for p in found] == (labels == predictions).tolist() and found[-1].probability == 0.7
    for task, (first, n) in enumerate(((0, 6), (6, 2))):
        classes, counts = read_confusion(tmp_path, task)
        own = (first <= labels) & (labels < first + n)
        assert classes == names[first:first + n]
        assert (counts == confusion_matrix(labels[own] - first, predictions[own] - first, labels=range(n))).all()
        assert [row["name"] for row in metrics(tmp_path)[task]["classes"]] == classes
    assert not [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.tmp")]


def test_predictions_are_written_if_asked_for_or_there(written, tmp_path):
    written(SAVE_PREDICTIONS=False)
    assert (tmp_path / "metrics.json").exists() and not (tmp_path / "predictions.csv").exists()
    (tmp_path / "predictions.csv").write_text("of another run")
    written(SAVE_PREDICTIONS=False)
    assert len(read_predictions(tmp_path)) == 403


def test_pictures_of_up_to_60_classes(written, tmp_path, monkeypatch):
    monkeypatch.setattr(outcome, "MOST_DRAWN", 6)
    written(COMPUTE_CMAT=True)
    assert (tmp_path / "confusion" / "task0.png").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "confusion" / "task0.png").unlink()
    written([*NAMES, "one more"], COMPUTE_CMAT=True)
    assert {path.name for path in (tmp_path / "confusion").iterdir()} == {"task0.csv", "task1.csv", "task1.png"}


def test_a_matrix_of_too_many_classes_is_not_written(written, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(outcome, "MOST_CLASSES", 5)
    written()
    assert "Task t has 6 classes: its confusion matrix is not written" in capsys.readouterr().out
    assert len(metrics(tmp_path)[0]["classes"]) == 6
    with pytest.raises(MissingFile, match="task0.csv is not there"):
        read_confusion(tmp_path, 0)


@pytest.mark.parametrize("read, message", [
    (read_predictions, "predictions.csv is not there: call the run's command with TEST.SAVE"),
    (lambda folder: read_confusion(folder, 0),
     "task0.csv is not there (a task of more than 2,000 classes has none): call the run's command with TEST.SAVE")])
def test_missing_files_are_one_sentence(read, message, tmp_path):
    with pytest.raises(MissingFile) as error:
        read(tmp_path)
    assert message in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)


# ------------------------------------------------------------------ runs
@pytest.fixture
def arguments(photo_root, words, tmp_path):
    def of(output, trainer="MTCoOpHard", *extra, **options):
        return train_args(photo_root, words, tmp_path / output, trainer, *extra,
                          **{"DATASET.SPLIT_DIR": tmp_path / "splits", **options})
    return of


@pytest.mark.parametrize("trainer", ["MTCoOp", "CoCoOp", "PLOT", "ProtoNet", "ZeroshotCLIP"])
def test_predictions_of_a_method(trainer, arguments, tmp_path, monkeypatch):
    """Against the softmax of the logits of one image after the other, over the classes of its task alone."""
    logits = []
    test = MultiTaskTrainer.test

    def slow(self, split=None):
        result = test(self, split)
        with torch.no_grad():
            features, images = self.model.class_features(), self.plain_images["test"]
            for i, feature in enumerate(self.encode(images).to(self.device)):
                label = torch.tensor([images.data_source[i].label])
                logits.append(self.model.logits(feature[None], label, features)[0])
        return result

    monkeypatch.setattr(MultiTaskTrainer, "test", slow)
    trained = call(arguments("run", trainer, *["--eval-only"] * (trainer == "ZeroshotCLIP"),
                             **SAVE, **{"OPTIM.MAX_EPOCH": 1}))
    found, tasks = read_predictions(tmp_path / "run"), results(tmp_path / "run")["tasks"]
    datums, names = trained.dataset.test, [task.name for task in trained.tasks]
    assert len(found) == len(datums) == len(logits) == 20
    for prediction, datum, scores in zip(found, datums, logits):
        task = trained.dataset.task_of_class[datum.label]
        first = trained.dataset.task_of_class.index(task)
        own = scores[first:first + len(trained.tasks[task].classnames)].softmax(0)
        assert (prediction.image, prediction.task) == (datum.name, names[task])
        assert prediction.label == trained.tasks[task].classnames[datum.label - first]
        assert prediction.prediction == trained.tasks[task].classnames[int(own.argmax())]
        assert prediction.probability == pytest.approx(float(own.max()), abs=2e-4)
    for i, (task, figures) in enumerate(zip(tasks, metrics(tmp_path / "run"), strict=True)):
        own = [p for p in found if p.task == task["name"]]
        assert sum(p.right for p in own) == task["correct"] and len(own) == figures["total"]
        assert figures["accuracy"] == pytest.approx(task["overall_acc"], abs=1e-3)
        assert figures["macro_recall"] == pytest.approx(task["mean_acc"], abs=1e-3)
        assert read_confusion(tmp_path / "run", i)[1].trace() == task["correct"]


def test_images_are_named_alike_wherever_the_root_lies(arguments, photo_root, tmp_path):
    call(arguments("run", "ZeroshotCLIP", "--eval-only", **SAVE))
    for prediction in read_predictions(tmp_path / "run"):
        assert (photo_root / prediction.image).is_file() and not prediction.image.startswith(("/", "."))


def test_a_finished_run_says_how_to_get_what_it_did_not_write(arguments, tmp_path, capsys):
    call(arguments("run"))
    call(arguments("at_once", **SAVE))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    capsys.readouterr()
    call(arguments("run", **SAVE, **{"TEST.COMPUTE_CMAT": True}))
    printed = capsys.readouterr().out
    for name in ("predictions.csv", "cmat.pt"):
        assert (f"The finished run did not write {name}: to get it, give another --output-dir, and --eval-only "
                f"--model-dir {tmp_path / 'run'} to test its model\n") in printed
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    call(arguments("tested", "MTCoOpHard", "--eval-only", "--model-dir", str(tmp_path / "run"), **SAVE))
    assert read_predictions(tmp_path / "tested") == read_predictions(tmp_path / "at_once")
    call(arguments("at_once", **SAVE))
    assert "did not write" not in capsys.readouterr().out


def test_a_run_without_a_test_has_no_predictions(arguments, tmp_path):
    for _ in range(2):
        call(arguments("run", **SAVE, **{"TEST.NO_TEST": True, "OPTIM.MAX_EPOCH": 1}))
    assert not (tmp_path / "run" / "predictions.csv").exists() and not (tmp_path / "run" / "metrics.json").exists()


def test_predictions_of_the_linear_probe(arguments, tmp_path):
    call(arguments("lp", "LinearProbe", **SAVE))
    found, tasks = read_predictions(tmp_path / "lp"), results(tmp_path / "lp")["tasks"]
    for task in tasks:
        own = [prediction for prediction in found if prediction.task == task["name"]]
        assert (len(own), sum(prediction.right for prediction in own)) == (task["total"], task["correct"])


# ------------------------------------------------------------------ what Dassl's users expect
DETAILS = {"TEST.PER_CLASS_RESULT": True, "TEST.COMPUTE_CMAT": True}


def test_per_class_lines_are_dassls(tmp_path, capsys):
    """Of each of two tasks the lines of Dassl's evaluator, which sees that task alone."""
    tasks = [Task("a", ("x", "y", "z")), Task("b", ("u", "v"))]
    labels, predictions = torch.tensor([0, 0, 0, 1, 3, 3, 4]), torch.tensor([0, 0, 1, 1, 3, 4, 4])
    cfg = make_cfg(options={**DETAILS, "OUTPUT_DIR": str(tmp_path)})

    def printed(evaluator, own, first, n):
        evaluator.process(torch.nn.functional.one_hot(predictions[own] - first, n).float(), labels[own] - first)
        evaluator.evaluate()
        return capsys.readouterr().out

    ours = printed(ClassificationMT(cfg, tasks), slice(None), 0, 5).split("=> per-class result of task ")[1:]
    assert [text.splitlines()[0] for text in ours] == ["0 (a)", "1 (b)"]
    assert torch.load(tmp_path / "cmat.pt", weights_only=True).shape == (5, 5)
    whole = torch.load(tmp_path / "cmat.pt", weights_only=True)
    cfg.defrost()
    cfg.TEST.EVALUATOR = "Classification"
    for i, (text, own, first) in enumerate(zip(ours, (slice(0, 4), slice(4, 7)), (0, 3))):
        names = tasks[i].classnames
        theirs = printed(build_evaluator(cfg, lab2cname=dict(enumerate(names))), own, first, len(names))
        theirs = theirs.split("=> per-class result\n")[1].split("Confusion")[0]
        assert text.split("\n", 1)[1].split("Confusion")[0] == theirs and "* average: " in theirs
        dassls = torch.load(tmp_path / "cmat.pt", weights_only=True)  # of the classes that occur
        mine = torch.load(tmp_path / "confusion" / f"task{i}.pt", weights_only=True)
        assert torch.equal(mine[:len(dassls), :len(dassls)], dassls)
        assert torch.equal(mine, whole[first:first + len(names), first:first + len(names)])


def test_details_of_a_run(arguments, tmp_path, capsys):
    call(arguments("run", "ZeroshotCLIP", "--eval-only", **SAVE, **DETAILS))
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    found = read_predictions(tmp_path / "run")
    for task in results(tmp_path / "run")["tasks"]:
        assert f"* average: {task['mean_acc']:.1f}%" in lines
    for i in (0, 1):
        classes, counts = read_confusion(tmp_path / "run", i)
        shares = torch.load(tmp_path / "run" / "confusion" / f"task{i}.pt", weights_only=True).numpy()
        own = [p for p in found if p.label in classes]
        np.testing.assert_allclose(shares, confusion_matrix([p.label for p in own], [p.prediction for p in own],
                                                            labels=classes, normalize="true"))
        assert (tmp_path / "run" / "confusion" / f"task{i}.png").exists()
    capsys.readouterr()
    parse_test_res.main([str(tmp_path / "run"), "--keyword", "average", "--format", "csv"])  # of tasks, not of classes
    assert f"average,,{results(tmp_path / 'run')['overall_metric']:.2f}," in capsys.readouterr().out


def test_dassls_name_of_the_evaluator_is_for_one_task():
    cfg, task = make_cfg(options={"TEST.EVALUATOR": "Classification"}), Task("t", ("a",))
    assert type(make_evaluator(cfg, [task])) is ClassificationMT
    with pytest.raises(UserError, match="TEST.EVALUATOR is 'Classification' .*must be ClassificationMT where"):
        make_evaluator(cfg, [task, task])


def test_a_run_imports_what_it_needs(arguments, tmp_path):
    code = ("import sys, train; train.main(); "
            "print('LOADED', [name for name in ('sklearn', 'matplotlib', 'scipy') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code, *arguments("run", "ZeroshotCLIP", "--eval-only", **SAVE)],
                          cwd=REPOSITORY, capture_output=True, text=True)
    assert "LOADED []" in done.stdout, done.stderr[-2000:]
    assert read_predictions(tmp_path / "run")


def test_datasets_name_images_alike(photo_root, tmp_path):
    """Names are those of the run's identity: below the root, with / between the parts."""
    cfg = make_cfg(photo_root, {"DATASET.NAME": "FolderTasks", "DATASET.SPLIT_DIR": str(tmp_path)})
    assert {datum.name.count("/") for datum in build_dataset(cfg).test} == {2}
