"""Runs as their `results.json` tell them: what method a run is, and which runs are of one experiment."""

import json
import math
import os
import os.path as osp
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np

from .logs import BrokenRun
from .show import plural, spread_of_several

RESULTS_FILE = "results.json"
ZERO_SHOT = ("ZS-CLIP", "ZS-CLIP (ensemble)")
PER_TASK = (*ZERO_SHOT, "LP-CLIP")  # methods that may be run on one task of a suite after the other
N_TASKS = {"General10": 10, "Plant6": 6, "RS8": 8, "Fashion20": 20, "Shapes8": 8}
# The order of the rows; other trainers follow.
METHODS = (*ZERO_SHOT, "ProtoNet", "LP-CLIP", "CoOp-CA", "CoOp-CS", "CoOp-MT", "CoCoOp", "ProGrad", "KgCoOp", "PLOT",
           "SoftCPT-NATS", "SoftCPT-NATA", "SoftCPT-CATA", "SoftCPT-CSTA", "SoftCPT-CATS", "SoftCPT-CSTS")
# The node of a trainer's options under TRAINER, where it is not the trainer's name in capitals.
OPTIONS = {"MTCoOpHard": "MTCOOPH"}
# What tells apart the runs of one experiment, where things lie, and how fast they are read.
NO_SETTINGS = {
    "SEED", "OUTPUT_DIR", "RESUME", "VERBOSE", "DATASET.NAME", "DATASET.ROOT", "DATASET.SPLIT_DIR", "DATASET.NUM_SHOTS",
    "DATASET.SUBSAMPLE_CLASSES", "DATASET.SUBSAMPLE_TASKS", "DATALOADER.NUM_WORKERS", "DATALOADER.TEST.BATCH_SIZE",
    "DATALOADER.FEATURE_CACHE", "DATALOADER.FEATURE_CACHE_DIR", "DATALOADER.OLD_DATA_PATH", "DATALOADER.NEW_DATA_PATH",
    "MODEL.BACKBONE.NAME", "MODEL.CHECKPOINT_TEXT", "MODEL.COMPILE", "TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ",
    "USE_CUDA", "TEST.PER_TASK_RESULT", "TRAINER.COCOOP.MAX_PROMPTS"}
# Read by training with an optimizer only, which zero-shot and the linear probe do without.
STEPS = ("OPTIM.", "TRAIN.", "DATALOADER.TRAIN_X.", "INPUT.TRANSFORMS")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        shots, seed: None of zero-shot, which depends on neither.
        classes, which_tasks: `DATASET.SUBSAMPLE_CLASSES` (all, base, new) and `SUBSAMPLE_TASKS` (all, task<i> ...).
        tasks: ((name, number of test images), ...), percents: accuracy on each, metric: their mean.
        model_dir: the run whose model was tested with `--eval-only`, "" of one that trained or is zero-shot.
        seconds: of training. settings: {key: text} of what else its result depends on.
    """

    path: str
    method: str
    dataset: str
    backbone: str
    shots: int | None
    seed: int | None
    classes: str
    which_tasks: str
    tasks: tuple
    percents: tuple
    n_params: int
    model_dir: str
    seconds: float
    settings: dict = field(hash=False)

    @property
    def part(self):
        """i of a run on `task<i>` alone, else None."""
        match = re.fullmatch(r"task(\d+)", self.which_tasks)
        return int(match[1]) if match else None

    @property
    def metric(self):
        return float(np.mean(self.percents))

    @property
    def experiment(self):
        """What the runs of one experiment have in common, whatever their shots, seed, tasks and classes."""
        return self.method, self.dataset, self.backbone, tuple(sorted(self.settings.items()))

    def __str__(self):
        shots = "" if self.shots is None else f", {plural(self.shots)}, seed {self.seed}"
        return f"{self.method} on {self.dataset}{shots}"


def method_of(trainer, config):
    """The name of a method in the results tables, from the trainer and its options."""
    if trainer == "MTCoOpHard":
        options = config["TRAINER"]["MTCOOPH"]
        return "CoOp-CA" if options["TSC"] else "CoOp-CS" if options["CSC"] else "CoOp-MT"
    if trainer == "MTCoOp":
        options = config["TRAINER"]["MTCOOP"]
        classes = "NA" if not options["CSC"] else "CS" if options["CLASS_CSC"] else "CA"
        return f"SoftCPT-{classes}{'TS' if options['TASK_CSC'] else 'TA'}"
    return {"ZeroshotCLIP": ZERO_SHOT[0], "ZeroshotCLIP2": ZERO_SHOT[1]}.get(trainer, trainer)


def settings_of(trainer, method, config):
    """{key: text} of the config's values that a run's result depends on."""
    def flatten(node, prefix):
        for key, value in node.items():
            if isinstance(value, dict):
                yield from flatten(value, f"{prefix}{key}.")
            else:
                yield prefix + key, str(value)

    own = f"TRAINER.{OPTIONS.get(trainer, trainer.upper())}."
    without = STEPS if method in PER_TASK else ()
    return {key: value for key, value in flatten(config, "")
            if key not in NO_SETTINGS and not key.startswith(without)
            and (not key.startswith("TRAINER.") or key.startswith(own)) and not key.endswith(".PREC")}


def read_results(folder):
    """The `Run` that a folder's `results.json` describes.

    Raises:
        BrokenRun: no such file, or not one with all that the tables need.
    """
    try:
        with open(osp.join(folder, RESULTS_FILE), encoding="utf-8") as f:
            written = json.load(f)
    except FileNotFoundError:
        raise BrokenRun(f"unfinished: it has no {RESULTS_FILE} (the command that began it goes on with it)") from None
    except (ValueError, OSError) as error:
        raise BrokenRun(f"its {RESULTS_FILE} can't be read ({error})") from None
    try:
        config, trainer = written["config"], written["trainer"]
        method = method_of(trainer, config)
        zero_shot = method in ZERO_SHOT
        run = Run(
            path=folder, method=method, dataset=written["dataset"], backbone=written["backbone"],
            shots=None if zero_shot else int(written["shots"]), seed=None if zero_shot else int(written["seed"]),
            classes=config["DATASET"]["SUBSAMPLE_CLASSES"], which_tasks=config["DATASET"]["SUBSAMPLE_TASKS"],
            tasks=tuple((task["name"], int(task["total"])) for task in written["tasks"]),
            percents=tuple(float(task["metric"]) for task in written["tasks"]), n_params=int(written["n_params"]),
            model_dir=str(written["model_dir"]), seconds=float(written["train_seconds"]),
            # The device decides how PREC is computed.
            settings={**settings_of(trainer, method, config), "precision": written["precision"]})
    except KeyError as error:
        raise BrokenRun(f"its {RESULTS_FILE} has no {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BrokenRun(f"its {RESULTS_FILE} holds a value of the wrong type ({error})") from None
    if not run.tasks or not all(map(math.isfinite, run.percents)):
        raise BrokenRun(f"its {RESULTS_FILE} holds no accuracy per task")
    return run


def find_runs(root):
    """(runs, [(folder, why it is left out)]) of the run folders from `root` down, per-task runs joined to suites."""
    runs, left_out = [], []
    for folder, names, files in os.walk(root):
        names.sort()
        if RESULTS_FILE in files or "log.txt" in files or re.fullmatch(r"seed\d+", osp.basename(folder)):
            try:
                runs.append(read_results(folder))
            except BrokenRun as reason:
                left_out.append((folder, str(reason)))
    return join_tasks(runs, left_out), left_out


def join_tasks(runs, left_out):
    """Join runs of zero-shot and the linear probe on one task of a suite each to runs on the suite.

    Suites that lack a task are added to `left_out`, as are those of which there is a run on all tasks at once too.
    """
    joined, groups = [], defaultdict(dict)
    for run in runs:
        if run.part is None or run.method not in PER_TASK:
            joined.append(run)
            continue
        group = groups[run.experiment, run.classes, run.shots, run.seed]
        check_single(run, group.get(run.part))
        group[run.part] = run
    suites = {(run.dataset, run.tasks) for run in runs if run.which_tasks == "all"}
    at_once = {(run.experiment, run.classes, run.shots, run.seed) for run in joined if run.which_tasks == "all"}
    for key, group in sorted(groups.items(), key=lambda item: min(run.path for run in item[1].values())):
        first = next(iter(group.values()))
        folder = osp.commonpath([run.path for run in group.values()])
        n_tasks = count_tasks(first.dataset, group, suites)
        missing = sorted(set(range(n_tasks or 0)) - set(group))
        if key in at_once:
            left_out.append((folder, f"{first} was run on all tasks at once too"))
        elif n_tasks is None:
            left_out.append((folder, f"{first}: how many tasks there are is unknown, since no run on all of them at "
                                     "once is here"))
        elif missing or max(group) >= n_tasks:
            left_out.append((folder, f"{first}: of {n_tasks} tasks there is no run on {' '.join(map(str, missing))}"
                             if missing else f"{first}: there are runs on more than its {n_tasks} tasks"))
        else:
            parts = [group[i] for i in range(n_tasks)]
            joined.append(replace(
                first, path=folder, which_tasks="all", tasks=sum((run.tasks for run in parts), ()),
                percents=sum((run.percents for run in parts), ()), n_params=sum(run.n_params for run in parts),
                seconds=sum(run.seconds for run in parts)))
    return joined


def count_tasks(dataset, group, suites):
    """The number of tasks of a suite of which `group` {i: Run} has some, or None if it is not known.

    Args:
        suites: {(dataset, tasks)} of the runs on all tasks at once. Two folders of images are the same `dataset`, so
            the names of the tasks count too.
    """
    for name, tasks in sorted(suites):
        if name == dataset and all(i < len(tasks) and run.tasks[0][0] == tasks[i][0] for i, run in group.items()):
            return len(tasks)
    return N_TASKS.get(dataset)


def check_single(run, other):
    """Stop if there is another run of the same experiment, shots, seed and tasks: which one counts is not known."""
    if other is not None:
        sys.exit(f"error: {other.path} and {run.path} are both {run}, with the same settings: move one of them away")


class Row:
    """The runs of one experiment on the same tasks.

    Attributes:
        name: the method, with the settings that differ where the table has several rows of it.
        runs: {shots: {seed: Run}}, shots being None of zero-shot.
    """

    def __init__(self, method, settings):
        self.method = self.name = method
        self.settings, self.runs = settings, {}

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
        """(mean over the shots, its spread over the seeds), or None if one of `shots` is not there.

        Each seed's values are averaged over the shots first; the spread is None if the seeds are not the same ones, or
        a single one.
        """
        cells = [self.at(n) for n in shots]
        if not cells or not all(cells):
            return None
        if any(set(cell) != set(cells[0]) for cell in cells):
            return float(np.mean([np.mean([run.metric for run in cell.values()]) for cell in cells])), None
        return spread_of_several([np.mean([cell[seed].metric for cell in cells]) for seed in cells[0]], ci95)


@dataclass
class Table:
    """Rows that can be compared: the same dataset, backbone and test images.

    Attributes:
        tasks: ((name, number of test images), ...). shots: those that occur, ascending.
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
    """Tables of `runs`, in the order of datasets and backbones; rows in the order of METHODS."""
    rows = defaultdict(dict)
    for run in runs:
        row = rows[run.dataset, run.backbone, run.tasks].setdefault(run.experiment, Row(run.method, run.settings))
        row.add(run)
    tables = []
    for (dataset, backbone, tasks), found in sorted(rows.items(), key=lambda item: item[0]):
        ordered = sorted(found.values(),
                         key=lambda row: (method_order(row.method), min(run.path for run in row.all_runs())))
        name_rows(ordered)
        shots = sorted({n for row in ordered for n in row.runs if n is not None})
        tables.append(Table(dataset, backbone, tasks, ordered, shots))
    return tables


def method_order(method):
    return METHODS.index(method) if method in METHODS else len(METHODS), method


def name_rows(rows):
    """Add to the names of rows of one method the settings in which they differ."""
    for method in {row.method for row in rows}:
        same = [row for row in rows if row.method == method]
        keys = {key for row in same for key in row.settings}
        differ = sorted(key for key in keys if len({row.settings.get(key) for row in same}) > 1)
        short = [key.rsplit(".", 1)[-1] for key in differ]
        for row in same if differ else ():
            row.name += " [" + ", ".join(f"{name if short.count(name) == 1 else key}={row.settings.get(key, 'unset')}"
                                         for key, name in zip(differ, short)) + "]"
