"""Check further methods against stored numbers of their published code, one task each, in double precision.

A folder for `python -m tests.parity DIR` is laid out like `tests/data/parity_new`: `common/clip_vit.npz` (weights),
`common/images.npz` (for methods inside the towers) and per method `<method>/<case>.json` (classes, templates,
hyper-parameters) and `<case>.npz`: `in/*` inputs, `init/*` start values, `grad0/*` what the optimizer sees first,
`losses` and `lrs` per step, `final/*` learned values, logits.

The check of a method is `check(case)` of the module here that is called as its folder. It runs our own trainer on a
`Case` and returns {quantity: largest relative error}.
"""

import importlib
import json
import os.path as osp
import tempfile
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from datasets.base import Task
from tests import parity


def read(path):
    """{name: tensor} of an npz file, floats in double."""
    return {key: torch.from_numpy(value).double() if value.dtype.kind == "f" else torch.from_numpy(value)
            for key, value in np.load(path).items()}


class Case:
    """A stored case, and our trainer on its classes.

    Attributes:
        stored: {name: tensor} of its npz. about: its json. hyper: its hyper-parameters.
    """

    def __init__(self, folder, name, weights):
        self.weights = weights
        self.stored = read(osp.join(folder, f"{name}.npz"))
        with open(osp.join(folder, f"{name}.json"), encoding="utf-8") as f:
            self.about = json.load(f)
        self.hyper = self.about.get("hyper", {})

    def __getitem__(self, name):
        return self.stored[name]

    @cached_property
    def images(self):
        """{name: tensor} of `common/images.npz`, of the methods inside the towers."""
        return read(Path(self.weights).with_name("images.npz"))

    @cached_property
    def tasks(self):
        """The case's classes as one task; a published "_" in a name is read as it says."""
        templates = self.about.get("templates", ["a photo of a {}."])
        return [Task("the task", tuple(self.about["classes"]), templates[0] if len(templates) == 1 else tuple(templates))]

    def trainer(self, name, **options):
        """Our trainer `name` with these options of its node, in double. Its `features` are the stored ones.

        Nothing is prepared: call `trainer.prepare()`, set what the published code drew, `trainer.build_optimizer()`.
        """
        from runs.methods import TRAINERS

        node = TRAINERS[name].node
        given = {f"TRAINER.{node}.{key}" if key in TRAINERS[name].keys else key: value for key, value in options.items()}
        trainer = parity.make(name, self.weights, self.tasks, 32, {f"TRAINER.{node}.PREC": "fp64", **given})
        trainer.features = self.features
        trainer.train_images = SimpleNamespace(data_source=[
            SimpleNamespace(label=int(label)) for label in self.stored.get("in/labels", ())])
        return trainer

    def features(self, part, view=None):
        """(features, labels) as `MultiTaskTrainer.features`; without a view training images have the first one.

        Without stored features they are the pixels.
        """
        if f"in/{part}" not in self.stored and "in/views" not in self.stored:
            return self.images[f"{part}_images"], self.images[f"{part}_labels"]
        if part == "train":
            return self["in/views"][view or 0], self["in/labels"]
        return self[f"in/{part}"], self[f"in/{part}_labels"]

    def train(self, trainer, views, batch):
        """Train on the stored orders, batches of so many images and a view an epoch: yields {"losses", "lrs"} so far.

        A loss and a rate is of each step. What is yielded grows, once an epoch.
        """
        orders, said = self["in/orders"], {"losses": [], "lrs": []}
        trainer.build_optimizer()
        for view, order in zip(views, orders):
            for rows in order.split(batch):
                said["lrs"].append(trainer.learning_rate())
                shown = trainer.step(view[rows], self["in/labels"][rows], trainer.repeats)
                said["losses"].append(float(shown["loss"]))
                trainer.step_rate(by_batch=True)
            trainer.step_rate(by_batch=False)
            yield said

    def errors(self, ours):
        """{quantity: relative error} of our values, {name of a stored one: value}."""
        return {name: parity.relative_error(value, self[name]) for name, value in ours.items()}


def check_case(folder, name, weights):
    """{quantity: error} of the case `<method>/<case>` of a folder, on the CLIP in the file `weights`."""
    method, case = name.split("/")
    return importlib.import_module(f"tests.parity_new.{method}").check(Case(Path(folder) / method, case, weights))


def check_folder(folder, only=None):
    """Check all cases of a folder whose method has a module here, or those of the method `only`; returns the status."""
    folder, known = Path(folder), {path.stem for path in Path(__file__).parent.glob("[a-z]*.py")}
    methods = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name != "common"]
    names = [f"{method}/{path.stem}" for method in methods if only in (None, method)
             for path in sorted((folder / method).glob("*.json"))]
    missing = [name for name in names if name.split("/")[0] not in known]
    with tempfile.TemporaryDirectory() as made:
        parity.unpack(folder / "common", made)
        checked = [name for name in names if name not in missing]
        weights = osp.join(made, "clip_vit.pt")
        agree = parity.report(checked, lambda name: check_case(folder, name, weights))
    if missing:
        print(f"no trainer is checked on {', '.join(sorted({name.split('/')[0] for name in missing}))}")
    print(f"{agree} of {len(names)} cases agree to {parity.TOLERANCE:g}")
    return 0 if agree == len(names) else 1
