"""Makes many runs in one process; each has the same result, bit for bit, as in a process of its own."""

import contextlib
import copy
import functools
import gc
import os
import random
import sys
import warnings

import numpy as np
import torch

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from common.errors import UserError
from common.memory import give_back, keep_memory
from common.program import sentence
from dassl.utils import set_random_seed
from runs.config import build_parser, find_trainer, setup_cfg
from runs.folder import FolderInUse
from trainers import multitask_clip
from trainers.run import run

SETTINGS = (  # functions that read and set what a run may change in its process
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_rng_state, torch.set_rng_state),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
    (os.getcwd, os.chdir),
)
FLAGS = ((torch.backends.cudnn, "benchmark"), (torch.backends.cudnn, "deterministic"),
         (torch.backends.cudnn, "allow_tf32"), (torch.backends.cuda.matmul, "allow_tf32"))


def kept_clip(read):
    """A function that reads CLIP once, by the function `read`, and gives each run a copy of its own."""
    read = functools.lru_cache(maxsize=1)(read)
    return lambda name, quick_gelu=None: copy.deepcopy(read(name, quick_gelu))


class Process:
    """This process, which does many runs: it keeps CLIP and PyTorch's number of `threads`, nothing else of a run."""

    def __init__(self, threads):
        keep_memory()
        self.threads = threads
        self.keep_threads()
        self.settings = [read() for read, _ in SETTINGS]
        self.flags = [getattr(place, name) for place, name in FLAGS]
        multitask_clip.read_clip = kept_clip(multitask_clip.read_clip)

    def keep_threads(self):
        if torch.get_num_threads() != self.threads:  # setting the same number, too, would change MKL
            torch.set_num_threads(self.threads)

    @contextlib.contextmanager
    def as_new(self):
        """A context in which the process is as it was at first, except for CLIP and imports."""
        environment = dict(os.environ)
        forget_peak_memory()
        try:
            with warnings.catch_warnings():  # each run prints its warnings again
                yield
        finally:
            os.environ.clear()
            os.environ.update(environment)
            self.keep_threads()
            for (_, change), value in zip(SETTINGS, self.settings):
                change(value)
            for (place, name), value in zip(FLAGS, self.flags):
                setattr(place, name, value)
            if "torch._dynamo" in sys.modules:  # it compiles a function a few times only, then never again
                torch._dynamo.reset()

    def do(self, work, calls):
        """Do `work(calls)`.

        Returns:
            (how, sentence): "done", "refused" (a user must mend something), "busy" (another process has the folder) or
            "failed"; the sentence is the error.
        """
        try:
            with self.as_new():
                work(calls)
        except FolderInUse as error:
            return "busy", sentence(error)
        except UserError as error:
            return "refused", sentence(error)
        except (Exception, SystemExit) as error:
            return "failed", sentence(error)
        return "done", ""


def forget_peak_memory():
    """Free the last run's memory, and count the peak of memory from here, if the system can do that."""
    gc.collect()
    give_back()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # other workers share the GPU
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def run_all(calls):
    """Make the runs of argument lists of `train.py`."""
    for call in calls:
        run(build_parser().parse_args(call))


def make_features(calls):
    """Make the image features of every epoch and of the tests for runs with the same data.

    The first method that keeps its features makes them for all; one that refuses the backbone does not.
    """
    for call in calls:
        cfg = setup_cfg(build_parser().parse_args(call))
        set_random_seed(cfg.SEED)
        try:
            trainer = find_trainer(cfg)(cfg)
        except UserError:  # its own run will say it
            continue
        if trainer.steps(cfg) and trainer.encode.keep and not trainer.encode.local:
            trainer.make_features(range(trainer.max_epoch))
            return
