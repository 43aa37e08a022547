"""Shared by the benchmarks: models of real sizes with random weights, made-up tasks, a process per measurement."""

import argparse
import functools
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import _tokenizer as clip_tokenizer
from tabulate import tabulate

from clip import load
from clip.model import CLIP, norms_in_float32
from common.memory import keep_memory
from datasets.base import Task
from runs.results import peak_memory
from trainers.text_encoder import TextEncoder

from .plain import PlainTextEncoder

REPOSITORY = Path(__file__).resolve().parent.parent
ENCODERS = {"ours": TextEncoder, "plain": PlainTextEncoder}
WORDS = ("river daisy horned poppy brick lane spotted owl grain silo copper kettle violet heron maple barn glass lamp "
         "silver fern stone bridge paper crane velvet rope amber moth cedar chest ivory gull").split()


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random_clip(arch="RN50-quickgelu"):
    """Make a CLIP of an open_clip architecture with random weights, or `tiny`: frozen, fp32, on the device."""
    torch.manual_seed(0)
    if arch == "tiny":
        return load(arch, device="cpu")[0].requires_grad_(False).to(device())
    logging.disable(logging.WARNING)  # that the weights are random is known
    model = open_clip.create_model(arch)
    norms_in_float32(model)
    model = CLIP(model)
    model.visual.input_resolution = open_clip.get_model_config(arch)["vision_cfg"]["image_size"]
    return model.eval().requires_grad_(False).to(device())


def made_up_tasks(n_tasks, n_classes, pairs=False):
    """Make tasks whose classes have names of one to three words, about as long as those of the public benchmarks.

    Args:
        pairs: give the classes names of two words of CLIP's vocabulary instead, at most 22,500 of them.
    """
    if pairs:
        words = [word.removesuffix("</w>") for word in clip_tokenizer.encoder if word.endswith("</w>")]
        words = [word for word in words if word.isascii() and word.isalpha() and len(word) > 8][:150]
        names = [f"{first} {second}" for first in words for second in words][:n_classes]
    else:
        names = [" ".join(WORDS[(7 * i + 3 * k + i // len(WORDS)) % len(WORDS)] for k in range(1 + i % 3)) + f" {i}"
                 for i in range(n_classes)]
    return [Task(f"{WORDS[t]} {WORDS[-1 - t]} recognition", tuple(map(str, part)))
            for t, part in enumerate(np.array_split(names, n_tasks))]


def reset_peak():
    """Let `peak_memory` count from the memory in use now. Only CUDA and Linux can; elsewhere the peak so far stays."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        with open("/proc/self/clear_refs", "w", encoding="ascii") as f:
            f.write("5")


def measure(step, repeats):
    """Return the median seconds of `step()` over `repeats` calls after a first one, and its memory in bytes.

    The memory is the peak above that before the first call. With 0 repeats the first call's time counts.
    """
    reset_peak()
    idle = peak_memory(device())
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:] or seconds), peak_memory(device()) - idle


def gpu_work(step):
    """What one `step()` does on a GPU: seconds of its kernels, and their number. {} without a GPU."""
    if not torch.cuda.is_available():
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    ran = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA
           and not getattr(event, "is_user_annotation", False)]
    return {"GPU s": sum(event.time_range.elapsed_us() for event in ran) / 1e6, "kernels": len(ran)}


def in_own_process(module, limit_gb=0, **case):
    """Call `module.work(**case)` in a process of its own; its result must be JSON.

    Args:
        limit_gb: address space that the process may take (not on Windows), 0 for any. The result is None if the
            process wants more or the kernel kills it.

    Raises:
        RuntimeError: the process failed and had no limit.
    """
    limit = None
    if limit_gb:
        import resource  # not above: Windows has none

        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (limit_gb * 2**30,) * 2)

    done = subprocess.run([sys.executable, "-m", module, "--work", json.dumps(case)], cwd=REPOSITORY, text=True,
                          capture_output=True, env={**os.environ, "PYTHONWARNINGS": "ignore"}, preexec_fn=limit)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    refused = any(word in done.stderr for word in ("allocate", "bad_alloc", "MemoryError"))
    if limit_gb and (refused or done.returncode == -signal.SIGKILL):  # the kernel's, out of memory
        return None
    raise RuntimeError(f"{module} failed on {case}:\n{done.stderr[-2000:]}")


def main(module, work, bench, description, **options):
    """Run the command line of a benchmark: print a row for each of `--cases`, and write the rows as JSON.

    Args:
        work: function that measures one case in a process of its own.
        bench: function `bench(case, run, args)` that returns the row of a case; `run(**case)` is `work` in a process.
        options: more options, name -> default; one is `cases`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3, help="measured calls; their median counts")
    parser.add_argument("--json", default="", help="file for the rows")
    for name, default in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default,
                            help="default: %(default)s")
    args = parser.parse_args()
    keep_memory()  # as programs do; both ways gain by it
    if args.work:
        print(json.dumps(work(**json.loads(args.work))))
        return
    rows = [bench(case, functools.partial(in_own_process, module), args) for case in args.cases.split(",")]
    print(tabulate(rows, headers="keys", floatfmt=".3g"))
    if args.json:
        Path(args.json).write_text(json.dumps({"device": str(device()), "threads": torch.get_num_threads(),
                                               "torch": torch.__version__, "rows": rows}, indent=2) + "\n")
