"""Accuracy tables from run folders.

    python parse_test_res.py DIR [--multi-exp | --side-by-side] [--test-log] [--keyword K] [--ci95] [--format F]

`DIR` holds the runs of one experiment (`seed1`, `seed2`, ...), each with a `log.txt`; or is itself a run. The
figures are read from the logs, after `Finished training` or, with `--test-log`, from `--eval-only` runs.
"""

import argparse
import csv
import io
import os
import os.path as osp
import re
import sys

import numpy as np
from tabulate import tabulate

END_OF_TRAINING, START_OF_RESULT = "Finished training", "=> result"
METRIC = re.compile(r"^\* ([^:\t]+): (\d+(?:\.\d+)?)%$")
TASK = re.compile(r"^\* task: (\d+) \((.*)\)\ttotal: ([\d,]+)\tmetric: (\d+(?:\.\d+)?)%$")


class BrokenRun(Exception):
    """Why a run can't be counted."""


def result_blocks(lines, trained):
    """Lines of each result; of a run that `trained`, only those between an end of training and a next epoch.

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
        test_log: read a test alone; None: whatever the run was, so only one that trained has to be finished.

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
    trained = any(line.startswith("epoch [") for line in lines)
    needs_end = test_log is False or (test_log is None and trained)
    if needs_end and END_OF_TRAINING not in lines:
        raise BrokenRun(f"unfinished: its log has no line '{END_OF_TRAINING}' (--test-log reads tests alone)")
    results = [result for block in result_blocks(lines, needs_end) if (result := parse_result(block))]
    if not results:
        raise BrokenRun("unfinished: its log has no complete result")
    return results[-1]


def spread(values, ci95=False):
    """Mean, and standard deviation over the runs or the half width of the 95% confidence interval (as CoOp's)."""
    std = float(np.std(values))
    return float(np.mean(values)), 1.96 * std / np.sqrt(len(values)) if ci95 else std


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
    """Folders below `root` whose runs have logs: those of `seed*` folders, and runs that stand alone."""
    found = set()
    for folder, names, files in os.walk(root):
        names.sort()
        if "log.txt" in files:
            found.add(osp.dirname(folder) if osp.basename(folder).startswith("seed") else folder)
    return sorted(found)


def show(rows, headers, style):
    """Print a table; numbers are formatted already."""
    if style == "csv":
        text = io.StringIO()
        csv.writer(text).writerows([headers, *rows])
        print(text.getvalue(), end="")
    else:
        print(tabulate(rows, headers=headers, tablefmt=style, disable_numparse=True,
                       colalign=["left"] + ["right"] * (len(headers) - 1)) + "\n")


def summary(experiment, ci95):
    """Rows (name, total, mean, width) of the tasks, then of the metric, of one experiment."""
    tasks = [[f"{i} {name}", f"{total:,}", *(f"{x:.2f}" for x in spread(percents, ci95))]
             for i, (name, total, percents) in enumerate(experiment.tasks)]
    return [*tasks, [experiment.metric, "", *(f"{x:.2f}" for x in spread(experiment.values, ci95))]]


def show_experiment(experiment, args):
    """The runs, then the tasks, then the mean of one experiment."""
    print(f"===\n{experiment.folder}")
    show([[run, f"{value:.2f}"] for run, value in zip(experiment.runs, experiment.values)],
         ["run", f"{experiment.metric} (%)"], args.format)
    rows = summary(experiment, args.ci95)
    show(rows, ["task", "total", "metric (%)", "ci95" if args.ci95 else "std"], args.format)
    print(f"* {experiment.metric}: {rows[-1][2]}% +- {rows[-1][3]}% ({len(experiment.runs)} runs)\n===\n")


def show_csv(experiments, args):
    """The summaries in one csv table; with --multi-exp its first column names the experiment."""
    headers = ["task", "total", "metric (%)", "ci95" if args.ci95 else "std"]
    rows = [(experiment, row) for experiment in experiments for row in summary(experiment, args.ci95)]
    if args.multi_exp:
        show([[osp.relpath(e.folder, args.dir), *row] for e, row in rows], ["experiment", *headers], "csv")
    else:
        show([row for _, row in rows], headers, "csv")


def short_names(paths):
    """Paths without the parts that all have in common."""
    parts = [path.split(os.sep) for path in paths]
    depth = max(map(len, parts))
    padded = [p + [""] * (depth - len(p)) for p in parts]
    differs = [len({p[i] for p in padded}) > 1 for i in range(depth)]
    return [os.sep.join(part for part, keep in zip(p, differs) if keep and part) or path
            for p, path in zip(padded, paths)]


def show_side_by_side(experiments, args):
    """One table: a row per experiment, a column per task, then mean, spread and number of runs."""
    names = short_names([osp.relpath(e.folder, args.dir) for e in experiments])
    columns = list(dict.fromkeys(task[0] for e in experiments for task in e.tasks))
    rows, bars = [], []
    for name, experiment in zip(names, experiments):
        per_task = {task: f"{np.mean(percents):.2f}" for task, _, percents in experiment.tasks}
        mean, width = spread(experiment.values, args.ci95)
        rows.append([name, *(per_task.get(task, "") for task in columns), f"{mean:.2f}", f"{width:.2f}",
                     str(len(experiment.runs))])
        bars.append((name, mean, width))
    show(rows, ["experiment", *columns, "average", "ci95" if args.ci95 else "std", "runs"], args.format)
    if args.chart:
        draw(bars, args.chart)


def draw(bars, path):
    """Bar chart of (name, mean, width) as PNG or SVG, written atomically."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names, means, widths = zip(*bars)
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.55 * len(bars)))
    drawn = axes.barh(names, means, xerr=widths, color="#5b8db8", ecolor="#333333", capsize=3)
    axes.bar_label(drawn, labels=[f"{mean:.1f}" for mean in means], padding=6)
    axes.invert_yaxis()
    axes.set(xlabel="average accuracy (%)", xlim=(0, min(100, max(means) * 1.15 + 3)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    root, ending = osp.splitext(path)
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    temporary = f"{root}.{os.getpid()}.part{ending}"
    figure.savefig(temporary, dpi=150)
    plt.close(figure)
    os.replace(temporary, path)


def parse_args(argv):
    parser = argparse.ArgumentParser(description="Accuracy tables from run folders.")
    parser.add_argument("dir", help="folder of an experiment, or of several")
    parser.add_argument("--multi-exp", action="store_true", help="DIR holds experiments: a table for each, and the mean")
    parser.add_argument("--side-by-side", action="store_true", help="one table of all experiments anywhere below DIR")
    parser.add_argument("--test-log", action="store_true", help="read logs of --eval-only runs")
    parser.add_argument("--keyword", help="metric to gather (default: overall_metric, or accuracy)")
    parser.add_argument("--ci95", action="store_true", help="95%% confidence interval instead of standard deviation")
    parser.add_argument("--format", default="plain", choices=["plain", "github", "latex", "csv"])
    parser.add_argument("--chart", help="with --side-by-side: write a bar chart to this .png or .svg file")
    args = parser.parse_args(argv)
    if args.chart and not args.side_by_side:
        parser.error("--chart needs --side-by-side")
    if args.chart and osp.splitext(args.chart)[1] not in (".png", ".svg"):
        parser.error(f"--chart {args.chart}: the file must end in .png or .svg")
    return args


def main(argv=None):
    args = parse_args(argv)
    if not osp.isdir(args.dir):
        sys.exit(f"error: the folder {args.dir} does not exist")
    if args.side_by_side:
        folders = find_experiments(args.dir)
    else:
        folders = [path for _, path in run_folders(args.dir)] if args.multi_exp else [args.dir]
    # Side by side, zero-shot and trained runs stand together.
    test_log = True if args.test_log else None if args.side_by_side else False
    experiments = [Experiment(folder, test_log, args.keyword) for folder in folders]
    broken = [run for experiment in experiments for run in experiment.broken]
    if broken:
        print("Left out:", *(f"  {path}: {reason}" for path, reason in broken), sep="\n", file=sys.stderr)
    experiments = [experiment for experiment in experiments if experiment.runs]
    if not experiments:
        sys.exit(f"error: {args.dir} holds no finished run")
    if args.side_by_side:
        show_side_by_side(experiments, args)
        return
    if args.format == "csv":
        show_csv(experiments, args)
        return
    for experiment in experiments:
        show_experiment(experiment, args)
    if args.multi_exp:
        mean = np.mean([np.mean(experiment.values) for experiment in experiments])
        print(f"Mean over {len(experiments)} experiments: {mean:.2f}%")


if __name__ == "__main__":
    main()
