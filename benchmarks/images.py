"""A run that finds no image features, against the bare image tower on the same images.

    python -m benchmarks.images [--cases 10:1:20,74:4:10] [--arch tiny --size 64] [--side 500] [--workers 8] [--runs 4]

A case is classes:shots:epochs. `run s` is `train()` of CoOp with one context for all, from an empty cache to the end of
its training: it makes the features of all epochs (`encode s`), keeps them, and takes the steps. `bare s` reads and
augments the same images (every view once) by a loader with as many workers in full batches, and gives them to the
tower; it keeps nothing. Both decode an image once for all its views. `tower s` are the tower's calls alone, on random
pixels. Images are noise of a few frequencies, JPEG, `--side` pixels on a side. Each of `--repeats` rounds measures both
ways. On a busy machine CPU seconds (the workers' too) tell more.

With `--runs n`: `one s` is `train()` alone, `all s` that of n runs at once with the same features, from one empty cache
until the last run has trained. Each run is a process of its own, and begins when all have loaded their model. `made`
counts the features that all of them have encoded together.
"""

import contextlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

import datasets  # noqa: F401  registers FolderTasks
from features.images import Pass
from runs.config import make_cfg
from trainers.mtcoop_hard import MTCoOpHard

from .common import device, main


def write_photos(root, classes, shots, side):
    """Write a `FolderTasks` root of one task whose classes have enough images for `shots` training images."""
    rng = np.random.default_rng(0)
    for c in range(classes):
        folder = Path(root) / "images" / "photos" / f"class {c}"
        folder.mkdir(parents=True)
        for i in range(2 * shots + 2):
            small = Image.fromarray(rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8))
            noise = np.asarray(small.resize((side, side), Image.BICUBIC)) + rng.integers(-8, 9, (side, side, 3))
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg", quality=90)


def build(root, shots, epochs, backbone, size, workers, cache):
    return MTCoOpHard(make_cfg({
        "TRAINER.NAME": "MTCoOpHard", "TRAINER.MTCOOPH.PREC": "fp32", "MODEL.BACKBONE.NAME": backbone, "SEED": 1,
        "INPUT.SIZE": (size, size), "INPUT.TRANSFORMS": ("random_resized_crop", "random_flip", "normalize"),
        "DATASET.NAME": "FolderTasks", "DATASET.ROOT": f"{root}/images", "DATASET.NUM_SHOTS": shots,
        "DATALOADER.FEATURE_CACHE_DIR": cache, "DATALOADER.NUM_WORKERS": workers,
        "OPTIM.NAME": "sgd", "OPTIM.LR": 0.002, "OPTIM.MAX_EPOCH": epochs, "OPTIM.LR_SCHEDULER": "cosine",
        "OUTPUT_DIR": tempfile.mkdtemp(dir=root), "TEST.NO_TEST": True, "VERBOSE": False}))


@torch.no_grad()
def bare_seconds(trainer, epochs):
    """Return the tower's seconds for all views with reading them, without, and the CPU seconds of the former."""
    encoder, images, size = trainer.model.image_encoder, trainer.train_images, trainer.encode.batch_size
    items = np.arange(epochs * len(images))
    items = items[np.argsort(items % len(images), kind="stable")]
    start, worked = time.perf_counter(), cpu_seconds()
    workers = trainer.encode.workers(len(items))
    for pixels, *_ in DataLoader(Pass(images, items, range(epochs)), size, num_workers=workers):
        encoder(pixels.to(device())).cpu()
    read, worked = time.perf_counter() - start, cpu_seconds() - worked
    start = time.perf_counter()
    for first in range(0, len(items), size):
        encoder(torch.randn(min(size, len(items) - first), *pixels.shape[1:], device=device())).cpu()
    return read, time.perf_counter() - start, worked


def cpu_seconds():
    """Return the CPU time of this process and of the workers that have ended."""
    return time.process_time() + sum(os.times()[2:4])  # the workers' in hundredths of a second


def work(classes, shots, epochs, backbone, size, side, workers, repeats, runs):
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
        write_photos(root, classes, shots, side)
        settings = root, shots, epochs, backbone, size, workers
        return compare_together(settings, repeats, runs) if runs else compare_bare(settings, repeats, epochs)


def compare_bare(settings, repeats, epochs):
    """Return medians of a run against the bare tower; `settings` are the arguments of `build` without the cache."""
    rounds = []
    for _ in range(repeats):
        trainer = build(*settings, tempfile.mkdtemp(dir=settings[0]))
        start, worked = time.perf_counter(), cpu_seconds()
        trainer.train()
        run, worked = time.perf_counter() - start, cpu_seconds() - worked
        rounds.append((run, trainer.encode.seconds, *bare_seconds(trainer, epochs), worked))
    return {"images": epochs * len(trainer.train_images), **{name: statistics.median(column) for name, column in zip(
        ("run s", "encode s", "bare s", "tower s", "bare CPU s", "run CPU s"), zip(*rounds))},
        "run / bare": statistics.median(run / bare for run, _, bare, *_ in rounds),
        "run / bare, CPU": statistics.median(run / bare for *_, bare, run in rounds)}


def compare_together(settings, repeats, runs):
    """Return medians of one run against `runs` of them at once."""
    rounds = [(*train_together(settings, 1), *train_together(settings, runs)) for _ in range(repeats)]
    return {"runs": runs, **{name: statistics.median(column) for name, column in zip(
        ("one s", "made by one", "all s", "made"), zip(*rounds))},
        "all / one": statistics.median(together / alone for alone, _, together, _ in rounds)}


def train_together(settings, runs):
    """Return the seconds that `runs` processes take to train from one empty cache, and how many features they make."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(runs), context.SimpleQueue()
    settings = (*settings, tempfile.mkdtemp(dir=settings[0]))
    processes = [context.Process(target=train_one, args=(settings, barrier, results)) for _ in range(runs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a run ended with exit status {process.exitcode}")
    starts, ends, made = zip(*(results.get() for _ in processes))
    return max(ends) - min(starts), sum(made)


def train_one(settings, barrier, results):
    """Train in this process; put its start, its end (seconds) and the number of features it made into `results`."""
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = build(*settings)
        made, encode = [], trainer.encode.encode
        trainer.encode.encode = lambda *args: (made.append(len(x)) or x for x in encode(*args))
        barrier.wait(timeout=600)  # for nothing if another run has failed
        start = time.time()
        trainer.train()
        results.put((start, time.time(), sum(made)))


def bench(case, run, args):
    classes, shots, epochs = map(int, case.split(":"))
    return {"classes": classes, "shots": shots, "epochs": epochs, **run(
        classes=classes, shots=shots, epochs=epochs, backbone=args.arch, size=args.size, side=args.side,
        workers=args.workers, repeats=args.repeats, runs=args.runs)}


if __name__ == "__main__":
    main("benchmarks.images", work, bench, __doc__.splitlines()[0], cases="10:1:20,74:4:10", arch="tiny", size=64,
         side=500, workers=8, runs=0)
