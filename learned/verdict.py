"""What a table of runs says in words, and which of its methods differ by more than luck. PyTorch is not needed."""

import functools
import itertools
from collections import defaultdict

import numpy as np

from common.errors import MissingFile
from runs.compare import mcnemar, rights_of
from runs.outcome import distinct, read_metrics
from runs.show import plural

MOST_PAIRS = 1000  # limit for the pairs of cells that are compared


def chance_of(table):
    """The accuracy of guessing on each task of a `Table` in percent, or None if its runs do not say the classes."""
    suite = next((run.results["suite"] for row in table.rows for run in row.all_runs if "suite" in run.results), None)
    return suite and [100 / len(task["classes"]) for task in suite]


def most_shots(table):
    """The largest number of shots of a table; None if there is zero-shot alone."""
    return table.shots[-1] if table.shots else None


def rank(table):
    """The rows that have runs with the most shots, the best one first: [(row, mean accuracy in percent)]."""
    most = most_shots(table)
    found = [(row, float(np.mean([run.metric for run in row.at(most).values()]))) for row in table.rows if row.at(most)]
    return sorted(found, key=lambda pair: -pair[1])


def verdict(table, chance, tests):
    """Say which method is best with the most shots, by how much, and what is hardest for it.

    Args:
        chance: as `chance_of` returns it. tests: as `compare_rows` returns them.
    """
    ranked, most = rank(table), most_shots(table)
    (first, percent), *others = ranked
    words = [f"{first.name} {percent:.1f}% ({'zero-shot' if first.zero_shot else plural(most)})"]
    second = next((pair for pair in others if not pair[0].zero_shot), None)
    zero_shot = next((pair for pair in others if pair[0].zero_shot), None)
    words += [f"then {second[0].name} {second[1]:.1f}%"] if second else []
    words += [f"zero-shot {zero_shot[0].name} {zero_shot[1]:.1f}%"] if zero_shot else []
    words += [f"chance {np.mean(chance):.1f}%"] if chance else []
    parts = ["Best: " * (len(ranked) > 1) + ", ".join(words) + "."]
    if second:
        places = sorted(table.rows.index(row) for row in (first, second[0]))
        if test := tests.get(f"{places[0]} {places[1]} {max(0, len(table.shots) - 1)}"):
            p = test["tests"][-1][-1]
            means = "is hardly luck" if p < 0.05 else "may be luck"
            note = ", each image counted once for each seed" * (len(test["seeds"]) > 1)
            value = f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
            parts.append(f"Its lead over {second[0].name} {means} ({value}{note}).")
    hardest = hardest_of(table, list(first.at(most).values()))
    return " ".join([*parts, f"Hardest {'; hardest '.join(hardest)}." if hardest else ""]).strip()


def hardest_of(table, runs):
    """Which task and class have the lowest mean accuracy over `runs`: parts of a sentence.

    A single task is not named; nor is a class if the runs have no `metrics.json`.
    """
    names, percents = distinct(name for name, _ in table.tasks), np.mean([run.percents for run in runs], axis=0)
    t = int(percents.argmin())
    found, of_class = [f"task: {names[t]} ({percents[t]:.0f}%)"] * (len(names) > 1), defaultdict(list)
    try:
        for run in runs:
            for name, task in zip(names, read_metrics(run.path)):
                for figures in task["classes"]:
                    if figures["accuracy"] is not None:
                        of_class[f"{name}/{figures['name']}"].append(figures["accuracy"])
    except MissingFile:
        return found
    name, values = min(of_class.items(), key=lambda item: np.mean(item[1]))
    return [*found, f"class: {name} ({np.mean(values):.0f}%)"]


def compare_rows(table):
    """McNemar's tests of each two rows of a `Table` at each number of shots, over the seeds that both have.

    Zero-shot has all seeds. Each image counts once for each seed. A pair without `predictions.csv`, without a common
    seed or with other test images is left out. The most shots come first, as far as `MOST_PAIRS` reach.

    Returns:
        {"A B N", places in `table.rows` and `table.shots`: {"seeds": [seed], "tests": [[images that only A gets right,
        only B, p-value] for each task, then for all]}}.
    """
    place = {name: t for t, name in enumerate(distinct(name for name, _ in table.tasks))}
    rights, tasks, test, found = {}, {}, functools.cache(mcnemar), {}
    for run in (run for row in table.rows for run in row.all_runs):
        try:
            images, right = rights_of(run.path)
        except MissingFile:
            continue
        if images not in tasks:  # most runs have the same images, which are kept once
            tasks[images] = len(tasks), np.array([place[task] for _, task, _ in images])
        rights[run] = (*tasks[images], right)
    for n, shots in reversed([*enumerate(table.shots or [None])]):
        for (a, row_a), (b, row_b) in itertools.combinations(enumerate(table.rows), 2):
            pairs = {seed: (rights.get(run_a), rights.get(run_b))
                     for seed, run_a, run_b in with_common_seed(row_a.at(shots), row_b.at(shots))}
            pairs = {seed: (one, other) for seed, (one, other) in pairs.items()
                     if one and other and one[0] == other[0]}
            if not pairs or len(found) == MOST_PAIRS:
                continue
            only = np.zeros((2, len(place) + 1), dtype=np.int64)
            for (_, task_of, right_a), (*_, right_b) in pairs.values():
                for counts, which in zip(only, (right_a & ~right_b, right_b & ~right_a)):
                    counts[:-1] += np.bincount(task_of[which], minlength=len(place))
            only[:, -1] = only.sum(axis=1)
            found[f"{a} {b} {n}"] = {"seeds": [*pairs], "tests": [
                [one, other, float(f"{test(one, other):.3g}")] for one, other in only.T.tolist()]}
    return found


def with_common_seed(runs_a, runs_b):
    """[(seed, run, run)] of two {seed: Run}; the key None, zero-shot's, goes with each seed of the other."""
    seeds = [seed for seed in {**runs_a, **runs_b} if all(seed in runs or None in runs for runs in (runs_a, runs_b))]
    return [(seed, *(runs.get(seed) or runs[None] for runs in (runs_a, runs_b))) for seed in seeds]
