"""Compares methods on a folder of images, and exports the best one; `fit.py` is its command."""

import contextlib
import io
import math
import os.path as osp
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from tabulate import tabulate

from common.errors import UserError
from common.program import sentence
from dassl.data.transforms import build_transform
from features.images import Images
from runs.config import build_parser, find_trainer, setup_cfg
from runs.methods import ROWS
from runs.outcome import read_metrics, read_predictions
from runs.results import read_results
from sweeps.jobs import list_jobs
from sweeps.warm import make_features

from .exporting import export
from .reporting import write_report

# Of all runs: few views, so that features are soon made; probabilities that mean something; what the report reads.
SETTINGS = {"DATALOADER.VIEWS": 4, "DATASET.SKIP_BROKEN": True, "TEST.CALIBRATE": True, "TEST.SAVE_PREDICTIONS": True}
SURE = 0.9  # a wrong prediction with this probability needs a look
SAMPLE = 48  # images whose encoding is timed


def fit(args):
    """Do what `fit.py` was asked for; returns [(folder, sentence)] of the runs that failed.

    Raises:
        UserError: images or settings that no run can have, or no method has a result.
    """
    out = Path(args.output).resolve()
    methods = args.methods or [row.label for row in sorted(ROWS.values(), key=lambda row: row.order) if row.quick]
    opts = {"MODEL.BACKBONE.NAME": args.backbone, "DATASET.SPLIT_DIR": out / "splits", **SETTINGS}
    jobs = list_jobs(SimpleNamespace(
        dataset="folder_tasks", cfg="rn50_ep50", root=osp.abspath(args.images), output=str(out / "runs"), seeds=["1"],
        shots=[str(args.shots)], methods=methods, opts=[*map(str, sum(opts.items(), ())), *args.opts]))
    tasks = prepare(jobs)
    failed = compare(jobs)
    runs = [(job.label, job.folder, read_results(job.folder)) for job in jobs if job.folder not in dict(failed)]
    if not runs:
        raise UserError(f"no method has a result: {failed[0][1]}")
    label, folder, results = choose(runs)
    with contextlib.redirect_stdout(io.StringIO()):
        write_report(str(out), str(out / "report.html"), 600)
    print(*verdict(runs, label, folder, results, tasks), sep="\n")
    print(f"The report is {out / 'report.html'}, the chosen run {out / 'best'}.", deliver(folder, out), sep="\n")
    return failed


def deliver(folder, out):
    """Link the chosen run as `best` and export it as `classifier`, both in `out`; returns a sentence."""
    (out / "best").unlink(missing_ok=True)
    (out / "best").symlink_to(osp.relpath(folder, out))
    if (out / "classifier" / "classifier.onnx").is_file():  # of an earlier call
        shutil.rmtree(out / "classifier")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            export(folder, out / "classifier")
    except UserError as error:
        return f"{sentence(error)}. Use it by `python predict.py {out / 'best'} IMAGE ...`."
    return f"The classifier is in {out / 'classifier'}; its README.md says how to use it."


def prepare(jobs):
    """Make the image features that all runs need, and say how long it takes; returns the tasks."""
    with contextlib.redirect_stdout(io.StringIO()):
        cfg = setup_cfg(build_parser().parse_args(jobs[0].calls[0]))
        trainer = find_trainer(cfg)(cfg)
        data = trainer.dataset
        sample = Images(cfg, data.test[:SAMPLE], build_transform(cfg, is_train=False))
        began = time.monotonic()
        trainer.encode(sample)
        seconds = (time.monotonic() - began) / len(sample)
    parts = [len(part or ()) for part in (data.train_x, data.val, data.test)]
    n = (1 + SETTINGS["DATALOADER.VIEWS"]) * parts[0] + parts[1] + parts[2]
    print(f"{len(trainer.tasks)} tasks, {data.num_classes:,} classes; images: {parts[0]:,} for training, {parts[1]:,} "
          f"for validation, {parts[2]:,} for testing", file=sys.stderr)
    print(f"Encoding them takes {minutes(n * seconds)} where nothing is kept of an earlier call; then {len(jobs)} "
          "methods are trained", file=sys.stderr)
    undone = [job.calls[0] for job in jobs if job.group and job.state != "finished"]
    with contextlib.redirect_stdout(io.StringIO()):
        make_features(undone)
    return trainer.tasks


def compare(jobs):
    """Do the runs on this machine; returns [(folder, sentence)] of those that failed."""
    from sweeps.cluster import Cluster  # Ray is slow to import
    from sweeps.engine import Sweep

    with Cluster("local", torch.get_num_threads()) as cluster:
        return Sweep(jobs, [], cluster).work()


def choose(runs):
    """The run, (label, folder, results), that is best on the validation images; of equal ones the first."""
    return max(runs, key=lambda run: run[2]["validation"]["overall_metric"])


def standard_error(tasks):
    """The standard error of the mean accuracy of `tasks` (see `ClassificationMT`), in percent."""
    return math.sqrt(sum(task["metric"] * (100 - task["metric"]) / task["total"] for task in tasks)) / len(tasks)


def verdict(runs, label, folder, results, tasks):
    """What a person needs to know, as lines; the arguments are those of the chosen run, and all `runs`."""
    rows = [[name, found["validation"]["overall_metric"], found["overall_metric"], error_of(path)]
            for name, path, found in sorted(runs, key=lambda run: -run[2]["validation"]["overall_metric"])]
    lines = tabulate(rows, ["method", "validation", "test", "calibration error"], floatfmt=".1f").splitlines()
    validation, tested = results["validation"]["tasks"], results["tasks"]
    chance = sum(100 / len(task.classnames) for task in tasks) / len(tasks)
    level = [name for name, _, found in runs if name != label and found["validation"]["overall_metric"]
             >= results["validation"]["overall_metric"] - standard_error(validation)]
    figures = read_metrics(folder)
    task = min(figures, key=lambda task: task["accuracy"])
    rate, name = min((found["accuracy"], f"{own['name']}/{found['name']}") for own in figures
                     for found in own["classes"] if found["total"])
    sure = [found for found in read_predictions(folder) if not found.right and found.probability >= SURE]
    return [*lines, "", f"Chosen by {sum(task['total'] for task in validation):,} validation images: {label}, "
            f"{results['overall_metric']:.1f}% of the test images (+- {standard_error(tested):.1f}); chance is "
            f"{chance:.1f}%." + f" On the validation images {', '.join(level)} are as good." * bool(level),
            f"The hardest task is {task['name']} ({task['accuracy']:.1f}%), the hardest class {name} ({rate:.1f}%).",
            f"{len(sure)} test images need a look: they are wrong with a probability of {SURE:.0%} or more."]


def error_of(folder):
    """The mean calibration error of a run's tasks, in percent."""
    tasks = read_metrics(folder)
    return sum(task["expected_calibration_error"] for task in tasks) / len(tasks)


def minutes(seconds):
    """A time as a person says it."""
    return f"about {round(seconds)} seconds" if seconds < 90 else f"about {round(seconds / 60)} minutes"
