"""What several test files need: configs without files, and `train.py` as a user calls it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from runs.config import build_parser, make_cfg as cfg_of
from trainers.multitask import MultiTaskTrainer
from trainers.run import run as run_once

REPOSITORY = Path(__file__).resolve().parent.parent


def hear_ctrl_c():
    """A `preexec_fn`: a shell starts background jobs, such as these tests may be one, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def make_cfg(root="", options=()):
    """A config with `options` {KEY: VALUE} on top of few defaults."""
    return cfg_of({"DATASET.ROOT": str(root), "SEED": 1, "DATASET.NUM_SHOTS": 1, **dict(options)})


def train_args(root, backbone, output, trainer, *extra, **options):
    """Arguments of `train.py` for a short run on 32x32 images."""
    options = {"DATASET.NAME": "FolderTasks", "INPUT.SIZE": "(32, 32)", "DATALOADER.NUM_WORKERS": 0,
               "INPUT.TRANSFORMS": "('random_resized_crop', 'random_flip', 'normalize')", "OPTIM.NAME": "sgd",
               "OPTIM.LR": 0.002, "OPTIM.MAX_EPOCH": 3, "OPTIM.LR_SCHEDULER": "cosine", "OPTIM.WARMUP_EPOCH": 1,
               "OPTIM.WARMUP_TYPE": "constant", "DATALOADER.TRAIN_X.BATCH_SIZE": 4, "DATASET.NUM_SHOTS": 2,
               "TRAIN.PRINT_FREQ": 1, **options}
    return ["--root", str(root), "--backbone", str(backbone), "--output-dir", str(output), "--trainer", trainer,
            "--seed", "1", *extra, *[str(item) for pair in options.items() for item in pair]]


def call(arguments):
    """Run what `train.py` does in this process; returns the trainer."""
    return run_once(build_parser().parse_args(arguments))


def call_until(epoch, arguments, monkeypatch):
    """Run what `train.py` does until `epoch` epochs are done, and interrupt it there."""
    step = MultiTaskTrainer.step

    def interrupted(self, *args):
        if self.epoch == epoch:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(MultiTaskTrainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call(arguments)


def run(command, **kwargs):
    """Run a command in the repository with this interpreter first on the PATH."""
    env = {**os.environ, "PYTHON": sys.executable, **kwargs.pop("env", {})}
    return subprocess.run(command, cwd=kwargs.pop("cwd", REPOSITORY), env=env, capture_output=True, text=True,
                          **kwargs)


def results(folder):
    return json.loads((Path(folder) / "results.json").read_text())


def metrics(folder):
    """What `metrics.json` says of each task."""
    return json.loads((Path(folder) / "metrics.json").read_text())["tasks"]
