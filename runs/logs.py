"""Experiments, read from the logs of their runs, also from published logs."""

import os
import os.path as osp
import re
import sys

from common.errors import UserError

METRIC = re.compile(r"^\* ([^:\t\n]+): (\d+(?:\.\d+)?)%$", re.M)
TASK = re.compile(r"^\* task: \d+ \((.*)\)\ttotal: ([\d,]+)\tmetric: (\d+(?:\.\d+)?)%$", re.M)


def read_log(folder, test_log=False):
    """Read the last complete result in a run's log.

    Args:
        test_log: count every result; else a run that trained counts only results after the end of its training.

    Returns:
        ({metric: percent}, [(task name, number of test images, percent)]).

    Raises:
        UserError: the run has no log, is unfinished, or its log has no result.
    """
    path = osp.join(folder, "log.txt")
    if not osp.isfile(path):
        raise UserError("it has no log.txt")
    with open(path, encoding="utf-8", errors="replace") as f:
        parts = [f.read()]
    # The linear probe has no epochs, but its log says when it is trained.
    if not test_log and re.search(r"^(epoch \[|Finished training$)", parts[0], re.M):
        # A resumed run goes on in the same log: after an end of training, epochs with results on the validation set may
        # follow.
        parts = [re.split(r"^epoch \[", part, maxsplit=1, flags=re.M)[0]
                 for part in re.split("^Finished training$", parts[0], flags=re.M)[1:]]
        if not parts:
            raise UserError("unfinished: its log has no line 'Finished training' (--test-log counts it all the same)")
    for block in reversed([block for part in parts for block in re.split("^=> result$", part, flags=re.M)[1:]]):
        block = block.partition("\n=> per-class")[0]  # the results per class have averages of their own
        metrics = {name: float(percent) for name, percent in METRIC.findall(block)}
        tasks = [(name, int(total.replace(",", "")), float(percent)) for name, total, percent in TASK.findall(block)]
        # The average comes after the tasks: without it, the log breaks off.
        if metrics and ("average" in metrics or not tasks and "\n=> per-task" not in block):
            return metrics, tasks
    raise UserError("unfinished: its log has no complete result")


class Experiment:
    """The finished runs of one folder.

    Attributes:
        runs: names of the runs. broken: [(folder, reason)] of the others.
        metric: name of the metric, values: its percent in each run.
        tasks: [(name, total, [percent in each run])].
    """

    def __init__(self, folder, test_log=False, keyword=None):
        self.folder, self.metric = folder, keyword
        self.runs, self.values, self.broken, self.tasks = [], [], [], []
        for name, path in run_folders(folder):
            try:
                metrics, tasks = read_log(path, test_log)
                self.metric = self.metric or ("overall_metric" if "overall_metric" in metrics else "accuracy")
                if self.metric not in metrics:
                    raise UserError(f"its result has no {self.metric!r}, only {', '.join(metrics)}")
            except UserError as reason:
                self.broken.append((path, str(reason)))
                continue
            self.tasks = self.tasks if self.runs else [(*task[:2], []) for task in tasks]
            if [task[:2] for task in tasks] != [task[:2] for task in self.tasks]:
                sys.exit(f"error: {path} and {osp.join(folder, self.runs[0])} were tested on different tasks: they are "
                         "not runs of one experiment")
            self.runs.append(name)
            self.values.append(metrics[self.metric])
            for (_, _, percents), (_, _, percent) in zip(self.tasks, tasks):
                percents.append(percent)


def run_folders(folder):
    """(name, path) of the runs of an experiment: its sub-folders, or the folder itself if it has a log."""
    if osp.isfile(osp.join(folder, "log.txt")):
        return [(osp.basename(osp.normpath(folder)), folder)]
    return [(entry.name, entry.path) for entry in sorted(os.scandir(folder), key=lambda e: e.name)
            if entry.is_dir() and not entry.name.startswith(".")]


def find_experiments(root):
    """Folders from `root` down whose runs have logs: those of `seed*` folders, and runs that stand alone."""
    return sorted({osp.dirname(folder) if osp.basename(folder).startswith("seed") else folder
                   for folder, _, files in os.walk(root) if "log.txt" in files})
