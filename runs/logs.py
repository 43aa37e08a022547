"""Experiments as read from the logs of their runs, also from published logs."""

import os
import os.path as osp
import re
import sys

END_OF_TRAINING, START_OF_RESULT = "Finished training", "=> result"
METRIC = re.compile(r"^\* ([^:\t]+): (\d+(?:\.\d+)?)%$")
TASK = re.compile(r"^\* task: (\d+) \((.*)\)\ttotal: ([\d,]+)\tmetric: (\d+(?:\.\d+)?)%$")


class BrokenRun(Exception):
    """A run can't be counted; the message says why."""


def result_blocks(lines, trained):
    """The lines of each result of a log; if the run `trained`, only of those from an end of training to a next epoch.

    A resumed run goes on in the same log, so epochs, with results on the validation set, may follow an end.
    """
    blocks, block, counts = [], None, not trained
    for line in lines:
        if trained and (line == END_OF_TRAINING or line.startswith("epoch [")):
            block, counts = None, line == END_OF_TRAINING
        elif line == START_OF_RESULT:
            block = [] if counts else None
            if counts:
                blocks.append(block)
        elif block is not None:
            block.append(line)
    return blocks


def parse_result(block):
    """(metrics, tasks) as `read_run` returns them, or None if the block breaks off."""
    metrics, tasks = {}, []
    for line in block:
        if line.startswith("=> per-class"):  # with averages of its own
            break
        if match := METRIC.match(line):
            metrics[match[1]] = float(match[2])
        elif match := TASK.match(line):
            tasks.append((match[2], int(match[3].replace(",", "")), float(match[4])))
    # The average is the last line of the tasks.
    per_task = tasks or any(line.startswith("=> per-task") for line in block)
    return (metrics, tasks) if metrics and ("average" in metrics or not per_task) else None


def read_run(folder, test_log=False):
    """Read the last complete result in a run's log.

    Args:
        test_log: count every result; else, of a run that trained, only those after the end of its training.

    Returns:
        ({metric: percent}, [(task name, number of test images, percent)]).

    Raises:
        BrokenRun: no log, unreadable, unfinished, or without a result.
    """
    path = osp.join(folder, "log.txt")
    try:
        with open(path, encoding="utf-8") as f:
            lines = f.read().splitlines()
    except FileNotFoundError:
        raise BrokenRun("it has no log.txt") from None
    except (UnicodeDecodeError, OSError) as error:
        raise BrokenRun(f"its log.txt can't be read ({error})") from None
    # The linear probe has no epochs, but says when it is trained.
    needs_end = not test_log and (END_OF_TRAINING in lines or any(line.startswith("epoch [") for line in lines))
    if needs_end and END_OF_TRAINING not in lines:
        raise BrokenRun(f"unfinished: its log has no line '{END_OF_TRAINING}' (--test-log counts it all the same)")
    results = [result for block in result_blocks(lines, needs_end) if (result := parse_result(block))]
    if not results:
        raise BrokenRun("unfinished: its log has no complete result")
    return results[-1]


class Experiment:
    """The finished runs of one folder.

    Attributes:
        runs: names of the runs. broken: [(folder, reason)] of the others.
        metric: name of the metric, values: its percent in each run.
        tasks: [(name, total, [percent in each run])].
    """

    def __init__(self, folder, test_log=False, keyword=None):
        self.folder, self.runs, self.values, self.broken, self.tasks = folder, [], [], [], []
        self.metric = keyword
        for name, path in run_folders(folder):
            try:
                metrics, tasks = read_run(path, test_log)
                self.metric = self.metric or next((k for k in ("overall_metric", "accuracy") if k in metrics), None)
                if self.metric not in metrics:
                    raise BrokenRun(f"its result has no {self.metric!r}, only {', '.join(metrics)}")
            except BrokenRun as reason:
                self.broken.append((path, str(reason)))
                continue
            if self.runs and [task[:2] for task in tasks] != [task[:2] for task in self.tasks]:
                sys.exit(f"error: {path} and {osp.join(folder, self.runs[0])} were tested on different tasks: they are "
                         "not runs of one experiment")
            if not self.runs:
                self.tasks = [(*task[:2], []) for task in tasks]
            self.runs.append(name)
            self.values.append(metrics[self.metric])
            for (_, _, percents), task in zip(self.tasks, tasks):
                percents.append(task[2])


def run_folders(folder):
    """(name, path) of the runs of an experiment: its sub-folders, or the folder itself if it has a log."""
    if osp.isfile(osp.join(folder, "log.txt")):
        return [(osp.basename(osp.normpath(folder)), folder)]
    return [(entry.name, entry.path) for entry in sorted(os.scandir(folder), key=lambda e: e.name)
            if entry.is_dir() and not entry.name.startswith(".")]


def find_experiments(root):
    """Folders from `root` down whose runs have logs: those of `seed*` folders, and runs that stand alone."""
    found = set()
    for folder, names, files in os.walk(root):
        names.sort()
        if "log.txt" in files:
            found.add(osp.dirname(folder) if osp.basename(folder).startswith("seed") else folder)
    return sorted(found)


def list_experiments(root):
    """The sub-folders of `root`, or the experiments in them if they lie further down (task0/1shots/seed1)."""
    folders = []
    for _, folder in run_folders(root):
        has_runs = any(osp.isfile(osp.join(path, "log.txt")) for _, path in run_folders(folder))
        folders += [folder] if has_runs else find_experiments(folder) or [folder]
    return folders
