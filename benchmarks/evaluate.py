"""Testing many images with features on disk, against encoding all classes again for every batch.

    python -m benchmarks.evaluate [--images 10000] [--classes 1191] [--tasks 10] [--arch RN50-quickgelu]

`ours` is the trainer's own `test()` on features that lie in the cache; the image files are empty, so reading one would
fail. `plain` is the published code's way with the text features alone: 77 positions of every class for every batch of
100; two batches are timed and multiplied by their number.
"""

import tempfile
import time
from pathlib import Path

import torch

from dassl.data.transforms import build_transform
from dassl.evaluation import build_evaluator
from datasets.base import NamedDatum
from features.images import Images

from .common import in_own_process, made_up_tasks, main, measure
from .text_encoder import rows_encoded
from .train_step import build_trainer

BATCH = 100


def work(n_images, classes, tasks, arch, encoder, repeats):
    made_up = made_up_tasks(tasks, classes)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer("nata", made_up, arch, encoder, {
            "DATALOADER.FEATURE_CACHE": True, "DATALOADER.FEATURE_CACHE_DIR": folder,
            "DATALOADER.TEST.BATCH_SIZE": BATCH, "VERBOSE": False})
        model = trainer.model
        rows = rows_encoded(model.prompt_learner, encoder)
        if encoder == "ours":
            total = test_seconds(trainer, n_images, classes, Path(folder))
        with torch.no_grad():
            text, _ = measure(model.class_features, repeats)
    if encoder == "plain":  # once for every batch
        return {"seconds": text * n_images / BATCH, "rows": rows * n_images // BATCH}
    return {"seconds": total, "text": text, "rows": rows}


def test_seconds(trainer, n_images, classes, folder):
    """Seconds of the trainer's `test()` on random features of `n_images` empty files in `folder`."""
    cfg, datums = trainer.cfg, []
    for i in range(n_images):
        path = folder / f"{i}.jpg"
        path.touch()
        datums.append(NamedDatum(path.name, impath=str(path), label=i % classes))
    images = Images(cfg, datums, build_transform(cfg, is_train=False))
    features = torch.randn(n_images, trainer.model.text_encoder.output_dim)
    trainer.encode.cache_for(images).store(images.folder, images.keys([0]), features)
    trainer.plain_images = {"test": images}
    trainer.evaluator = build_evaluator(cfg, lab2cname={}, tasks=trainer.tasks)
    start = time.perf_counter()
    trainer.test("test")
    return time.perf_counter() - start


def bench(args):
    given = dict(n_images=args.images, classes=args.classes, tasks=args.tasks, arch=args.arch, repeats=args.repeats)
    ours = in_own_process("benchmarks.evaluate", encoder="ours", **given)
    plain = in_own_process("benchmarks.evaluate", encoder="plain", **given)
    return [{"images": args.images, "classes": args.classes, "test s": ours["seconds"], "of it text s": ours["text"],
             "plain text s": plain["seconds"], "rows": ours["rows"], "plain rows": plain["rows"],
             "less text time": plain["seconds"] / ours["text"], "less text work": plain["rows"] / ours["rows"]}]


if __name__ == "__main__":
    main("benchmarks.evaluate", work, bench, __doc__.splitlines()[0], images=10000, classes=1191, tasks=10,
         arch="RN50-quickgelu")
