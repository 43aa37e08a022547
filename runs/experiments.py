"""Runs, read from `results.json`, and the tables and rows that they form."""

import os
import os.path as osp
import re
import sys
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from common.errors import UserError

from .results import RESULTS_FILE, read_results
from .show import plural, spread_of_several

# Keys of an identity that are no settings of an experiment: they tell its runs apart, or have a field of their own.
NO_SETTINGS = {"SEED", "DATASET.NUM_SHOTS", "DATASET.NAME", "DATASET.SUBSAMPLE_CLASSES", "DATASET.SUBSAMPLE_TASKS",
               "weights", "model"}


class Run:
    """A finished run.

    Args:
        path: its folder. results: the content of its `results.json`. A KeyError says what it lacks; a UserError, that
            the run was not tested.

    Attributes:
        results: as given. method: the name of its row. order: the number that orders rows.
        split: "test" or "val", the images that were tested on. tasks: ((name, number of these images), ...).
        percents: the accuracy on each task. metric: their mean.
        shots, seed: None for zero-shot, which depends on neither; -1 shots are all images.
        classes, which_tasks: `DATASET.SUBSAMPLE_CLASSES` (all, base, new) and `SUBSAMPLE_TASKS` (all, task<i> ...).
        model_dir: the run whose model was tested with `--eval-only`, else "".
        seconds: the time of training. weights, suite, test: digests of CLIP, of the tasks (names, classes, templates,
            metric) and of the test images. model: a digest of the learned values that were tested.
        settings: {key: text} of the other values that the result depends on.
        experiment: a key that is equal for runs which differ only in shots, seed, tasks or classes.
    """

    def __init__(self, path, results):
        identity = results["identity"]
        self.path, self.results, self.method, self.order = path, results, results["label"], results["order"]
        self.dataset, self.backbone, self.n_params = results["dataset"], results["backbone"], results["n_params"]
        self.model_dir, self.seconds = results["model_dir"], results["train_seconds"]
        self.tasks = tuple((task["name"], task["total"]) for task in results["tasks"])
        self.split = identity["TEST.SPLIT"]
        self.percents = [task["metric"] for task in results["tasks"]]
        if not self.percents:
            raise UserError(f"its {RESULTS_FILE} holds no accuracy per task")
        self.metric = float(np.mean(self.percents))
        self.shots, self.seed = identity.get("DATASET.NUM_SHOTS"), identity.get("SEED")
        if self.shots is not None and self.shots < 1:  # all images
            self.shots = -1
        self.classes, self.which_tasks = identity["DATASET.SUBSAMPLE_CLASSES"], identity["DATASET.SUBSAMPLE_TASKS"]
        self.weights, self.suite, self.test = identity["weights"], identity["data.tasks"], identity["data.test"]
        self.model = identity["model"] or results.get("learned", "")
        # What a method computes of the shots, such as its epochs, does not make its shots other experiments.
        no_settings = NO_SETTINGS.union(results.get("computed", ()))
        self.settings = {key: str(value) for key, value in identity.items()
                         if key not in no_settings and not key.startswith("data.")}
        self.experiment = self.method, self.dataset, self.backbone, self.weights, tuple(sorted(self.settings.items()))

    def __str__(self):
        shots = "" if self.shots is None else f", {plural(self.shots)}"
        return f"{self.method} on {self.dataset}{shots}" + ("" if self.seed is None else f", seed {self.seed}")


def find_runs(root):
    """Read the run folders from `root` down: ([Run], [(folder, why it is left out)])."""
    runs, left_out = [], []
    for folder, names, files in os.walk(root):
        names.sort()
        if RESULTS_FILE in files or "log.txt" in files or re.fullmatch(r"seed\d+", osp.basename(folder)):
            try:
                runs.append(Run(folder, read_results(folder)))
            except KeyError as key:
                left_out.append((folder, f"its {RESULTS_FILE} has no {key}, another version of this code wrote it: run "
                                 "it again"))
            except UserError as reason:
                left_out.append((folder, str(reason)))
    return runs, left_out


def check_single(run, other):
    """Stop if there is another run of the same settings, shots and seed: it is not known which one counts."""
    if other is not None:
        but = "" if run.test == other.test else ", but tested on other images"
        sys.exit(f"error: {other.path} and {run.path} are both {run}, with the same settings{but}: "
                 "move one of them away")


class Row:
    """The runs of one experiment on the same tasks and test images.

    Attributes:
        name: the method, with the settings that differ if the table has several rows of it.
        settings, weights, suite, test: those of its runs.
        runs: {shots: {seed: Run}}; shots is None for zero-shot.
    """

    def __init__(self, run, suite, test):
        self.method = self.name = run.method
        self.order, self.settings, self.weights, self.runs = run.order, run.settings, run.weights, {}
        self.suite, self.test = suite, test

    @property
    def zero_shot(self):
        return None in self.runs

    @property
    def all_runs(self):
        """The runs by shots, then by seed."""
        return sorted((run for seeds in self.runs.values() for run in seeds.values()),
                      key=lambda run: (run.shots or 0, run.seed or 0))

    def at(self, shots):
        """{seed: Run} of these shots; zero-shot has the same for all."""
        return self.runs.get(None) or self.runs.get(shots, {})

    def average(self, shots, ci95=False):
        """(mean over the shots, spread over the seeds), or None if a number of shots is missing.

        Each seed's values are averaged over the shots first. The spread is None if there is a single seed, or if the
        shots have different seeds.
        """
        cells = [self.at(n) for n in shots]
        if not cells or not all(cells):
            return None
        if any(set(cell) != set(cells[0]) for cell in cells):
            return float(np.mean([np.mean([run.metric for run in cell.values()]) for cell in cells])), None
        return spread_of_several([np.mean([cell[seed].metric for cell in cells]) for seed in cells[0]], ci95)


@dataclass
class Table:
    """Rows of the same dataset, backbone, tasks and numbers of test (or validation) images.

    Attributes:
        tasks: ((name, number of these images), ...). split: "test" or "val". shots: the numbers that occur, ascending.
    """

    dataset: str
    backbone: str
    tasks: tuple
    split: str
    rows: list
    shots: list

    @property
    def title(self):
        tasks = f"{len(self.tasks)} tasks" if len(self.tasks) > 1 else self.tasks[0][0]
        kind = "validation" if self.split == "val" else "test"
        return f"{self.dataset} ({tasks}, {sum(total for _, total in self.tasks):,} {kind} images), {self.backbone}"


def make_tables(runs):
    """The tables of `runs`, ordered by dataset, backbone and tasks."""
    found = defaultdict(dict)
    for run in runs:
        rows = found[run.dataset, run.backbone, run.tasks, run.split]
        row = rows.setdefault((run.experiment, run.suite, run.test), Row(run, run.suite, run.test))
        seeds = row.runs.setdefault(run.shots, {})
        check_single(run, seeds.get(run.seed))
        seeds[run.seed] = run
    return [Table(*key, name_rows(rows.values()), shots_of(rows.values()))
            for key, rows in sorted(found.items(), key=lambda item: item[0])]


def shots_of(rows):
    """The numbers of shots that occur in rows, ascending; -1, all images, is the last."""
    return sorted({n for row in rows for n in row.runs} - {None}, key=lambda n: (n == -1, n))


def name_rows(rows):
    """Order the rows of a table by method, and give them distinct names.

    A name is the method and the settings in which its rows differ. If weights, tasks (suite) or test images differ
    anywhere in the table, all names have the first digits of their digests: such rows can't be compared directly.
    """
    rows = sorted(rows, key=lambda row: (row.order, row.method))
    for row in rows:
        same = [other.settings for other in rows if other.method == row.method]
        differ = sorted(key for key in set().union(*same) if len({settings.get(key) for settings in same}) > 1)
        short = [key.rsplit(".", 1)[-1] for key in differ]
        texts = [f"{name if short.count(name) == 1 else key}={row.settings.get(key, 'unset')}"
                 for key, name in zip(differ, short)]
        for key in ("weights", "suite", "test"):
            if len({getattr(other, key) for other in rows}) > 1:
                texts.append(f"{key}=" + "+".join(digest[:8] for digest in getattr(row, key).split("+")))
        row.name += f" [{', '.join(texts)}]" if texts else ""
    return rows
