"""What a sweep has to do: the runs of `scripts/all_methods.sh`, a job each, and jobs that make image features."""

from dataclasses import dataclass
from pathlib import Path

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from runs.commands import calls_of_rows
from runs.config import build_parser, find_trainer, setup_cfg
from runs.folder import RunFolder

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(eq=False)
class Job:
    """A run, or the features that several runs need.

    Attributes:
        label: of its row of the table. folder: of the run; "" of features.
        calls: argument lists of `train.py`: of the run, or of all runs that need the features.
        weight: what it costs, relative to others: epochs times shots. The classes are the same for all runs.
        state: "finished", "unfinished" or "new", as `RunFolder.state`.
        group: what the image features of its training depend on; None of a run that trains without them.
        after: the job that must have ended before.
    """

    label: str
    folder: str
    calls: list
    weight: int
    state: str = "new"
    group: tuple = None
    after: "Job" = None


def list_jobs(args):
    """The `Job`s of the rows of a table.

    Args:
        args: settings as `calls_of_rows` takes them, and dataset and cfg.

    Raises:
        UserError: as `calls_of_rows`, or a call that `train.py` would refuse for its settings.
    """
    return [run_job(label, call) for label, call in calls_of_rows(args, args.dataset, args.cfg)]


def run_job(label, call):
    """The `Job` of a call of `train.py`."""
    cfg = setup_cfg(build_parser().parse_args(call))
    job = Job(label, cfg.OUTPUT_DIR, [call], 0, RunFolder(cfg.OUTPUT_DIR).state())
    if find_trainer(cfg).steps(cfg):
        job.weight = cfg.OPTIM.MAX_EPOCH * cfg.DATASET.NUM_SHOTS
        if cfg.DATALOADER.FEATURE_CACHE:
            job.group = cfg.MODEL.BACKBONE.NAME, cfg.DATASET.NAME, cfg.SEED, cfg.DATASET.NUM_SHOTS
    return job


def add_feature_jobs(jobs):
    """Jobs that make the features of each group that several unfinished runs have in common; these come after them.

    Returns:
        The new jobs.
    """
    groups = {}
    for job in jobs:
        if job.group and job.state != "finished":
            groups.setdefault(job.group, []).append(job)
    made = []
    for group in groups.values():
        if len(group) > 1:
            features = Job("features", "", [job.calls[0] for job in group], group[0].weight)
            made.append(features)
            for job in group:
                job.after = features
    return made
