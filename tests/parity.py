"""Check this implementation against stored numbers of the published one.

    python -m tests.parity DIR [--case NAME]

`DIR` is laid out like `tests/data/parity`: `cases.json` (tasks, classes, and per case weights, trainer, options),
`batches.npz` (images, labels, and the features of the images by weights), per case `<case>.npz` and, where there is
one, `checkpoints/<case>/<part>/`. Or like `tests/data/parity/methods`, see `tests/parity_methods.py`.

The published code computed the numbers in float64 (only image features are float32, and given), so that rounding
can't grow into anything over some training steps. In float32 the same cases are checked before training, and loaded
checkpoints; a folder whose `batches.npz` has no features holds float32 numbers, of which nothing else is checked.
"""

import argparse
import contextlib
import io
import json
import os.path as osp
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from datasets.base import Task
from runs.config import make_cfg
from runs.methods import TRAINERS

TOLERANCE = 1e-9
FLOAT32_TOLERANCE = 2e-4
USE_CUDA = False  # test_gpu.py sets it
FLOAT32 = "float32 "  # what the names of quantities computed in float32 start with
N_BATCHES = 2  # per epoch, of the stored runs


def relative_error(ours, stored):
    """Largest absolute difference over the largest stored magnitude; of values that are all 0 the former alone."""
    ours, stored = (np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
                    for value in (ours, stored))
    assert ours.shape == stored.shape, f"shape {ours.shape} instead of {stored.shape}"
    return float(np.abs(ours - stored).max() / (np.abs(stored).max() or 1))


def build_trainer(name, weights, tasks, size, options):
    """As `make`, with its optimizer."""
    trainer = make(name, weights, tasks, size, options)
    trainer.build_optimizer()
    return trainer


def make(name, weights, tasks, size, options):
    """A trainer as `train.py` builds it, but for the data: only the tasks are known.

    Args:
        options: {config key: value} besides those of all stored runs.
    """
    options = {"USE_CUDA": USE_CUDA, "SEED": 1, "TRAINER.NAME": name, "INPUT.SIZE": (size, size),
               "MODEL.BACKBONE.NAME": weights, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.002, "OPTIM.MAX_EPOCH": 50,
               "OPTIM.LR_SCHEDULER": "cosine", **options}
    return TRAINERS[name](make_cfg(options), tasks)


def make_trainer(folder, suite, case, size, prec):
    """The case's trainer, computing in `prec`; tasks and classes come from `cases.json`."""
    tasks = [Task(name, tuple(classes)) for name, classes in zip(suite["tasks"], suite["classes"])]
    options = {key: prec if key.endswith(".PREC") else value for key, value in case["opts"].items()}
    return build_trainer(case["trainer"], osp.join(folder, case["weights"]), tasks, size, {
        "OPTIM.WARMUP_EPOCH": 1, "OPTIM.WARMUP_TYPE": "constant", "OPTIM.WARMUP_CONS_LR": 1e-5, **options})


def start_as_stored(trainer, folder, suite, name):
    """Copy the case's initial values into its trainer.

    What a case does not store, since it does not learn it, is that of a case which starts from the same values.

    Raises:
        ValueError: no case stores it.
    """
    def stored_start(case):
        stored = np.load(osp.join(folder, f"{case}.npz"))
        return {key[len("init/"):]: stored[key] for key in stored.files if key.startswith("init/")}

    values = {f"{part}.{key}": value for part, module in trainer.saved.items()
              for key, value in module.named_parameters()}
    start = stored_start(name)
    others = (stored_start(case) for case in suite["cases"]) if set(values) - set(start) else ()
    for other in others:
        if set(values) <= set(other) and all(np.array_equal(other[key], value) for key, value in start.items()):
            start = other
            break
    if set(values) - set(start):
        raise ValueError(f"{folder} does not hold where {sorted(set(values) - set(start))} of {name} start")
    for key, value in values.items():
        value.data.copy_(torch.from_numpy(start[key]))


@torch.no_grad()
def logits_of(model, features):
    return model.score(features, model.class_features())


def check_training(folder, suite, name):
    """Run a stored case in float64: {quantity: largest relative error against the stored numbers}."""
    case = suite["cases"][name]
    stored, batches = np.load(osp.join(folder, f"{name}.npz")), np.load(osp.join(folder, "batches.npz"))
    tower = Path(case["weights"]).stem.replace("clip_", "features_")
    features = torch.from_numpy(batches[tower])  # (4, 12, dim)
    labels = torch.from_numpy((batches["labels"] == 1).argmax(-1))  # (4, 12)
    trainer = make_trainer(folder, suite, case, batches["images"].shape[-1], "fp64")
    stepped = trainer.parts(trainer.options)
    assert sorted(stepped) == sorted(case["parts"]), f"trained parts are {stepped}, not {case['parts']}"
    assert trainer.n_params == case["params"], f"{trainer.n_params} learned values, not {case['params']}"
    features, labels = features.to(trainer.device), labels.to(trainer.device)
    start_as_stored(trainer, folder, suite, name)

    ours = {"logits": logits_of(trainer.model, features[0]), "losses": [], "lrs": []}
    for step in range(len(stored["losses"])):
        batch = step % len(features)
        ours["lrs"].append(trainer.learning_rate())
        ours["losses"].append(trainer.step(features[batch], labels[batch], trainer.repeats)["loss"].item())
        if (step + 1) % N_BATCHES == 0:
            end_epoch(trainer)
    values = dict(trainer.model.named_parameters())
    ours |= {key: values[key[len("final/"):]].detach() for key in stored.files if key.startswith("final/")}
    ours["final_logits"] = logits_of(trainer.model, features[0])
    return {quantity: relative_error(value, stored[quantity]) for quantity, value in ours.items()}


def check_float32(folder, suite, name):
    """What of a case is as certain in float32, as `check_training`: what precedes training, and a loaded checkpoint."""
    case = suite["cases"][name]
    stored, batches = np.load(osp.join(folder, f"{name}.npz")), np.load(osp.join(folder, "batches.npz"))
    images = torch.from_numpy(batches["images"][0])  # (12, 3, size, size)
    trainer = make_trainer(folder, suite, case, images.shape[-1], "fp32")
    start_as_stored(trainer, folder, suite, name)
    with torch.no_grad():
        features = trainer.model.image_encoder(images.to(trainer.device))
    ours = {"image_features": features, "logits": logits_of(trainer.model, features), "epoch_lrs": epoch_rates(trainer)}
    errors = {quantity: relative_error(value, stored[quantity]) for quantity, value in ours.items()}
    checkpoint = osp.join(folder, "checkpoints", name)
    if osp.isdir(checkpoint):
        trainer.load_model(checkpoint, 3)
        logits = osp.join(checkpoint, "final_logits.npy")  # where the checkpoint is of another run than the numbers
        expected = np.load(logits) if osp.isfile(logits) else stored["final_logits"]
        errors["loaded logits"] = relative_error(logits_of(trainer.model, features), expected)
    return {FLOAT32 + quantity: error for quantity, error in errors.items()}


def end_epoch(trainer):
    """Step the schedulers as `MultiTaskTrainer.train` does after an epoch."""
    for _ in range(trainer.repeats):
        trainer.scheduler.step()


def epoch_rates(trainer):
    """The rate at the start of each of 50 epochs of a trainer that has no gradients yet."""
    rates = []
    for _ in range(50):
        rates.append(trainer.learning_rate())
        trainer.optimizer.step()  # nothing has a gradient; the scheduler wants it before its own step
        end_epoch(trainer)
    return rates


def unpack(folder, target):
    """Fill the folder `target` with links to what is in `folder`, and with the `.pt` files of its packed weights.

    Of a text tower alone, `<name>_text.npz`, image features are given; the image tower of `../clip_vit.npz`
    completes it.
    """
    folder, target = Path(folder).resolve(), Path(target)
    packed = list(folder.glob("clip*.npz"))
    for entry in folder.iterdir():
        if entry not in packed:
            (target / entry.name).symlink_to(entry)
    for path in packed:
        weights = dict(np.load(path))
        if path.stem.endswith("_text"):
            whole = np.load(folder.parent / "clip_vit.npz")
            weights |= {name: whole[name] for name in whole.files if name.startswith("visual.")}
        torch.save({name: torch.from_numpy(value) for name, value in weights.items()},
                   target / f"{path.stem.removesuffix('_text')}.pt")


def report(names, check):
    """Print a line for each of `names`, whose `check(name)` returns {quantity: error}; returns how many agree."""
    agree = 0
    for name in names:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what the trainers say
                errors = check(name)
        except Exception as error:
            line, passed = f"{type(error).__name__}: {error}", False
        else:
            line = "  ".join(f"{quantity} {error:.1e}" for quantity, error in errors.items())
            passed = all(error <= (FLOAT32_TOLERANCE if quantity.startswith(FLOAT32) else TOLERANCE)
                         for quantity, error in errors.items())
        agree += passed
        print(f"{'ok  ' if passed else 'FAIL'} {name:26s} {line}", flush=True)
    return agree


def check_folder(folder, only=None):
    """Check all cases of a folder, or methods, or the one called `only`; returns the exit status."""
    from . import parity_methods, parity_new
    if osp.isdir(osp.join(folder, "common")):
        return parity_new.check_folder(folder, only)
    is_methods = osp.isfile(osp.join(folder, "methods.json"))
    path = osp.join(folder, "methods.json" if is_methods else "cases.json")
    if not osp.isfile(path):
        sys.exit(f"error: {path} does not exist: give a folder laid out like tests/data/parity")
    with open(path, encoding="utf-8") as f:
        suite = json.load(f)
    known = suite if is_methods else suite["cases"]
    if only and only not in known:
        sys.exit(f"error: {path} has no case {only!r}, it has {', '.join(known)}")
    names = [only] if only else list(known)
    tolerance, limits = TOLERANCE, ""
    if is_methods:
        agree = report(names, lambda name: parity_methods.check_method(folder, suite, name))
    elif any(name.startswith("features_") for name in np.load(osp.join(folder, "batches.npz")).files):
        agree = report(names, lambda name: check_training(folder, suite, name) | check_float32(folder, suite, name))
        print(f"(the numbers named {FLOAT32.strip()}, which are of no training, to {FLOAT32_TOLERANCE:g})")
    else:
        agree = report(names, lambda name: check_float32(folder, suite, name))
        tolerance, limits = FLOAT32_TOLERANCE, (" in first logits, rates and loaded checkpoints only: this folder's "
                                                "numbers are float32, too coarse to check training by")
    print(f"{agree} of {len(names)} cases agree to {tolerance:g}{limits}")
    return 0 if agree == len(names) else 1


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", help="folder with cases.json or methods.json")
    parser.add_argument("--case", help="check this case, or method, only")
    args = parser.parse_args(argv)
    if not list(Path(args.dir).glob("clip*.npz")):
        return check_folder(args.dir, args.case)
    with tempfile.TemporaryDirectory() as folder:
        unpack(args.dir, folder)
        return check_folder(folder, args.case)


if __name__ == "__main__":
    sys.exit(main())
