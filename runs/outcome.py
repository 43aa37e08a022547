"""Predictions, confusion matrices and figures of a run, beside its `results.json`. They are read without PyTorch.

`metrics.json` has figures per task and class, `confusion/task<i>.csv` the counts of each confusion matrix, and
`predictions.csv` a line per image. Names tell classes apart there: where two have the same one (ImageNet's cranes), the
second is `crane (2)`; likewise tasks.
"""

import os.path as osp
from typing import NamedTuple

import numpy as np

from common.csv_files import read_csv, write_csv
from common.errors import MissingFile
from common.files import read_json, write_json

METRICS_FILE, PREDICTIONS_FILE, CMAT_FILE = "metrics.json", "predictions.csv", "cmat.pt"
CONFUSION = osp.join("confusion", "task{}")
COLUMNS = "image", "task", "label", "prediction", "probability"
BINS = 15
LEAST = (0, 50, 60, 70, 80, 90, 95, 99)  # probabilities in percent, see `coverage_of`
MOST_CLASSES, MOST_DRAWN = 2000, 60  # limits for a confusion matrix that is written or drawn: it has n^2 cells
HOW = ("call the run's command with TEST.SAVE_PREDICTIONS True and another --output-dir, and with --eval-only "
       "--model-dir RUN if the method trains")


class Prediction(NamedTuple):
    """A line of `predictions.csv`: an image by its path below the data root, and the names that stand there.

    `probability` is that of the predicted class, by the softmax over the classes of the image's task.
    """

    image: str
    task: str
    label: str
    prediction: str
    probability: float

    @property
    def right(self):
        return self.label == self.prediction


def distinct(names):
    """Make names distinct: the second `crane` becomes `crane (2)`. Returns a list."""
    found = {}  # a dict keeps the order
    for name in names:
        other, n = name, 1
        while other in found:
            n += 1
            other = f"{name} ({n})"
        found[other] = None
    return list(found)


def calibration_error(probabilities, right, bins=BINS):
    """Expected calibration error, from 0 to 1: the mean over images of |accuracy - mean probability| in their bin.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017: bins of equal width, each with its upper end.

    Args:
        probabilities: (n,) of the predicted classes. right: (n,) bool.
    """
    bin_of = np.digitize(probabilities, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    gaps = np.bincount(bin_of, weights=right - np.asarray(probabilities, np.float64), minlength=bins)
    return float(np.abs(gaps).sum() / len(probabilities))


def confusion_of(labels, predictions, n):
    """Count labels and predictions, (n_images,) each, in a matrix (n, n): rows are true classes, columns predicted."""
    return np.bincount(n * labels + predictions, minlength=n**2).reshape(n, n)


def error_of_true(probabilities, draws=100):
    """The mean calibration error that predictions have by chance if their probabilities (n,) are true, from 0 to 1."""
    draw = np.random.default_rng(0)
    return float(np.mean([calibration_error(probabilities, draw.random(len(probabilities)) < probabilities)
                          for _ in range(draws)]))


def reliability_of(probabilities, right, bins=BINS):
    """The bins of `calibration_error` that hold images: [(images, mean probability, accuracy)], both in percent."""
    bin_of = np.digitize(probabilities, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    return [(int(own.sum()), percent(100 * probabilities[own].mean()), percent(100 * right[own].mean()))
            for k in range(bins) for own in [bin_of == k] if own.any()]


def coverage_of(probabilities, right):
    """What is left if predictions below a probability are refused: [(probability, share of images, accuracy)].

    All are in percent; the accuracy is that of the images left, None if there are none.
    """
    left = [(least, probabilities >= least / 100) for least in LEAST]
    return [(least, percent(100 * own.mean()), percent(100 * right[own].mean()) if own.any() else None)
            for least, own in left]


def figures_of(name, classes, labels, predictions, probabilities):
    """The figures of a task, in percent, as a JSON object; None stands for 0/0.

    They equal those of scikit-learn, which takes a second to import. Only classes that have images count in the means.

    Args:
        labels, predictions: numbers of `classes`, (n_images,) int. probabilities: of the predictions, (n_images,).
    """
    right = labels == predictions
    total, predicted, correct = (np.bincount(x, minlength=len(classes)) for x in (labels, predictions, labels[right]))
    with np.errstate(invalid="ignore"):  # 0/0 is no value
        recall, precision, f1 = (100 * correct / total, 100 * correct / predicted,
                                 200 * correct / (total + predicted))
    occurs = total > 0
    return {
        "name": name, "total": len(labels), "accuracy": percent(100 * right.mean()),
        "macro_recall": percent(recall[occurs].mean()), "macro_f1": percent(f1[occurs].mean()),
        "expected_calibration_error": percent(100 * calibration_error(probabilities, right)),
        "error_of_true_probabilities": percent(100 * error_of_true(probabilities)),
        "reliability": reliability_of(probabilities, right), "coverage": coverage_of(probabilities, right),
        "classes": [{"name": name, "total": int(total[i]), "predicted": int(predicted[i]), "correct": int(correct[i]),
                     "accuracy": percent(recall[i]), "precision": percent(precision[i]), "recall": percent(recall[i]),
                     "f1": percent(f1[i])} for i, name in enumerate(classes)]}


def percent(value):
    """Round a float for JSON; NaN becomes None."""
    return None if np.isnan(value) else round(float(value), 4)


def note_missing(cfg, trained):
    """Say how to get the files that `cfg` asks for and its finished run did not write; `trained`: it has a model."""
    how = f", and --eval-only --model-dir {cfg.OUTPUT_DIR} to test its model" if trained else ""
    for asked, name in ((cfg.TEST.SAVE_PREDICTIONS, PREDICTIONS_FILE), (cfg.TEST.COMPUTE_CMAT, CMAT_FILE)):
        if asked and not osp.isfile(osp.join(cfg.OUTPUT_DIR, name)):
            print(f"The finished run did not write {name}: to get it, give another --output-dir{how}")


def write_outcome(cfg, tasks, images, labels, predictions, probabilities, temperatures=None, plain=None):
    """Write the files of a test into the run's folder, each of them whole or not at all.

    `TEST.COMPUTE_CMAT` draws the confusion matrices, which takes seconds. `TEST.SAVE_PREDICTIONS` writes predictions;
    without it, they replace those of an earlier test, if there are any.

    Args:
        tasks: list of `Task`. images: names of the test images, (n_images,).
        labels, predictions: numbers among the classes of all tasks, (n_images,) int.
        probabilities: of the predictions, within the image's own task, (n_images,).
        temperatures: those of the tasks, by which the probabilities were computed, or None.
        plain: probabilities without them.
    """
    folder, figures, names, first = cfg.OUTPUT_DIR, [], [], 0
    for i, (name, task) in enumerate(zip(distinct(task.name for task in tasks), tasks)):
        classes = distinct(task.classnames)
        own = (first <= labels) & (labels < first + len(classes))
        truth, predicted = labels[own] - first, predictions[own] - first
        figures.append(figures_of(name, classes, truth, predicted, probabilities[own]))
        if temperatures is not None:
            figures[-1] |= {"temperature": float(temperatures[i]), "uncalibrated_error": percent(
                100 * calibration_error(plain[own], truth == predicted))}
        write_confusion(osp.join(folder, CONFUSION.format(i)), name, classes, truth, predicted, cfg.TEST.COMPUTE_CMAT)
        names += [(name, text) for text in classes]
        first += len(classes)
    write_json({"tasks": figures}, osp.join(folder, METRICS_FILE))
    path = osp.join(folder, PREDICTIONS_FILE)
    if cfg.TEST.SAVE_PREDICTIONS or osp.isfile(path):
        rows = ((image, *names[label], names[prediction][1], f"{probability:.6f}") for image, label, prediction,
                probability in zip(images, labels.tolist(), predictions.tolist(), probabilities.tolist(), strict=True))
        write_csv(path, COLUMNS, rows)
        print(f"Predictions are saved to {path}")


def write_confusion(path, name, classes, labels, predictions, draw):
    """Write a task's confusion matrix as `path`.csv and, with `draw`, `path`.png, unless it has too many classes."""
    if len(classes) > MOST_CLASSES:
        print(f"Task {name} has {len(classes):,} classes: its confusion matrix is not written as CSV, which it is for "
              f"up to {MOST_CLASSES:,}")
        return
    counts = confusion_of(labels, predictions, len(classes))
    write_csv(f"{path}.csv", ["", *classes], ([name, *row] for name, row in zip(classes, counts.tolist())))
    if draw and len(classes) <= MOST_DRAWN:
        from .show import draw_heat_map  # matplotlib is slow to import

        draw_heat_map(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), classes,
                      np.where(counts, counts.astype(str), "") if len(classes) <= 30 else [], f"{path}.png",
                      "share of the true class", title=name, xlabel="predicted class", ylabel="true class")


def read_metrics(folder):
    """The figures of a run's tasks, as `figures_of` returns them; of an older run they may lack some.

    Raises:
        MissingFile: they were not written.
    """
    return read_json(osp.join(folder, METRICS_FILE))["tasks"]


def read_confusion(folder, task):
    """The confusion matrix of a run's task, a number: class names, and counts (n, n) int64; rows are true classes.

    Raises:
        MissingFile: it was not written.
    """
    path = osp.join(folder, f"{CONFUSION.format(task)}.csv")
    (_, *classes), *lines = read_written(path, f" (a task of more than {MOST_CLASSES:,} classes has none)")
    return classes, np.array([line[1:] for line in lines], dtype=np.int64)


def read_predictions(folder):
    """The `Prediction`s of a run, in the order of its test images.

    Raises:
        MissingFile: it has none.
    """
    _, *rows = read_written(osp.join(folder, PREDICTIONS_FILE))
    return [Prediction(*names, float(probability)) for *names, probability in rows]


def read_written(path, note=""):
    """The rows of a CSV file of a run, lists of texts; if there is none, `note` is part of the error."""
    if not osp.isfile(path):
        raise MissingFile(f"{path} is not there{note}: {HOW}")
    return read_csv(path)
