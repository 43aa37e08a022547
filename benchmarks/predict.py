"""Predicting images, against the calls of the image tower alone.

    python -m benchmarks.predict [--images 1000] [--arch RN50-quickgelu --size 224] [--tasks 10 --classes 300]
                                 [--side 500] [--batch 64] [--workers 8]

`predict s` is what `predict.py` does once the run is loaded: finding the images, reading, transforming and encoding
them, and ranking the classes of all tasks. `tower s` are the tower's calls alone, on as many random images in the same
batches. `classes s`, made once and part of neither, is encoding the class names. The model has random weights, images
are JPEG, `--side` pixels on a side. Each of `--repeats` rounds does both, one after the other; the ratio is the median
of the rounds' ratios.
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
from .images import write_photos
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
        for _ in range(repeats):
            start = time.perf_counter()
            found = len(list(predict(classifiers, find_images([root]), range(tasks), 5)))
            whole = time.perf_counter() - start
            rounds.append((whole, tower_seconds(trainer, n_images, size, batch)))
    return {"rows": found, "predict s": statistics.median(whole for whole, _ in rounds),
            "tower s": statistics.median(tower for _, tower in rounds), "classes s": text,
            "predict / tower": statistics.median(whole / tower for whole, tower in rounds)}


@torch.no_grad()
def tower_seconds(trainer, n_images, size, batch):
    start = time.perf_counter()
    for first in range(0, n_images, batch):
        trainer.model.image_encoder(torch.randn(min(batch, n_images - first), 3, size, size, device=device())).cpu()
    return time.perf_counter() - start


def bench(args):
    images = args.images // 4 * 4  # `write_photos` makes four at a time
    return [{"images": images, "classes": args.classes, **in_own_process(
        "benchmarks.predict", n_images=images, arch=args.arch, size=args.size, tasks=args.tasks, classes=args.classes,
        side=args.side, batch=args.batch, workers=args.workers, repeats=args.repeats)}]


if __name__ == "__main__":
    main("benchmarks.predict", work, bench, __doc__.splitlines()[0], images=1000, arch="RN50-quickgelu", size=224,
         tasks=10, classes=300, side=500, batch=64, workers=8)
