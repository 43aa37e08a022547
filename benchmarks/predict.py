"""Predicting images, against the calls of the image tower alone.

    python -m benchmarks.predict [--images 1000] [--arch RN50-quickgelu --size 224] [--tasks 10 --classes 300]
                                 [--side 500] [--batch 64] [--workers 8]

`predict s` is what `predict.py` does once the run is loaded: finding the images, reading, transforming and encoding
them, and ranking the classes of all tasks. `tower s` are the tower's calls alone, on as many random images in the same
batches. `classes s`, made once and part of neither, is encoding the class names. The model has random weights, images
are JPEG, `--side` pixels on a side. Each of `--repeats` rounds does both, one after the other; ratios are medians of
the rounds' ratios. On a busy machine CPU seconds (the workers' too) tell more.
"""

import contextlib
import io
import statistics
import tempfile
import time

import torch

from learned.loading import TrainedClassifiers
from learned.predicting import find_images, predict

from .common import device, in_own_process, made_up_tasks, main
from .images import cpu_seconds, write_photos
from .train_step import build_trainer


def work(n_images, arch, size, tasks, classes, side, batch, workers, repeats):
    rounds = []
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
        write_photos(root, n_images // 4, 1, side)
        trainer = build_trainer("nata", made_up_tasks(tasks, classes), arch, "ours", {
            "INPUT.SIZE": (size, size), "INPUT.TRANSFORMS": ("normalize",), "DATALOADER.TEST.BATCH_SIZE": batch,
            "DATALOADER.NUM_WORKERS": workers, "VERBOSE": False})
        start = time.perf_counter()
        classifiers = TrainedClassifiers(trainer)
        text = time.perf_counter() - start
        list(predict(classifiers, find_images([root])[:1], range(tasks), 5))  # imports what comes late
        for _ in range(repeats):
            rounds.append((*measured(lambda: list(predict(classifiers, find_images([root]), range(tasks), 5))),
                           *measured(lambda: call_tower(trainer, n_images, size, batch))))
    return {**{name: statistics.median(column) for name, column in zip(
        ("predict s", "predict CPU s", "tower s", "tower CPU s"), zip(*rounds))}, "classes s": text,
        "predict / tower": statistics.median(whole / tower for whole, _, tower, _ in rounds),
        "predict / tower, CPU": statistics.median(whole / tower for _, whole, _, tower in rounds)}


def measured(step):
    """Seconds and CPU seconds of a call."""
    start, worked = time.perf_counter(), cpu_seconds()
    step()
    return time.perf_counter() - start, cpu_seconds() - worked


@torch.no_grad()
def call_tower(trainer, n_images, size, batch):
    for first in range(0, n_images, batch):
        trainer.model.image_encoder(torch.randn(min(batch, n_images - first), 3, size, size, device=device())).cpu()


def bench(args):
    images = args.images // 4 * 4  # `write_photos` makes four at a time
    return [{"images": images, "classes": args.classes, **in_own_process(
        "benchmarks.predict", n_images=images, arch=args.arch, size=args.size, tasks=args.tasks, classes=args.classes,
        side=args.side, batch=args.batch, workers=args.workers, repeats=args.repeats)}]


if __name__ == "__main__":
    main("benchmarks.predict", work, bench, __doc__.splitlines()[0], images=1000, arch="RN50-quickgelu", size=224,
         tasks=10, classes=300, side=500, batch=64, workers=8)
