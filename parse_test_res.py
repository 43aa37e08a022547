"""Accuracy tables from run folders.

    python parse_test_res.py DIR [--multi-exp | --side-by-side] [--test-log] [--keyword K] [--ci95] [--format F]
    python parse_test_res.py --table DIR [--chart FILE]
    python parse_test_res.py --paper SUITE DIR
    python parse_test_res.py --base2new DIR
    python parse_test_res.py --compare RUN_A RUN_B [--output FILE]

The first line reads logs. `DIR` is a run with a `log.txt`, or holds the runs of one experiment (`seed1`, `seed2`, ...);
with `--multi-exp` and `--side-by-side` the experiments may lie anywhere below it. If a run trained, its results count
after `Finished training`; with `--test-log` the last result counts. `--table`, `--paper` and `--base2new` read the
`results.json` of all runs anywhere below `DIR`, `--compare` the `predictions.csv` of two runs.
"""

import argparse
import itertools
import os
import os.path as osp
import sys

import numpy as np

from common.program import program
from runs import paper
from runs.compare import show_comparison
from runs.experiments import find_runs
from runs.logs import Experiment, find_experiments
from runs.show import draw_bars, file_name, show, spread
from runs.tables import show_base2new, show_paper, show_tables


def summary(experiment, ci95):
    """Rows (name, number of images, mean, spread), as texts, of the tasks and then of the metric of an experiment."""
    rows = [(f"{i} {name}", f"{total:,}", percents) for i, (name, total, percents) in enumerate(experiment.tasks)]
    return [[name, total, *(f"{x:.2f}" for x in spread(values, ci95))]
            for name, total, values in (*rows, (experiment.metric, "", experiment.values))]


def show_experiments(experiments, args):
    """Print a table of the tasks and the mean for each experiment, or one csv table of them all."""
    headers = ["task", "total", "metric (%)", "ci95" if args.ci95 else "std"]
    tables = [(experiment, summary(experiment, args.ci95)) for experiment in experiments]
    if args.format == "csv" and args.multi_exp:
        show([[osp.relpath(experiment.folder, args.dir), *row] for experiment, rows in tables for row in rows],
             ["experiment", *headers], "csv")
        return
    for experiment, rows in tables:
        if args.format == "csv":
            show(rows, headers, "csv")
            continue
        print(f"===\n{experiment.folder}")
        show([[run, f"{value:.2f}"] for run, value in zip(experiment.runs, experiment.values)],
             ["run", f"{experiment.metric} (%)"], args.format)
        show(rows, headers, args.format)
        print(f"* {experiment.metric}: {rows[-1][2]}% +- {rows[-1][3]}% ({len(experiment.runs)} runs)\n===\n")
    if args.multi_exp:
        mean = np.mean([np.mean(experiment.values) for experiment in experiments])
        print(f"Mean over {len(experiments)} experiments: {mean:.2f}%")


def short_names(paths):
    """Paths without the parts that all have in common."""
    columns = [column for column in itertools.zip_longest(*(path.split(os.sep) for path in paths), fillvalue="")
               if len(set(column)) > 1]
    return [os.sep.join(filter(None, parts)) or path for path, parts in zip(paths, zip(*columns))] or paths


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
        draw_bars(bars, args.chart)


def parse_args(argv):
    parser = argparse.ArgumentParser(description="Accuracy tables from run folders.")
    parser.add_argument("dir", nargs="?", help="folder of an experiment, or of several")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--multi-exp", action="store_true", help="a table for each experiment below DIR, and the mean")
    mode.add_argument("--side-by-side", action="store_true", help="one table of all experiments anywhere below DIR")
    mode.add_argument("--table", action="store_true", help="methods against shots, of all runs below DIR")
    mode.add_argument("--paper", metavar="SUITE",
                      help="ours beside the published accuracies of " + ", ".join(paper.SUITES))
    mode.add_argument("--base2new", action="store_true", help="base, new and harmonic mean, of all such runs below DIR")
    mode.add_argument("--compare", nargs=2, metavar=("RUN_A", "RUN_B"),
                      help="McNemar's test of two runs on the same test images, from their predictions.csv")
    parser.add_argument("--output", type=file_name(".csv"), help="with --compare: list the images that differ there")
    parser.add_argument("--test-log", action="store_true",
                        help="take the last result of a log, whether or not the run finished training")
    parser.add_argument("--keyword", help="metric to gather (default: overall_metric, or accuracy)")
    parser.add_argument("--ci95", action="store_true", help="95%% confidence interval instead of standard deviation")
    parser.add_argument("--format", default="plain", choices=["plain", "github", "latex", "csv"])
    parser.add_argument("--chart", type=file_name(".png", ".svg"), help="with --side-by-side or --table: draw a chart")
    args = parser.parse_args(argv)
    if args.compare and (args.dir or args.ci95 or args.test_log or args.keyword):
        parser.error("--compare takes two runs, --format and --output, nothing else")
    if not args.compare and not args.dir:
        parser.error("give the folder of an experiment, or of several")
    if args.output and not args.compare:
        parser.error("--output needs --compare")
    args.reads_results = args.table or args.paper is not None or args.base2new
    if args.reads_results and (args.test_log or args.keyword):
        parser.error("--test-log and --keyword are for logs, but --table, --paper and --base2new read results.json")
    if args.paper is not None and not paper.find_suite(args.paper):
        parser.error(f"--paper {args.paper}: accuracies are published of {', '.join(paper.SUITES)}")
    if args.chart and not (args.side_by_side or args.table):
        parser.error("--chart needs --side-by-side or --table")
    return args


def list_left_out(runs):
    """Say which runs, [(folder, reason)], are not counted."""
    if runs:
        print("Left out:", *(f"  {path}: {reason}" for path, reason in runs), sep="\n", file=sys.stderr)


def show_results(args):
    """Print the tables that are made of `results.json`."""
    runs, left_out = find_runs(args.dir)
    if args.table:
        found = show_tables(runs, left_out, args)
    elif args.paper is not None:
        found = show_paper(paper.find_suite(args.paper), runs, left_out, args)
    else:
        found = show_base2new(runs, left_out, args)
    list_left_out(left_out)
    if not found:
        sys.exit(f"error: {args.dir} holds no finished run for this table")


def show_logs(args):
    """Print the tables that are made of logs."""
    below = find_experiments(args.dir)
    experiments = [Experiment(folder, args.test_log, args.keyword)
                   for folder in (below if args.side_by_side or args.multi_exp else [args.dir])]
    list_left_out([run for experiment in experiments for run in experiment.broken])
    experiments = [experiment for experiment in experiments if experiment.runs]
    if not experiments:
        deeper = below and not (args.side_by_side or args.multi_exp)
        sys.exit(f"error: {args.dir} holds no finished run"
                 + (" itself; --multi-exp or --table reads the experiments below it" if deeper else ""))
    (show_side_by_side if args.side_by_side else show_experiments)(experiments, args)


def main(argv=None):
    with program():
        args = parse_args(argv)
        for folder in args.compare or [args.dir]:
            if not osp.isdir(folder):
                sys.exit(f"error: the folder {folder} does not exist")
        if args.compare:
            show_comparison(*args.compare, args.format, args.output)
        else:
            (show_results if args.reads_results else show_logs)(args)


if __name__ == "__main__":
    main()
