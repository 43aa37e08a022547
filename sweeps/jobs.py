"""What a sweep has to do: the calls of `scripts/all_methods.sh`, one job per run, and jobs that make image features."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from common.errors import UserError
from runs.config import build_parser, find_trainer, setup_cfg
from runs.folder import RunFolder
from runs.methods import commands

REPOSITORY = Path(__file__).resolve().parent.parent
RECORDER = str(Path(__file__).with_name("recorder.sh"))


@dataclass(eq=False)
class Job:
    """A run, or the features that several runs need.

    Attributes:
        label: of its row of the table. folder: of the run; "" of features.
        calls: argument lists of Python, as the scripts have them: of the run, or of all runs that need the features.
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


def recorded(command, environment):
    """The argument lists with which a command in `scripts/` calls Python.

    Raises:
        UserError: what the script says of its arguments.
    """
    done = subprocess.run(["sh", *command.split()], cwd=REPOSITORY / "scripts", capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, env={**os.environ, **environment, "PYTHON": RECORDER})
    if done.returncode:
        raise UserError(done.stderr.strip().removeprefix("error: "))
    return [call.splitlines() for call in done.stderr.split("===\n")[:-1]]


def list_calls(args):
    """[(label, argument list of Python)] of `all_methods.sh`, in its order.

    Args:
        args: namespace with dataset, cfg, root, output, and lists of words: methods, shots, seeds, opts.

    Raises:
        UserError: an unknown method, or words that a script does not take.
    """
    for word in (args.dataset, args.cfg, *args.shots, *args.seeds, *args.opts):
        if not word or word.split() != [word]:
            raise UserError(f"{word!r} must be a word without blanks, such as (64,64)")
    shots, seeds = args.shots, args.seeds
    environment = {"DATA": args.root, "OUTPUT": args.output, "SHOTS": " ".join(shots), "SEEDS": " ".join(seeds),
                   "OPTS": " ".join(args.opts), "METHODS": ""}
    return [(label, call) for label, command in commands(args.dataset, args.cfg, shots, args.methods)
            for call in recorded(command, environment)]


def list_jobs(args):
    """The `Job`s of a sweep's runs, in the order of the scripts; `args` as in `list_calls`.

    Raises:
        UserError: as `list_calls`, or a call that `train.py` would refuse for its settings.
    """
    return [run_job(label, call) for label, call in list_calls(args)]


def run_job(label, call):
    """The `Job` of a call of `train.py`."""
    cfg = setup_cfg(build_parser().parse_args(call[1:]))
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
