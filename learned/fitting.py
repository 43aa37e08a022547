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
from common.files import read_json, write_json
from common.program import sentence
from dassl.data.transforms import build_transform
from datasets.splits import folds_of
from features.images import Images
from runs.config import build_parser, find_trainer, setup_cfg
from runs.methods import ROWS
from runs.outcome import read_metrics, read_predictions
from runs.results import read_results
from sweeps.jobs import list_jobs
from sweeps.warm import make_features

from .exporting import export
from .reporting import write_report

# All runs have few views, which are soon encoded, temperatures, and the predictions that the report shows.
SETTINGS = {"DATALOADER.VIEWS": 4, "DATASET.SKIP_BROKEN": True, "TEST.CALIBRATE": True, "TEST.SAVE_PREDICTIONS": True}
SURE = 0.9  # a wrong prediction with this probability needs a look
# Columns of the table; the last is what of the first is chance.
ERRORS = {"expected_calibration_error": "calibration error", "error_of_true_probabilities": "by chance"}
FEW, FOLDS = 100, 5  # with fewer validation images, so many folds of cross-validation choose


def fit(args):
    """Do what `fit.py` was asked for; returns [(folder, sentence)] of the runs that failed.

    Raises:
        UserError: images or settings that no run can have, or no method has a result.
    """
    out = Path(args.output).resolve()
    jobs = jobs_of(args, out)
    tasks, n_train, n_val = prepare(jobs)
    failed = compare(jobs)
    runs = {job.label: (job.folder, read_results(job.folder)) for job in jobs if job.folder not in dict(failed)}
    if not runs:
        raise UserError(f"no method has a result: {failed[0][1]}")
    scores = {label: results["validation"]["overall_metric"] for label, (_, results) in runs.items()}
    how, more = f"{n_val:,} validation images", 1
    if n_val < FEW:
        how, more = f"cross-validation in {FOLDS} folds, since there are only {how}", 1 + n_train / n_val
        scores = cross_validate(args, out, list(scores))
    label = choose(scores)
    with contextlib.redirect_stdout(io.StringIO()):
        write_report(str(out / "runs"), str(out / "report.html"), 600)
    print(*verdict(runs, scores, label, how, more, tasks), sep="\n")
    folder, _ = runs[label]
    print(f"The report is {out / 'report.html'}, the chosen run {out / 'best'}.", deliver(folder, out), sep="\n")
    return failed


def jobs_of(args, out):
    """The `Job`s of the methods that `args` asks for, with runs and splits in the folder `out`."""
    methods = args.methods or [row.label for row in sorted(ROWS.values(), key=lambda row: row.order) if row.quick]
    opts = {"MODEL.BACKBONE.NAME": args.backbone, "DATASET.SPLIT_DIR": out / "splits", **SETTINGS}
    return list_jobs(SimpleNamespace(
        dataset="folder_tasks", cfg="rn50_ep50", root=osp.abspath(args.images), output=str(out / "runs"), seeds=["1"],
        shots=[str(args.shots)], methods=methods, opts=[*map(str, sum(opts.items(), ())), *args.opts]))


def cross_validate(args, out, labels):
    """Mean validation accuracies, {label: percent}, over runs in which each training and validation image is held out.

    Raises:
        UserError: a run failed.
    """
    stored = next((out / "splits").rglob("split.json"))
    folds = {task: folds_of(split, FOLDS) for task, split in read_json(stored).items()}
    jobs = []
    for number in range(FOLDS):
        own = out / "folds" / str(number + 1)
        (own / stored.parent.relative_to(out)).mkdir(parents=True, exist_ok=True)
        write_json({task: splits[number] for task, splits in folds.items()}, own / stored.relative_to(out))
        jobs += [job for job in jobs_of(args, own) if job.label in labels]
    for folder, why in compare(jobs):
        raise UserError(f"{folder}, of the cross-validation, failed: {why}")
    found = [(job.label, read_results(job.folder)["validation"]["overall_metric"]) for job in jobs]
    return {label: sum(percent for name, percent in found if name == label) / FOLDS for label in labels}


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
    """Make the image features that all runs need, and say how long it takes.

    Returns:
        The tasks, and the numbers of training and validation images.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        cfg = setup_cfg(build_parser().parse_args(jobs[0].calls[0]))
        trainer = find_trainer(cfg)(cfg)
        data = trainer.dataset
        sample = Images(cfg, data.test[:cfg.DATALOADER.TEST.BATCH_SIZE], build_transform(cfg, is_train=False))
        trainer.encode.row  # the first call is slow
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
    return trainer.tasks, *parts[:2]


def compare(jobs):
    """Do the runs on this machine; returns [(folder, sentence)] of those that failed."""
    from sweeps.cluster import Cluster  # Ray is slow to import
    from sweeps.engine import Sweep

    with Cluster("local", torch.get_num_threads()) as cluster:
        return Sweep(jobs, [], cluster).work()


def choose(scores):
    """The label that is best on the validation images, of {label: percent}; of equal ones the first."""
    return max(scores, key=scores.get)


def standard_error(tasks):
    """The standard error of the mean accuracy of `tasks` (see `ClassificationMT`), in percent."""
    return math.sqrt(sum(task["metric"] * (100 - task["metric"]) / task["total"] for task in tasks)) / len(tasks)


def verdict(runs, scores, label, how, more, tasks):
    """What a person needs to know, as lines.

    Args:
        runs: {label: (folder, results)}. scores: {label: validation accuracy in percent}. label: the chosen one.
        how: by what it was chosen. more: how many times the validation images have chosen. tasks: list of `Task`.
    """
    folder, results = runs[label]
    table = tabulate([[name, scores[name], runs[name][1]["overall_metric"],
                       *(mean_of(runs[name][0], key) for key in ERRORS)]
                      for name in sorted(scores, key=lambda name: -scores[name])],
                     ["method", "validation", "test", *ERRORS.values()], floatfmt=".1f")
    chance = sum(100 / len(task.classnames) for task in tasks) / len(tasks)
    near = standard_error(results["validation"]["tasks"]) / math.sqrt(more)
    level = [name for name in scores if name != label and scores[name] >= scores[label] - near]
    figures = read_metrics(folder)
    task = min(figures, key=lambda task: task["accuracy"])
    rate, name = min((found["accuracy"], f"{own['name']}/{found['name']}") for own in figures
                     for found in own["classes"] if found["total"])
    sure = [found for found in read_predictions(folder) if not found.right and found.probability >= SURE]
    return [table, "", f"Chosen by {how}: {label}, {results['overall_metric']:.1f}% of the test images (+- "
            f"{standard_error(results['tasks']):.1f}); chance is {chance:.1f}%."
            + f" As good within a standard error: {', '.join(level)}." * bool(level),
            f"The hardest task is {task['name']} ({task['accuracy']:.1f}%), the hardest class {name} ({rate:.1f}%).",
            f"{len(sure)} test images need a look: they are wrong with a probability of {SURE:.0%} or more."]


def mean_of(folder, key):
    """The mean over a run's tasks of a figure in `metrics.json`."""
    tasks = read_metrics(folder)
    return sum(task[key] for task in tasks) / len(tasks)


def minutes(seconds):
    """A time as a person says it."""
    return f"about {round(seconds)} seconds" if seconds < 90 else f"about {round(seconds / 60)} minutes"
