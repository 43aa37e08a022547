"""Runs as read from `results.json`, and the tables and rows that they form."""

import os
import os.path as osp
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import AliasPath, BaseModel, Field

from common.errors import UserError

from .logs import BrokenRun
from .results import RESULTS_FILE, TaskResult, read_results, validated
from .show import plural, spread_of_several

# Keys of an identity that are no settings of an experiment: they tell its runs apart, or have a field of their own.
NO_SETTINGS = {"SEED", "DATASET.NUM_SHOTS", "DATASET.NAME", "DATASET.SUBSAMPLE_CLASSES", "DATASET.SUBSAMPLE_TASKS",
               "weights", "model"}


def of_identity(key, **options):
    """The field of a `Run` that its identity holds under `key`."""
    return Field(validation_alias=AliasPath("identity", key), **options)


class Run(BaseModel, strict=True):
    """The parts of a finished run's `results.json` that the tables need.

    Attributes:
        method: the name of its row. place: the number that orders rows.
        shots, seed: None for zero-shot, which depends on neither.
        classes, which_tasks: `DATASET.SUBSAMPLE_CLASSES` (all, base, new) and `SUBSAMPLE_TASKS` (all, task<i> ...).
        model_dir: the run whose model was tested with `--eval-only`, else "".
        seconds: of training. weights, test: digests of CLIP's weights and of the test images.
    """

    path: str
    identity: dict
    method: str = Field(alias="label")
    place: float
    dataset: str
    backbone: str
    results: list[TaskResult] = Field(alias="tasks")
    n_params: int
    model_dir: str
    seconds: float = Field(alias="train_seconds")
    shots: int | None = of_identity("DATASET.NUM_SHOTS", default=None)
    seed: int | None = of_identity("SEED", default=None)
    classes: Literal["all", "base", "new"] = of_identity("DATASET.SUBSAMPLE_CLASSES")
    which_tasks: str = of_identity("DATASET.SUBSAMPLE_TASKS")
    weights: str = of_identity("weights")
    test: str = of_identity("data.test")

    @property
    def tasks(self):
        """((name, number of test images), ...)"""
        return tuple((task.name, task.total) for task in self.results)

    @property
    def percents(self):
        """The accuracy on each task; `metric` is their mean."""
        return [task.metric for task in self.results]

    @property
    def metric(self):
        return float(np.mean(self.percents))

    @property
    def settings(self):
        """{key: text} of the other values that the result depends on."""
        return {key: str(value) for key, value in self.identity.items()
                if key not in NO_SETTINGS and not key.startswith("data.")}

    @property
    def experiment(self):
        """The key of the run's experiment: equal for runs that differ only in shots, seed, tasks or classes."""
        return self.method, self.dataset, self.backbone, self.weights, tuple(sorted(self.settings.items()))

    def __str__(self):
        shots = "" if self.shots is None else f", {plural(self.shots)}"
        return f"{self.method} on {self.dataset}{shots}" + ("" if self.seed is None else f", seed {self.seed}")


def run_of(folder):
    """The `Run` that a folder's `results.json` describes.

    Raises:
        BrokenRun: there is no such file, or it lacks something that the tables need.
    """
    try:
        written = read_results(folder)
    except (UserError, OSError) as error:
        raise BrokenRun(str(error)) from None
    if "identity" not in written:
        raise BrokenRun("it was made by another version of this code, which did not say what its numbers depend on: "
                        "run it again")
    try:
        run = validated(Run, {**written, "path": folder})
    except UserError as error:
        raise BrokenRun(f"its {error}") from None
    if not run.results:
        raise BrokenRun(f"its {RESULTS_FILE} holds no accuracy per task")
    return run


def find_runs(root):
    """(runs, [(folder, why it is left out)]) of the run folders from `root` down."""
    runs, left_out = [], []
    for folder, names, files in os.walk(root):
        names.sort()
        if RESULTS_FILE in files or "log.txt" in files or re.fullmatch(r"seed\d+", osp.basename(folder)):
            try:
                runs.append(run_of(folder))
            except BrokenRun as reason:
                left_out.append((folder, str(reason)))
    return runs, left_out


def check_single(run, other):
    """Stop if there is another run of the same settings, shots and seed: it is not known which one counts."""
    if other is not None:
        but = "" if run.test == other.test else ", but tested on other images"
        sys.exit(f"error: {other.path} and {run.path} are both {run}, with the same settings{but}: "
                 "move one of them away")


class Row:
    """The runs of one experiment on the same test images.

    Attributes:
        name: the method, with the settings that differ if the table has several rows of it.
        settings, weights, test: those of its runs.
        runs: {shots: {seed: Run}}; shots is None for zero-shot.
    """

    def __init__(self, run, test):
        self.method = self.name = run.method
        self.place, self.settings, self.weights, self.test, self.runs = run.place, run.settings, run.weights, test, {}

    @property
    def zero_shot(self):
        return None in self.runs

    def add(self, run):
        seeds = self.runs.setdefault(run.shots, {})
        check_single(run, seeds.get(run.seed))
        seeds[run.seed] = run

    def at(self, shots):
        """{seed: Run} of these shots; zero-shot has the same for all."""
        return self.runs.get(None) or self.runs.get(shots, {})

    def all_runs(self):
        return [run for seeds in self.runs.values() for run in seeds.values()]

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
    """Rows of the same dataset, backbone, tasks and numbers of test images.

    Attributes:
        tasks: ((name, number of test images), ...). shots: the numbers that occur, ascending.
    """

    dataset: str
    backbone: str
    tasks: tuple
    rows: list
    shots: list

    @property
    def title(self):
        tasks = f"{len(self.tasks)} tasks" if len(self.tasks) > 1 else self.tasks[0][0]
        return f"{self.dataset} ({tasks}, {sum(total for _, total in self.tasks):,} test images), {self.backbone}"


def make_tables(runs):
    """The tables of `runs`, ordered by dataset, backbone and tasks."""
    rows = defaultdict(dict)
    for run in runs:
        found = rows[run.dataset, run.backbone, run.tasks]
        found.setdefault((run.experiment, run.test), Row(run, run.test)).add(run)
    tables = []
    for (dataset, backbone, tasks), found in sorted(rows.items(), key=lambda item: item[0]):
        ordered = name_rows(found.values())
        shots = sorted({n for row in ordered for n in row.runs if n is not None})
        tables.append(Table(dataset, backbone, tasks, ordered, shots))
    return tables


def name_rows(rows):
    """The rows of a table, ordered by method and with distinct names.

    A name is the method and the settings in which its rows differ. If weights or test images differ anywhere in the
    table, all names have the first digits of their digests: such rows can't be compared directly.
    """
    rows = sorted(rows, key=lambda row: (row.place, row.method))
    for row in rows:
        same = [other.settings for other in rows if other.method == row.method]
        differ = sorted(key for key in set().union(*same) if len({settings.get(key) for settings in same}) > 1)
        short = [key.rsplit(".", 1)[-1] for key in differ]
        texts = [f"{name if short.count(name) == 1 else key}={row.settings.get(key, 'unset')}"
                 for key, name in zip(differ, short)]
        for key in ("weights", "test"):
            if len({getattr(other, key) for other in rows}) > 1:
                texts.append(f"{key}=" + "+".join(digest[:8] for digest in getattr(row, key).split("+")))
        row.name += f" [{', '.join(texts)}]" if texts else ""
    return rows
