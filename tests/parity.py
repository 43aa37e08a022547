"""Check this implementation against stored numbers of the published one.

    python -m tests.parity DIR [--case NAME]

`DIR` is laid out like `tests/data/parity`: `cases.json` (tasks, classes, and per case weights, trainer, options),
`batches.npz` (images, labels), per case `<case>.npz` and, where there is one, `checkpoints/<case>/<part>/`. Or like
`tests/data/parity/methods`, see `tests/parity_methods.py`.
"""

import argparse
import contextlib
import io
import json
import os.path as osp
import sys

import numpy as np
import torch

import datasets  # noqa: F401  registers the datasets
import trainers  # noqa: F401  registers the methods
from datasets.base import Task
from runs.config import make_cfg
from runs.methods import TRAINERS

TOLERANCE = 2e-4
NUDGE = 2e-6  # the relative error that the stored first logits, made from the same values, have in float32
N_BATCHES = 2  # per epoch, of the stored runs


def relative_error(ours, stored):
    """Largest absolute difference over the largest stored magnitude."""
    ours, stored = np.asarray(ours, dtype=np.float64), np.asarray(stored, dtype=np.float64)
    assert ours.shape == stored.shape, f"shape {ours.shape} instead of {stored.shape}"
    return float(np.abs(ours - stored).max() / np.abs(stored).max())


def build_trainer(name, weights, tasks, size, options):
    """A trainer as `train.py` builds it, but for the data: only the tasks are known.

    Args:
        options: {config key: value} besides those of all stored runs.
    """
    options = {"USE_CUDA": False, "SEED": 1, "TRAINER.NAME": name, "INPUT.SIZE": (size, size),
               "MODEL.BACKBONE.NAME": weights, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.002, "OPTIM.MAX_EPOCH": 50,
               "OPTIM.LR_SCHEDULER": "cosine", **options}
    return TRAINERS[name](make_cfg(options), tasks)


def make_trainer(folder, suite, case, size):
    """The case's trainer; tasks and classes come from `cases.json`."""
    tasks = [Task(name, tuple(classes)) for name, classes in zip(suite["tasks"], suite["classes"])]
    return build_trainer(case["trainer"], osp.join(folder, case["weights"]), tasks, size, {
        "OPTIM.WARMUP_EPOCH": 1, "OPTIM.WARMUP_TYPE": "constant", "OPTIM.WARMUP_CONS_LR": 1e-5, **case["opts"]})


def stored_start(folder, suite, name):
    """{parameter: array} that a case starts from.

    What a case freezes is not stored with it; it is taken from a case that drew the same values (same seed).
    """
    stored = np.load(osp.join(folder, f"{name}.npz"))
    start = {key[5:]: stored[key] for key in stored.files if key.startswith("init/")}
    if suite["cases"][name]["opts"].get("TRAINER.MTCOOP.FREEZE_CLS_PROMPT"):
        for other in suite["cases"]:
            theirs = np.load(osp.join(folder, f"{other}.npz"))
            task, cls = "init/task_prompt_learner.ctx", "init/class_prompt_learner.ctx"
            if cls in theirs.files and np.array_equal(theirs[task], stored[task]):
                return {**start, "class_prompt_learner.ctx": theirs[cls]}
        raise ValueError(f"{folder} has no case with the class context that {name} freezes")
    return start


def check_case(folder, suite, name, nudge=0.0):
    """Run a stored case.

    Args:
        nudge: relative size of a random change of the initial values.

    Returns:
        {quantity: largest relative error against the stored numbers}, {quantity: our numbers}.
    """
    case = suite["cases"][name]
    stored = np.load(osp.join(folder, f"{name}.npz"))
    batches = np.load(osp.join(folder, "batches.npz"))
    images = torch.from_numpy(batches["images"])  # (4, 12, 3, size, size)
    labels = torch.from_numpy((batches["labels"] == 1).argmax(-1))  # (4, 12)
    trainer = make_trainer(folder, suite, case, images.shape[-1])
    model = trainer.model
    stepped = trainer.parts()
    assert sorted(stepped) == sorted(case["parts"]), f"trained parts are {stepped}, not {case['parts']}"
    assert trainer.n_params == case["params"], f"{trainer.n_params} learned values, not {case['params']}"

    values = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(0)
    for key, value in stored_start(folder, suite, name).items():
        start = torch.from_numpy(value)
        values[key].data.copy_(start + nudge * start * torch.randn(start.shape, generator=generator))

    def logits():
        with torch.no_grad():
            return model.score(features[0], model.class_features())

    with torch.no_grad():
        features = [model.image_encoder(batch) for batch in images]
    ours = {"image features": features[0], "logits": logits()}
    theirs = {"image features": stored["image_features"], "logits": stored["logits"]}
    losses, rates = [], []
    for step in range(len(stored["losses"])):
        batch = step % len(images)
        rates.append(trainer.learning_rate())
        losses.append(trainer.step(features[batch], labels[batch], trainer.repeats)["loss"].item())
        if (step + 1) % N_BATCHES == 0:
            end_epoch(trainer)
    ours.update({"losses": losses, "rates": rates})
    theirs.update({"losses": stored["losses"], "rates": stored["lrs"]})
    for key in stored.files:
        if key.startswith("final/"):
            ours[f"final {key[6:]}"], theirs[f"final {key[6:]}"] = values[key[6:]].detach(), stored[key]
    ours["final logits"], theirs["final logits"] = logits(), stored["final_logits"]
    checkpoint = osp.join(folder, "checkpoints", name)
    if osp.isdir(checkpoint):
        trainer = make_trainer(folder, suite, case, images.shape[-1])
        trainer.load_model(checkpoint, 3)
        model = trainer.model
        ours["loaded logits"], theirs["loaded logits"] = logits(), stored["final_logits"]
    ours["rates of 50 epochs"] = epoch_rates(folder, suite, case, images.shape[-1])
    theirs["rates of 50 epochs"] = stored["epoch_lrs"]
    return {quantity: relative_error(ours[quantity], theirs[quantity]) for quantity in ours}, ours


def rounding_limits(folder, suite, name, ours):
    """How far each quantity moves when the initial values move by float32's rounding, {quantity: relative change}.

    Some stored trajectories are ill-conditioned: two runs that differ in rounding alone part by more than the
    tolerance within six steps (a step of theirs moves a context by four times its norm). There an error cannot be
    told from rounding unless it is larger than this.
    """
    limits = dict.fromkeys(ours, 0.0)
    for sign in (1, -1):
        nudged = check_case(folder, suite, name, sign * NUDGE)[1]
        for quantity in ours:
            limits[quantity] = max(limits[quantity], relative_error(nudged[quantity], ours[quantity]))
    return limits


def end_epoch(trainer):
    """Step the schedulers as `MultiTaskTrainer.train` does after an epoch."""
    for _ in range(trainer.repeats):
        trainer.sched.step()


def epoch_rates(folder, suite, case, size):
    """The rate at the start of each of 50 epochs."""
    trainer = make_trainer(folder, suite, case, size)
    rates = []
    for _ in range(50):
        rates.append(trainer.learning_rate())
        trainer.optim.step()  # nothing has a gradient; the scheduler wants it before its own step
        end_epoch(trainer)
    return rates


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", help="folder with cases.json or methods.json")
    parser.add_argument("--case", help="check this case, or method, only")
    args = parser.parse_args(argv)
    if osp.isfile(osp.join(args.dir, "methods.json")):
        from . import parity_methods
        return parity_methods.check_folder(args.dir, args.case)
    path = osp.join(args.dir, "cases.json")
    if not osp.isfile(path):
        sys.exit(f"error: {path} does not exist: give a folder laid out like tests/data/parity")
    with open(path, encoding="utf-8") as f:
        suite = json.load(f)
    if args.case and args.case not in suite["cases"]:
        sys.exit(f"error: {path} has no case {args.case!r}, it has {', '.join(suite['cases'])}")
    names = [args.case] if args.case else list(suite["cases"])
    failed = ill = 0
    for name in names:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what the trainers say
                errors, ours = check_case(args.dir, suite, name)
                beyond = [quantity for quantity, error in errors.items() if not error <= TOLERANCE]
                limits = rounding_limits(args.dir, suite, name, ours) if beyond else {}
        except Exception as error:
            line, passed = f"{type(error).__name__}: {error}", False
        else:
            passed = all(errors[quantity] <= limits[quantity] for quantity in beyond)
            line = "  ".join(f"{quantity} {value:.1e}" + (f" (rounding alone: {limits[quantity]:.1e})"
                                                          if quantity in beyond else "")
                             for quantity, value in errors.items())
            ill += passed and bool(beyond)
        failed += not passed
        print(f"{'FAIL' if not passed else 'ill ' if beyond else 'ok  '} {name:28s} {line}", flush=True)
    print(f"{len(names) - failed} of {len(names)} cases agree: {len(names) - failed - ill} to {TOLERANCE:g}, {ill} "
          "(marked ill) to what float32's rounding leaves of their ill-conditioned trajectories")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
