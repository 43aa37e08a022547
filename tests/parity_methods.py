"""Check the methods besides SoftCPT and CoOp against stored numbers of their published code, on one task.

`DIR` of `python -m tests.parity DIR` is then laid out like `tests/data/parity/methods`: `methods.json` (per method
weights, classes, losses of three steps, names and number of the learned values) and per method `<method>.npz`:
`features` (3, 6, dim) of three batches of images (or PLOT's, see `image_features`), `labels` (3, 6), `init/*`,
`logits` of batch 0, `grad0/*` (what the optimizer sees first), after three steps `final/*` and `final_logits`, perhaps
`zero_shot_features` and `zero_shot_logits` of batch 0. All but the features are float64.
"""

import os.path as osp

import numpy as np
import torch

from clip import clip
from datasets.base import Task

from .parity import build_trainer, relative_error

FLOWERS = "a photo of a {}, a type of flower."
# Per method our trainer, its options for what the stored run had, and the template of its code for these classes.
METHODS = {
    "cocoop": ("CoCoOp", {"TRAINER.COCOOP.CTX_INIT": "", "TRAINER.COCOOP.N_CTX": 4}, FLOWERS),
    "kgcoop": ("KgCoOp", {"TRAINER.KGCOOP.CTX_INIT": "", "TRAINER.KGCOOP.N_CTX": 16}, FLOWERS),
    "plot": ("PLOT", {}, FLOWERS),
    "prograd": ("ProGrad", {"TRAINER.PROGRAD.CTX_INIT": "", "TRAINER.PROGRAD.N_CTX": 16},
                "a type of flower, a photo of a {}."),
}
LEARNER = "learners.0."  # in our names, since every task has a learner of its own


def image_features(name, stored):
    """Features of three batches as our trainers take them.

    PLOT's are stored as its tower returns them, (3, 1 + places, 6, dim), of which the first is the whole image's.
    """
    return stored["features"][:, 1:].transpose(1, 2) if name == "plot" else stored["features"]


def check_method(folder, methods, name):
    """Run a stored method in float64; returns {quantity: largest relative error}."""
    if name not in METHODS:
        raise ValueError(f"no trainer is known for it, only for {', '.join(METHODS)}")
    stored = {key: torch.from_numpy(value) for key, value in np.load(osp.join(folder, f"{name}.npz")).items()}
    method = methods[name]
    trainer_name, options, template = METHODS[name]
    tasks = [Task("the task", tuple(method["classes"]), template)]
    weights = osp.join(folder, method["weights"])
    size = clip.load(weights, device="cpu")[0].visual.input_resolution
    trainer = build_trainer(trainer_name, weights, tasks, size,
                            {f"TRAINER.{trainer_name.upper()}.PREC": "fp64", **options})
    model = trainer.model
    features, labels = (value.to(trainer.device) for value in (image_features(name, stored), stored["labels"]))
    values = {key.replace(LEARNER, ""): value for key, value in model.named_parameters() if value.requires_grad}
    assert sorted(values) == sorted(method["trained"]), f"learned are {sorted(values)}, not {method['trained']}"
    assert trainer.n_params == method["params"], f"{trainer.n_params} learned values, not {method['params']}"
    for key, value in values.items():
        value.data.copy_(stored[f"init/{key}"])

    def logits():
        with torch.no_grad():
            return model.logits(features[0], labels[0], model.class_features())

    ours = {"logits": logits()}
    if "zero_shot_features" in stored:
        ours["zero_shot_features"] = model.zero_shot_features
    if "zero_shot_logits" in stored:
        ours["zero_shot_logits"] = model.teacher_logits(features[0], labels[0])
    steps = []
    for batch, target in zip(features, labels):  # of one epoch, so at a constant rate
        steps.append(trainer.step(batch, target, trainer.repeats))
        if len(steps) == 1:
            ours |= {f"grad0/{key}": value.grad.clone() for key, value in values.items()}
    ours |= {f"final/{key}": value.detach() for key, value in values.items()}
    ours["final_logits"] = logits()
    errors = {quantity: relative_error(value, stored[quantity]) for quantity, value in ours.items()}
    for key in method["losses"][0]:
        errors[key] = relative_error([float(step[key]) for step in steps], [step[key] for step in method["losses"]])
    return errors
