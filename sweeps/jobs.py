"""The jobs of a sweep: one for each run of `scripts/all_methods.sh`, and jobs that make image features."""

from collections import defaultdict
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
        label: that of its row of the table. folder: that of the run; "" for features.
        calls: argument lists of `train.py`: that of the run, or those of all runs that need the features.
        weight: cost relative to other runs of its row, epochs times shots; runs of all images count as one shot.
        state: "finished", "unfinished" or "new", as `RunFolder.state` returns it.
        group: the settings that determine the image features of its training; None if it trains without them.
        after: the job that must end first.
    """

    label: str
    folder: str
    calls: list
    weight: int
    state: str = "new"
    group: tuple = None
    after: "Job" = None


def list_jobs(args):
    """The `Job`s of the rows of a table; `args` has `dataset`, `cfg` and the settings that `calls_of_rows` takes.

    Raises:
        UserError: `calls_of_rows` or `train.py` would refuse them.
    """
    jobs = []
    for label, call in calls_of_rows(args, args.dataset, args.cfg):
        cfg = setup_cfg(build_parser().parse_args(call))
        jobs.append(Job(label, cfg.OUTPUT_DIR, [call], 0, RunFolder(cfg.OUTPUT_DIR).state()))
        if find_trainer(cfg).steps(cfg):
            jobs[-1].weight = cfg.OPTIM.MAX_EPOCH * max(cfg.DATASET.NUM_SHOTS, 1)
            if cfg.DATALOADER.FEATURE_CACHE:
                jobs[-1].group = cfg.MODEL.BACKBONE.NAME, cfg.DATASET.NAME, cfg.SEED, cfg.DATASET.NUM_SHOTS
    return jobs


def add_feature_jobs(jobs):
    """Make jobs for the features that several unfinished runs share, and let these come after them; returns the new."""
    groups = defaultdict(list)
    for job in jobs:
        if job.group and job.state != "finished":
            groups[job.group].append(job)
    made = []
    for group in groups.values():
        if len(group) > 1:
            features = Job("features", "", [job.calls[0] for job in group], group[0].weight)
            made.append(features)
            for job in group:
                job.after = features
    return made
