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
from torch.utils.data import DataLoader

from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from trainers.image_features import FeatureLoader, ImageFeatures, Images

from .common import device, in_own_process, made_up_tasks, main, measure
from .plain import PlainTextEncoder
from .text_encoder import rows_encoded
from .train_step import build_trainer

BATCH = 100


def work(n_images, classes, tasks, arch, encoder, repeats):
    trainer = build_trainer("nata", made_up_tasks(tasks, classes), arch, "ours")
    cfg = trainer.cfg.clone()
    if encoder == "plain":
        plain, model = PlainTextEncoder(trainer_clip(trainer)), trainer.model
        model.text_encoder = plain
        with torch.no_grad():
            seconds, _ = measure(model.class_features, repeats)
        return {"seconds": seconds * n_images / BATCH,
                "rows": rows_encoded(model.prompt_learner, "plain") * n_images // BATCH}
    with tempfile.TemporaryDirectory() as folder:
        cfg.DATALOADER.FEATURE_CACHE_DIR, cfg.DATALOADER.TEST.BATCH_SIZE, cfg.VERBOSE = folder, BATCH, False
        cfg.INPUT.SIZE = (trainer.model.image_encoder.input_resolution,) * 2
        datums = []
        for i in range(n_images):
            path = Path(folder) / f"{i}.jpg"
            path.touch()
            datums.append(Datum(str(path), label=i % classes))
        images = Images(cfg, datums, build_transform(cfg, is_train=False))
        made = ImageFeatures(cfg, trainer.model.image_encoder, device())
        keys = [images.key(i) for i in range(n_images)]
        made.cache_for(images).store("test", keys, torch.randn(n_images, trainer.model.text_encoder.output_dim))
        trainer.image_features = made
        trainer.test_loader = FeatureLoader(DataLoader(images, BATCH), trainer.feature_batches, device())
        start = time.perf_counter()
        trainer.test()
        total = time.perf_counter() - start
        with torch.no_grad():
            text, _ = measure(trainer.model.class_features, repeats)
    return {"seconds": total, "text": text, "rows": rows_encoded(trainer.model.prompt_learner, "ours")}


def trainer_clip(trainer):
    """What `PlainTextEncoder` needs of a CLIP, from the trainer's own text encoder."""
    import trainers.multitask

    return trainers.multitask.load_clip(trainer.cfg)


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
