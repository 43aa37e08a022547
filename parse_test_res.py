"""Accuracy tables from run folders.

    python parse_test_res.py DIR [--multi-exp | --side-by-side] [--test-log] [--keyword K] [--ci95] [--format F]
    python parse_test_res.py --table DIR [--chart FILE]
    python parse_test_res.py --paper SUITE DIR
    python parse_test_res.py --base2new DIR
    python parse_test_res.py --compare RUN_A RUN_B [--output FILE]

Without the options of the last four lines, `DIR` holds the runs of one experiment (`seed1`, `seed2`, ...), each with a
`log.txt`; or is itself a run. The figures are read from the logs: of a run that trained, those after
`Finished training`; `--test-log` takes the last result whatever stands before it. `--table`, `--paper` and `--base2new`
read the `results.json` of all runs anywhere below `DIR`, `--compare` the `predictions.csv` of two runs.
"""

import argparse
import os
import os.path as osp
import sys

import numpy as np

from common.program import program
from runs import paper
from runs.compare import show_comparison
from runs.experiments import find_runs
from runs.logs import Experiment, find_experiments, list_experiments
from runs.show import draw_bars, show, spread
from runs.tables import show_base2new, show_paper, show_tables


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
        draw_bars(bars, args.chart)


def parse_args(argv):
    parser = argparse.ArgumentParser(description="Accuracy tables from run folders.")
    parser.add_argument("dir", nargs="?", help="folder of an experiment, or of several")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--multi-exp", action="store_true", help="DIR holds experiments: a table for each, and the mean")
    mode.add_argument("--side-by-side", action="store_true", help="one table of all experiments anywhere below DIR")
    mode.add_argument("--table", action="store_true", help="methods against shots, of all runs below DIR")
    mode.add_argument("--paper", metavar="SUITE",
                      help="ours beside the published accuracies of " + ", ".join(paper.SUITES))
    mode.add_argument("--base2new", action="store_true", help="base, new and harmonic mean, of all such runs below DIR")
    mode.add_argument("--compare", nargs=2, metavar=("RUN_A", "RUN_B"),
                      help="McNemar's test of two runs on the same test images, from their predictions.csv")
    parser.add_argument("--output", help="with --compare: write the images on which the runs differ to this .csv file")
    parser.add_argument("--test-log", action="store_true",
                        help="take the last result of a log, whether or not the run finished training")
    parser.add_argument("--keyword", help="metric to gather (default: overall_metric, or accuracy)")
    parser.add_argument("--ci95", action="store_true", help="95%% confidence interval instead of standard deviation")
    parser.add_argument("--format", default="plain", choices=["plain", "github", "latex", "csv"])
    parser.add_argument("--chart", help="with --side-by-side or --table: draw a chart into this .png or .svg file")
    args = parser.parse_args(argv)
    if args.compare and (args.dir or args.ci95 or args.test_log or args.keyword):
        parser.error("--compare takes two runs, --format and --output, nothing else")
    if not args.compare and not args.dir:
        parser.error("give the folder of an experiment, or of several")
    if args.output and not (args.compare and args.output.endswith(".csv")):
        parser.error("--output needs --compare, and a file that ends in .csv")
    if args.output and osp.isdir(args.output):
        parser.error(f"--output {args.output} is a folder: give the name of the file to write")
    args.reads_results = args.table or args.paper is not None or args.base2new
    if args.reads_results and (args.test_log or args.keyword):
        parser.error("--test-log and --keyword are for logs, but --table, --paper and --base2new read results.json")
    if args.paper is not None and not paper.find_suite(args.paper):
        parser.error(f"--paper {args.paper}: accuracies are published of {', '.join(paper.SUITES)}")
    if args.chart and not (args.side_by_side or args.table):
        parser.error("--chart needs --side-by-side or --table")
    if args.chart and osp.splitext(args.chart)[1] not in (".png", ".svg"):
        parser.error(f"--chart {args.chart}: the file must end in .png or .svg")
    return args


def list_left_out(runs):
    """Say which runs, [(folder, reason)], are not counted."""
    if runs:
        print("Left out:", *(f"  {path}: {reason}" for path, reason in runs), sep="\n", file=sys.stderr)


def main_results(args):
    """The modes that read `results.json`."""
    runs, left_out = find_runs(args.dir)
    if args.table:
        shown = show_tables(runs, left_out, args)
    elif args.paper is not None:
        shown = show_paper(paper.find_suite(args.paper), runs, left_out, args)
    else:
        shown = show_base2new(runs, left_out, args)
    list_left_out(left_out)
    if not shown:
        sys.exit(f"error: {args.dir} holds no finished run for this table")


def main_logs(args):
    """The modes that read logs."""
    if args.side_by_side:
        folders = find_experiments(args.dir)
    else:
        folders = list_experiments(args.dir) if args.multi_exp else [args.dir]
    experiments = [Experiment(folder, args.test_log, args.keyword) for folder in folders]
    list_left_out([run for experiment in experiments for run in experiment.broken])
    experiments = [experiment for experiment in experiments if experiment.runs]
    if not experiments:
        deeper = not args.multi_exp and find_experiments(args.dir)
        sys.exit(f"error: {args.dir} holds no finished run"
                 + (" itself; --multi-exp or --table reads the experiments below it" if deeper else ""))
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


def main(argv=None):
    with program():
        args = parse_args(argv)
        for folder in args.compare or [args.dir]:
            if not osp.isdir(folder):
                sys.exit(f"error: the folder {folder} does not exist")
        if args.compare:
            show_comparison(*args.compare, args.format, args.output)
            return
        (main_results if args.reads_results else main_logs)(args)


if __name__ == "__main__":
    main()
