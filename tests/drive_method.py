"""What a user does with a method, in one process: `python -m tests.drive_method TRAINER FOLDER [KEY VALUE ...]`.

FOLDER/killed holds a run that was killed (`--kill`: this call begins it, and ends as by SIGKILL in its second epoch).
The call goes on with it, makes the same run undisturbed, tests its model again, predicts and exports. What it found is
printed as JSON.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import torch

from learned.exporting import export
from learned.loading import load_classifier
from tests.helpers import call, results, train_args
from trainers.multitask import MultiTaskTrainer


def main(name, folder, *options):
    kill, folder = "--kill" in options, Path(folder)
    options = [option for option in options if option != "--kill"]
    options = {"DATASET.NAME": "Outfits16", "DATASET.SUBSAMPLE_TASKS": "task0,task1", "INPUT.SIZE": "(64, 64)",
               "DATALOADER.FEATURE_CACHE_DIR": folder / "features", "DATASET.SPLIT_DIR": folder / "splits",
               "TRAIN.RESUME_SECONDS": 0, **dict(zip(options[::2], options[1::2]))}

    def run(place, *flags, **more):
        return call(train_args(folder / "data", "tiny", folder / place, name, *flags, **{**options, **more}))

    if kill:
        step = MultiTaskTrainer.step
        MultiTaskTrainer.step = lambda self, *args: (
            os.kill(os.getpid(), signal.SIGKILL) if self.epoch == 1 else step(self, *args))
        run("killed")
        return None
    calm, resumed = run("calm"), run("killed")
    tested = run("tested", "--eval-only", "--model-dir", str(folder / "calm"))
    image = next((folder / "data").rglob("test/*/*.png"))
    classifier = load_classifier(str(folder / "calm"))
    rows = list(classifier.rows([str(image)], [0, 1], topk=2))
    export(str(folder / "calm"), str(folder / "exported"))
    return {"values": {f"{part}.{key}": float(value.abs().max()) for part, values in calm.learned().items()
                       for key, value in values.items()},
            "as_undisturbed": calm.digest_of_learned() == resumed.digest_of_learned(),
            "resumed": "Resuming from" in (folder / "killed" / "log.txt").read_text(),
            "loaded": tested.digest_of_learned() == calm.digest_of_learned(),
            "accuracies": [results(folder / place)["overall_metric"] for place in ("calm", "killed", "tested")],
            "gradients": gradient_difference(run("double", "--no-train", **{f"TRAINER.{calm.node}.PREC": "fp64"}), calm),
            "predicted": rows, "exported": sorted(path.name for path in (folder / "exported").iterdir())}


def gradient_difference(trainer, trained):
    """Largest difference of a batch's gradients with and without MODEL.TEXT_CHUNK, in double, over the largest."""
    values = trained.learned()
    trainer.set_learned({part: {key: value.double() if value.is_floating_point() else value
                                for key, value in values[part].items()} for part in values})
    trainer.build_optimizer()
    images, labels = next(iter(trainer.make_train_loader()))
    found = []
    for chunk in (-1, 3):
        trainer.model.text_encoder.chunk = chunk
        trainer.optimizer.zero_grad()
        trainer.add_gradients(images, labels)
        found.append([value.grad.clone() for value in trainer.trained])
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(*found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):
        said = main(*sys.argv[1:])
    print(json.dumps(said))
