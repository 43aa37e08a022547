"""A run that finds no image features, against the bare image tower on the same images.

    python -m benchmarks.images [--cases 10:1:20,74:4:10] [--arch tiny --size 64] [--random 1] [--precision fp32]
                                [--side 500] [--workers 8] [--predict 1] [--runs 4]

A case is classes:shots:epochs. `run s` is `train()` of CoOp with one context for all, from an empty cache to the end of
its training: it makes the features of all epochs (`encode s`), keeps them, and takes the steps. `bare s` reads and
augments the same images (every view once) by a loader with as many workers in full batches, and gives them to the
tower, channels last; it keeps nothing. Both decode an image once for all its views. `decode s` is that loader without
the tower, `tower s` are the tower's calls alone, on random pixels. Images are noise of a few frequencies, JPEG,
`--side` pixels on a side. Each of `--repeats` rounds measures all ways. On a busy machine CPU seconds (the workers'
too) tell more; `system / user` is of the run's. `--random 1` takes an open_clip architecture with random weights.

With `--predict 1` the run is what `predict.py` does with the images of all classes, 2 x shots + 2 each, after the model
is loaded: it reads, encodes and classifies each once.

With `--runs n`: `one s` is `train()` alone, `all s` that of n runs at once with the same features, from one empty cache
until the last run has trained. Each run is a process of its own, and begins when all have loaded their model. `made`
counts the features that all of them have encoded together.
"""

import contextlib
import copy
import io
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

import datasets  # noqa: F401  registers FolderTasks
import trainers.multitask
from common.memory import give_back
from features.images import Pass
from learned.classifier import Classifier, GivenImages
from runs.config import make_cfg
from trainers.mtcoop_hard import MTCoOpHard

from .common import device, main, random_clip


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


def build(root, shots, epochs, backbone, random, precision, size, workers, cache):
    if random:
        clip_model = random_clip(backbone)
        trainers.multitask.load_clip = lambda cfg: copy.deepcopy(clip_model)
    return MTCoOpHard(make_cfg({
        "TRAINER.NAME": "MTCoOpHard", "TRAINER.MTCOOPH.PREC": precision, "MODEL.BACKBONE.NAME": backbone, "SEED": 1,
        "INPUT.SIZE": (size, size), "INPUT.TRANSFORMS": ("random_resized_crop", "random_flip", "normalize"),
        "DATASET.NAME": "FolderTasks", "DATASET.ROOT": f"{root}/images", "DATASET.NUM_SHOTS": shots,
        "DATALOADER.FEATURE_CACHE_DIR": cache, "DATALOADER.NUM_WORKERS": workers,
        "DATALOADER.TEST.BATCH_SIZE": 100,  # as in configs/trainers
        "OPTIM.NAME": "sgd", "OPTIM.LR": 0.002, "OPTIM.MAX_EPOCH": epochs, "OPTIM.LR_SCHEDULER": "cosine",
        "OUTPUT_DIR": tempfile.mkdtemp(dir=root), "TEST.NO_TEST": True, "VERBOSE": False}))


@torch.no_grad()
def bare(trainer, images, epochs):
    """Return the columns of what is no run: reading all views and encoding them, each of the two, and CPU seconds."""
    size, dtype = trainer.encode.batch_size, trainer.encode.dtype
    encoder = copy.deepcopy(trainer.model.image_encoder).to(memory_format=torch.channels_last)
    items = np.arange(epochs * len(images))
    items = items[np.argsort(items % len(images), kind="stable")]

    def read():
        give_back()  # as a run does before it starts workers
        return DataLoader(Pass(images, items, range(epochs)), size, num_workers=trainer.encode.workers(len(items)),
                          pin_memory=torch.cuda.is_available())

    def encode(pixels):
        pixels = pixels.to(device(), dtype, non_blocking=True, memory_format=torch.channels_last)
        with torch.autocast(device().type, torch.float16, enabled=trainer.encode.autocast):
            return encoder(pixels).cpu()

    start, worked = time.perf_counter(), sum(cpu_seconds())
    for pixels, *_ in read():
        encode(pixels)
    row = {"bare s": time.perf_counter() - start, "bare CPU s": sum(cpu_seconds()) - worked}
    start = time.perf_counter()
    for _ in read():
        pass
    row["decode s"], start = time.perf_counter() - start, time.perf_counter()
    for first in range(0, len(items), size):
        encode(torch.randn(min(size, len(items) - first), *pixels.shape[1:], device=device()))
    return row | {"tower s": time.perf_counter() - start}


def cpu_seconds():
    """Return the user's and the system's seconds of this process and of the workers that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime for one in used), sum(one.ru_stime for one in used)


def work(classes, shots, epochs, backbone, random, precision, size, side, workers, repeats, predict, runs):
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
        write_photos(root, classes, shots, side)
        settings = root, shots, epochs, backbone, random, precision, size, workers
        return compare_together(settings, repeats, runs) if runs else compare_bare(settings, repeats, epochs, predict)


def compare_bare(settings, repeats, epochs, predict):
    """Return medians of a run against the bare tower; `settings` are the arguments of `build` without the cache."""
    rounds = []
    for _ in range(repeats):
        trainer = build(*settings, tempfile.mkdtemp(dir=settings[0]))
        images = trainer.train_images
        if predict:
            classifier, paths = Classifier(trainer), sorted(map(str, Path(settings[0]).rglob("*.jpg")))
            images, epochs = GivenImages(classifier, paths), 1
        start, before = time.perf_counter(), cpu_seconds()
        list(classifier.rows(paths, [0], topk=1)) if predict else trainer.train()
        run, (user, system) = time.perf_counter() - start, (b - a for a, b in zip(before, cpu_seconds()))
        row = {"run s": run, **({} if predict else {"encode s": trainer.encode.seconds}), "run CPU s": user + system,
               **bare(trainer, images, epochs)}
        rounds.append(row | {
            "run / bare": run / row["bare s"], "run / bare, CPU": row["run CPU s"] / row["bare CPU s"],
            "run / slower": run / max(row["decode s"], row["tower s"]), "system / user": system / user})
    return {"images": epochs * len(images),
            **{name: statistics.median(row[name] for row in rounds) for name in rounds[0]}}


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
        workers=args.workers, repeats=args.repeats, predict=args.predict, runs=args.runs, random=args.random,
        precision=args.precision)}


if __name__ == "__main__":
    main("benchmarks.images", work, bench, __doc__.splitlines()[0], cases="10:1:20,74:4:10", arch="tiny", size=64,
         side=500, workers=8, predict=0, runs=0, random=0, precision="fp32")
