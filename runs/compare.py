"""Compares two runs on the same test images: counts where they differ, and tests if that may be chance."""

import itertools
import sys

import numpy as np

from common.csv_files import write_csv
from common.errors import UserError

from .outcome import read_predictions
from .show import show

SHOWN = 10  # images that are printed
HEADERS = ("image", "task", "label", "prediction_a", "probability_a", "prediction_b", "probability_b", "right")


def mcnemar(only_a, only_b):
    """The p-value of McNemar's exact test, from the numbers of images that only A and that only B gets right."""
    from scipy.stats import binomtest  # slow to import

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def pairs_of(folder_a, folder_b):
    """Pairs (prediction of A, prediction of B) on the images of the tasks that both runs have, by A's tasks.

    Raises:
        MissingFile: a run has no predictions. UserError: no task is common, or one has other images or labels.
    """
    runs = [read_predictions(folder) for folder in (folder_a, folder_b)]
    tasks = [dict.fromkeys(prediction.task for prediction in run) for run in runs]
    common = [task for task in tasks[0] if task in tasks[1]]
    if not common:
        raise UserError(f"{folder_a} and {folder_b} were tested on different tasks ({', '.join(tasks[0])}; "
                        f"{', '.join(tasks[1])}): compare runs on the same test images")
    for folder, own in zip((folder_a, folder_b), tasks):
        others = [task for task in own if task not in common]
        if others:
            print(f"Note: only {folder} was tested on {', '.join(others)}: left out", file=sys.stderr)
    # An image may stand twice in a task, so they are not matched by name.
    a, b = (sorted((p for p in run if p.task in common), key=lambda p: (common.index(p.task), p[:3])) for run in runs)
    if [p[:3] for p in a] != [p[:3] for p in b]:
        raise UserError(f"{folder_a} and {folder_b} were tested on different images, or on other classes of them: "
                        "compare runs on the same test images")
    return list(zip(a, b))


def rights_of(folder):
    """What a run got right: its images ((name, task, true class), ...), sorted, and (n_images,) bool.

    Raises:
        MissingFile: it has no predictions.
    """
    found = sorted(read_predictions(folder), key=lambda p: p[:3])
    return tuple(p[:3] for p in found), np.array([p.right for p in found])


def row_of(name, pairs):
    """A row of the table, list of str."""
    rights, n = [(p.right, q.right) for p, q in pairs], len(pairs)
    both, only_a, only_b, neither = map(rights.count, itertools.product((True, False), repeat=2))
    return [name, f"{n:,}", f"{100 * (both + only_a) / n:.2f}", f"{100 * (both + only_b) / n:.2f}",
            *map(str, (both, only_a, only_b, neither)), f"{mcnemar(only_a, only_b):.3g}"]


def differences(pairs):
    """Rows of the images that A and B predict differently, first those that one of them gets right."""
    rows = [[*p[:4], f"{p.probability:.4f}", q.prediction, f"{q.probability:.4f}",
             "A" if p.right else "B" if q.right else "neither"] for p, q in pairs if p.prediction != q.prediction]
    return sorted(rows, key=lambda row: row[-1] == "neither")


def show_comparison(folder_a, folder_b, style, output=None):
    """Print McNemar's test per task and over all tasks, and list the images on which two runs differ.

    Args:
        style: as in `show`; csv prints the table of the tests alone. output: a CSV file for the images, or None.
    """
    pairs = pairs_of(folder_a, folder_b)
    tasks = list(dict.fromkeys(p.task for p, _ in pairs))
    rows = [row_of(task, [pair for pair in pairs if pair[0].task == task]) for task in tasks]
    if len(tasks) > 1:
        rows.append(row_of("all", pairs))
    if style != "csv":
        print(f"A: {folder_a}\nB: {folder_b}\np: McNemar's exact test")
    show(rows, ["task", "images", "A (%)", "B (%)", "both right", "only A", "only B", "neither", "p"], style)
    found = differences(pairs)
    if output:
        write_csv(output, HEADERS, found)
        print(f"The {len(found):,} images on which A and B differ are in {output}", file=sys.stderr)
    elif style != "csv" and found:
        print(f"A and B differ on {len(found):,} images" + f", of which {SHOWN} are shown (--output x.csv has all)"
              * (len(found) > SHOWN))
        show(found[:SHOWN], HEADERS, style, n_names=4)
