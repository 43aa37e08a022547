"""The results tables: methods against shots, ours beside the paper's, and base-to-new."""

import os.path as osp
import sys
from collections import defaultdict

import numpy as np

from . import paper
from .experiments import Row, check_single, make_tables, name_rows, shots_of
from .show import best, cell, draw_bars, draw_shots, plural, show, spread_of_several


def show_tables(runs, left_out, args):
    """Print a table per dataset, tasks and backbone: rows are methods, columns are shots. `args.chart` draws each too.

    This and the other `show_...` add the runs that they can't use to `left_out`, and return False if no run is left.
    """
    tables = find_tables(runs, left_out)
    if args.format == "csv" and tables:
        show_csv(tables, args)
    for i, table in enumerate(tables, 1):
        if args.format != "csv":
            print(table.title)
            show_table(table, args)
        list_missing_seeds(table)
        if args.chart:
            root, ending = osp.splitext(args.chart)
            draw_table(table, args.chart if len(tables) == 1 else f"{root}-{i}{ending}")
    return bool(tables)


def find_tables(runs, left_out):
    """The tables of methods against shots. `left_out` gets the runs that belong to none."""
    runs = keep(runs, left_out, lambda run: run.classes == "all", "on half of the classes, for --base2new")
    return make_tables(keep(runs, left_out, lambda run: not run.model_dir,
                            "that test another run's model (--eval-only)"))


def keep(runs, left_out, wanted, reason):
    """The runs for which `wanted` is True; `left_out` gets one line about the others."""
    others = [run for run in runs if not wanted(run)]
    if others:
        left_out.append((osp.commonpath([run.path for run in others]),
                         f"{len(others)} run{'s' * (len(others) > 1)} {reason}"))
    return [run for run in runs if wanted(run)]


def accuracies(row, table, ci95):
    """Accuracies of a row: [(mean, width)] for the shots of the table, then for their average; None without a run."""
    cells = [spread_of_several([run.metric for run in row.at(n).values()], ci95) if row.at(n) else None
             for n in table.shots]
    return [*cells, row.average(table.shots or [None], ci95)]


def counts(row):
    """[number of learned values, minutes of training] of a row's runs, as texts."""
    params = sorted({run.n_params for run in row.all_runs})
    minutes = "" if row.zero_shot else f"{np.mean([run.seconds for run in row.all_runs]) / 60:.1f}"
    return [f"{params[0]:,}" + (f" to {params[-1]:,}" if len(params) > 1 else ""), minutes]


def show_table(table, args):
    values = [accuracies(row, table, args.ci95) for row in table.rows]
    rows = [[row.name, *counts(row), *("" if x is None else cell(*x) for x in cells)]
            for row, cells in zip(table.rows, values)]
    bold = {(i, 3 + j) for j, column in enumerate(zip(*values)) for i in best([x and x[0] for x in column])}
    show(rows, ["method", "#Params", "train (min)", *map(plural, table.shots), "average"], args.format, bold)


def show_csv(tables, args):
    """Print all tables as one, with a column for each mean and each width."""
    columns = [*shots_of(row for table in tables for row in table.rows), "average"]
    width = "ci95" if args.ci95 else "std"
    headers = ["dataset", "tasks", "backbone", "method", "n_params", "train_minutes"]
    for n in columns:
        name = n if n == "average" else plural(n)
        headers += [name, f"{name} {width}"]
    rows = []
    for table in tables:
        for row in table.rows:
            cells = dict(zip([*table.shots, "average"], accuracies(row, table, args.ci95)))
            params, minutes = counts(row)
            rows.append([table.dataset, str(len(table.tasks)), table.backbone, row.name, params.replace(",", ""),
                         minutes, *(text(x) for n in columns for x in cells.get(n) or (None, None))])
    show(rows, headers, "csv")


def text(value):
    """A number of a csv table; "" for None."""
    return "" if value is None else f"{value:.2f}"


def list_missing_seeds(table):
    """List the cells that lack seeds which other cells of the table have."""
    trained = [row for row in table.rows if not row.zero_shot]
    seeds = {run.seed for row in trained for run in row.all_runs} - {None}
    lines = [f"  {row.name}, {plural(n)}: seed {' '.join(map(str, sorted(seeds - set(row.at(n)))))}"
             for row in trained for n in sorted(row.runs) if seeds - set(row.at(n))]
    if lines:
        print(f"{table.title}: cells without some of the seeds", *lines, sep="\n", file=sys.stderr)


def draw_table(table, path):
    """Draw accuracy against shots, on average and per task, or bars if there is one number of shots."""
    if len(table.shots) < 2:
        draw_bars([(row.name, *row.average(table.shots or [None])) for row in table.rows], path)
    else:
        lines = []
        for row in table.rows:
            points = {n: np.mean([run.percents for run in seeds.values()], axis=0) for n, seeds in row.runs.items()}
            lines.append((row.name, {n: [*values, values.mean()] for n, values in points.items()}))
        draw_shots(lines, table.shots, [name for name, _ in table.tasks], table.title, path)
    print(f"The chart of {table.title} is {path}", file=sys.stderr)


def show_paper(suite, runs, left_out, args):
    """Print our mean over 1, 2, 4, 8 and 16 shots beside the published one of the suite, and the difference."""
    for wanted, reason in (
            (lambda run: run.dataset == suite, f"on other datasets than {suite}"),
            (lambda run: run.classes == "all", "on half of the classes"),
            (lambda run: not run.model_dir, "that test another run's model (--eval-only)"),
            (lambda run: run.which_tasks == "all", f"on a part of the tasks of {suite}"),
            (lambda run: run.method in paper.ACCURACY, "of methods without a published accuracy")):
        runs = keep(runs, left_out, wanted, reason)
    rows = [(table, row) for table in make_tables(runs) for row in table.rows]
    if not rows:
        return False
    lines = []
    for method, published in paper.ACCURACY.items():
        published = published[paper.SUITES.index(suite)]
        found = [(table, row) for table, row in rows if row.method == method]
        if not found:
            lines.append([method, "", f"{published:.2f}", "", "", "no run"])
        for table, row in found:
            missing = [n for n in paper.SHOTS if not row.at(n)]
            average = row.average(paper.SHOTS, args.ci95)
            seeds = sorted({run.seed for run in row.all_runs} - {None})
            notes = [f"no run with {', '.join(map(str, missing))} shots"] if missing else []
            if table.backbone != paper.BACKBONE:
                notes.append(f"backbone {table.backbone}, the paper's is {paper.BACKBONE}")
            ours, difference = (cell(*average), f"{average[0] - published:+.2f}") if average else ("", "")
            lines.append([row.name, ours, f"{published:.2f}", difference, " ".join(map(str, seeds)), "; ".join(notes)])
    if args.format != "csv":
        print(f"{suite}, mean over {', '.join(map(str, paper.SHOTS))} shots (%)")
    show(lines, ["method", "ours", "paper", "difference", "seeds", "note"], args.format)
    return True


class Pairs(Row):
    """The runs of one experiment on base and on new classes: `runs` is {shots: {seed: (base, new)}}."""

    def accuracies(self, shots, i, ci95):
        """(mean, width) on base and on new classes, and (harmonic mean of both means,); of task i, or on average."""
        base, new = (spread_of_several([run.metric if i is None else run.percents[i] for run in runs], ci95)
                     for runs in zip(*self.at(shots).values()))
        return base, new, (harmonic_mean(base[0], new[0]),)


def harmonic_mean(a, b):
    """2ab / (a + b); 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def pair_runs(runs, left_out):
    """{(dataset, backbone, base tasks, new tasks): {key: Pairs}}; `left_out` gets runs without a counterpart."""
    found = defaultdict(dict)
    for run in runs:
        pair = found[run.experiment, tuple(name for name, _ in run.tasks), run.shots, run.seed]
        check_single(run, pair.get(run.classes))
        pair[run.classes] = run
    tables = defaultdict(dict)
    for (experiment, _, shots, seed), pair in found.items():
        if len(pair) < 2:
            (classes, run), = pair.items()
            other = "new" if classes == "base" else "base"
            left_out.append((run.path, f"{run} is there for the {classes} classes, but not for the {other} ones"))
            continue
        base, new = pair["base"], pair["new"]
        if base.model != new.model:
            left_out.append((new.path, f"{new} tests another model, or another epoch of it, than {base.path} on base "
                             "classes"))
            continue
        rows = tables[base.dataset, base.backbone, base.tasks, new.tasks]
        suite, test = f"{base.suite}+{new.suite}", f"{base.test}+{new.test}"
        row = rows.setdefault((experiment, suite, test), Pairs(base, suite, test))
        row.runs.setdefault(shots, {})[seed] = base, new
    return tables


def show_base2new(runs, left_out, args):
    """Print accuracies on base and new classes and their harmonic mean H: on average, then per task.

    As in CoOp's successors, H of a task is that of its two accuracies, each a mean over the seeds, and H of the average
    is that of the two average accuracies, not the average of the tasks' H.
    """
    tables = pair_runs(keep(runs, left_out, lambda run: run.classes != "all", "on all classes"), left_out)
    csv_rows, width = [], "ci95" if args.ci95 else "std"
    for (dataset, backbone, tasks, _), found in sorted(tables.items(), key=lambda item: item[0]):
        ordered = name_rows(found.values())
        lines, bold = [], set()
        for i, task in [(None, "average"), *enumerate(name for name, _ in tasks)]:
            for shots in shots_of(ordered) or [None]:
                block = [(row.name, row.accuracies(shots, i, args.ci95)) for row in ordered if row.at(shots)]
                for j, column in enumerate(zip(*(cells for _, cells in block)), 3):
                    bold |= {(len(lines) + k, j) for k in best([mean for mean, *_ in column])}
                for name, cells in block:
                    start = [task, name, "" if shots is None else str(shots)]
                    csv_rows.append([dataset, backbone, *start, *(text(x) for values in cells for x in values)])
                    lines.append([*start, *(cell(*values) for values in cells)])
        if args.format != "csv":
            print(f"{dataset}, {len(tasks)} tasks, {backbone}; H: harmonic mean of base and new, of the average row "
                  "that of the average accuracies")
            show(lines, ["task", "method", "shots", "base", "new", "H"], args.format, bold, n_names=2)
    if args.format == "csv" and tables:
        show(csv_rows, ["dataset", "backbone", "task", "method", "shots", "base", f"base {width}", "new",
                        f"new {width}", "H"], "csv")
    return bool(tables)
