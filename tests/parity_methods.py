"""Check the methods besides SoftCPT and CoOp against stored numbers of their published code, on one task.

`DIR` of `python -m tests.parity DIR` is then laid out like `tests/data/parity/methods`: `methods.json` (per method
weights, classes, losses of three steps, names and number of the learned values) and per method `<method>.npz`:
`images` (3, 6, 3, size, size) or what the image tower makes of them (see `image_features`), `labels` (3, 6), `init/*`,
`logits` of batch 0, `grad0/*` (what the optimizer sees first), after three steps `final/*` and `final_logits`, perhaps
`zero_shot_features` and `zero_shot_logits` of batch 0.
"""

import contextlib
import io
import json
import os.path as osp
import sys

import numpy as np
import torch

from datasets.base import Task

from .parity import TOLERANCE, build_trainer, relative_error

FLOWERS = "a photo of a {}, a type of flower."
# Per method our trainer, its options for what the stored run had, and the template of its code for these classes.
METHODS = {
    "cocoop": ("CoCoOp", {"TRAINER.COCOOP.CTX_INIT": "", "TRAINER.COCOOP.N_CTX": 4}, FLOWERS),
    "kgcoop": ("KgCoOp", {"TRAINER.KGCOOP.CTX_INIT": "", "TRAINER.KGCOOP.N_CTX": 16}, FLOWERS),
    "plot": ("PLOT", {}, FLOWERS),
    "prograd": ("ProGrad", {"TRAINER.PROGRAD.CTX_INIT": "", "TRAINER.PROGRAD.N_CTX": 16},
                "a type of flower, a photo of a {}."),
}
FP16_TOLERANCE = 3e-3
LEARNER = "learners.0."  # in our names, since every task has a learner of its own


@torch.no_grad()
def image_features(encoder, images):
    """What the stored runs computed of `images` (3, 6, 3, size, size): features for training and for testing.

    They trained with the tower's batch norm in training mode: features follow the batch's statistics, and the running
    ones move from step to step, so those of the tests before and after training differ. A teacher's tower stayed as
    it was loaded.

    Returns:
        "features" of the three batches, those of "teacher", and "last" of batch 0 after training.
    """
    teacher = torch.stack([encoder.eval()(batch) for batch in images])
    encoder.train()
    features = torch.stack([encoder(batch) for batch in images])
    return {"features": features, "teacher": teacher, "last": encoder.eval()(images[0])}


def check_method(folder, methods, name):
    """Run a stored method; returns {quantity: largest relative error}."""
    if name not in METHODS:
        raise ValueError(f"no trainer is known for it, only for {', '.join(METHODS)}")
    stored = {key: torch.from_numpy(value) for key, value in np.load(osp.join(folder, f"{name}.npz")).items()}
    method = methods[name]
    trainer_name, options, template = METHODS[name]
    tasks = [Task("the task", tuple(method["classes"]), template)]
    size = stored["images"].shape[-1] if "images" in stored else 32
    trainer = build_trainer(trainer_name, osp.join(folder, method["weights"]), tasks, size, options)
    model, labels = trainer.model, stored["labels"]
    values = {key.replace(LEARNER, ""): value for key, value in model.named_parameters() if value.requires_grad}
    assert sorted(values) == sorted(method["trained"]), f"learned are {sorted(values)}, not {method['trained']}"
    assert trainer.n_params == method["params"], f"{trainer.n_params} learned values, not {method['params']}"
    for key, value in values.items():
        value.data.copy_(stored[f"init/{key}"])
    images = image_features(model.image_encoder, stored["images"]) if "images" in stored else stored

    def logits(features):
        with torch.no_grad():
            return model.logits(features, labels[0], model.class_features())

    ours = {"logits": logits(images["teacher"][0])}
    if "zero_shot_features" in stored:  # these are fp16
        assert relative_error(model.zero_shot_features, stored["zero_shot_features"]) < FP16_TOLERANCE
        model.zero_shot_features = stored["zero_shot_features"]
    if "zero_shot_logits" in stored:
        taught = [model.teacher_logits(*batch).detach() for batch in zip(images["teacher"], labels)]
        ours["zero_shot_logits"] = taught[0]
        model.teacher_logits = lambda *batch: taught[len(steps)]
    steps = []
    for batch, target in zip(images["features"], labels):  # of one epoch, so at a constant rate
        steps.append(trainer.step(batch, target, trainer.repeats))
        if len(steps) == 1:
            ours |= {f"grad0/{key}": value.grad.clone() for key, value in values.items()}
    ours |= {f"final/{key}": value.detach() for key, value in values.items()}
    ours["final_logits"] = logits(images["last"])
    errors = {quantity: relative_error(value, stored[quantity]) for quantity, value in ours.items()}
    for key in method["losses"][0]:
        errors[key] = relative_error([float(step[key]) for step in steps], [step[key] for step in method["losses"]])
    return errors


def check_folder(folder, only=None):
    """Print a line per method; returns the exit status."""
    with open(osp.join(folder, "methods.json"), encoding="utf-8") as f:
        methods = json.load(f)
    if only and only not in methods:
        sys.exit(f"error: {folder} has no method {only!r}, it has {', '.join(methods)}")
    names = [only] if only else list(methods)
    failed = 0
    for name in names:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what the trainers say
                errors = check_method(folder, methods, name)
        except Exception as error:
            line, passed = f"{type(error).__name__}: {error}", False
        else:
            line = "  ".join(f"{quantity} {error:.1e}" for quantity, error in errors.items())
            passed = all(error <= TOLERANCE for error in errors.values())
        failed += not passed
        print(f"{'ok  ' if passed else 'FAIL'} {name:10s} {line}", flush=True)
    print(f"{len(names) - failed} of {len(names)} methods agree to {TOLERANCE:g}")
    return 1 if failed else 0
