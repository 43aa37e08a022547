"""The worked methods of docs/extending.md, added to a copy of the tree as their users would, and put to all uses."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from datasets.base import Task
from learned.loading import load_classifier
from runs.config import make_cfg
from runs.methods import TRAINERS
from tests.helpers import REPOSITORY, call, train_args
from trainers.multitask_clip import MultiTaskCLIP
from trainers.zsclip import TemplateCLIP, ZeroshotCLIP

WORKED = sorted(path.stem for path in (REPOSITORY / "tests" / "worked").glob("*.py"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the tree in which each worked method is two files: its own, and its import."""
    copy = tmp_path_factory.mktemp("copy")
    names = subprocess.run(["git", "ls-files", "-c", "-o", "--exclude-standard", "*.py", "configs", "scripts", "clip"],
                           cwd=REPOSITORY, text=True, capture_output=True, check=True).stdout.split()
    for name in filter(lambda name: (REPOSITORY / name).is_file(), names):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy / name)
    for name in WORKED:
        shutil.copy(REPOSITORY / "tests" / "worked" / f"{name}.py", copy / "trainers")
    with open(copy / "trainers" / "__init__.py", "a") as f:
        f.write(f"\nfrom . import {', '.join(WORKED)}  # noqa: E402, F401\n")
    return copy


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The images of Outfits16, which are made once."""
    return tmp_path_factory.mktemp("data")


def drive(copy, data, name, folder):
    """What `tests.drive_method` found of a method, whose run is killed first."""
    folder.mkdir(exist_ok=True)
    (folder / "data").symlink_to(data)
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "tests.drive_method", name, str(folder)]
    killed = subprocess.run([*command, "--kill"], cwd=copy, env=environment, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr[-2000:]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AnchoredCoOp", "ImageCache", "TwoTowerLoRA"])
def test_a_worked_method_is_trained_killed_resumed_tested_predicted_and_exported(name, copy, data, tmp_path):
    found = drive(copy, data, name, tmp_path / "runs")
    assert found["as_undisturbed"] and found["resumed"] and found["loaded"]
    assert len(set(found["accuracies"])) == 1
    assert found["gradients"] <= 1e-12  # chunked or not
    assert [row["task"] for row in found["predicted"]] == ["hat colour", "hat pattern"]
    assert "classifier.onnx" in found["exported"]
    if name == "TwoTowerLoRA":  # two weights of the image tower, three or more of the text tower
        moved = [value for key, value in found["values"].items() if key.endswith(".b")]
        assert len(moved) > 4 and min(moved) > 1e-5


def test_docs_show_the_worked_methods_as_they_are():
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "extending.md").read_text(), re.S)
    for name in WORKED:
        code = (REPOSITORY / "tests" / "worked" / f"{name}.py").read_text()
        assert code in blocks and len(code.splitlines()) <= 60, name


def test_the_linear_probe_is_scikit_learn_s(photo_root, backbone, tmp_path):
    trainer = call(train_args(photo_root, backbone, tmp_path / "run", "LinearProbe", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", "DATASET.NUM_SHOTS": 4}))
    (x, y), (x_test, _) = trainer.features("train"), trainer.features("test")
    images = [datum.impath for datum in trainer.plain_images["test"].data_source]
    classifier, first = load_classifier(str(tmp_path / "run")), 0
    assert len(images) == len(x_test)
    predicted = classifier.probabilities(x_test)
    for number, task in enumerate(trainer.tasks):
        own = (y >= first) & (y < first + len(task.classnames))
        c = float(trainer.model.classifier.c[number])
        fitted = LogisticRegression(solver="lbfgs", max_iter=1000, C=c).fit(x[own].numpy(), y[own].numpy())
        np.testing.assert_allclose(predicted[number].numpy(), fitted.predict_proba(x_test.numpy()), atol=1e-5)
        first += len(task.classnames)


# ---------------------------------------------------------------- what a method may not do in silence
class ScaledCLIP(TemplateCLIP):
    """Zero-shot CLIP with a learned weight, and perhaps a tower or another value that learns."""

    def __init__(self, clip_model, tasks, learns=""):
        super().__init__(clip_model, tasks)
        self.scale = torch.nn.Linear(1, 1)
        if learns:
            next(getattr(self, learns).parameters()).requires_grad_()

    def score(self, image_features, class_features):
        return self.scale.weight * super().score(image_features, class_features) + self.scale.bias


def trainer_of(backbone, **attributes):
    """A trainer of `ScaledCLIP` with other class `attributes`."""
    methods = {"steps": classmethod(lambda cls, cfg: True), "parts": staticmethod(lambda options: ["scale"]),
               "build_clip_model": lambda self, clip_model: ScaledCLIP(clip_model, self.tasks), **attributes}
    cfg = make_cfg({"MODEL.BACKBONE.NAME": backbone, "INPUT.SIZE": (32, 32), "OPTIM.LR": 0.01})
    return type("Scaled", (ZeroshotCLIP,), methods)(cfg, [Task("a", ("x", "y"))])


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_tower_that_learns_without_saying_so_is_refused_when_it_is_built(tower, backbone):
    def build(self, clip_model):
        return ScaledCLIP(clip_model, self.tasks, f"{tower}_encoder")

    with pytest.raises(TypeError, match=f"Scaled learns values of the {tower} tower: set its learns_{tower}s True"):
        trainer_of(backbone, build_clip_model=build)


def test_learned_values_that_would_not_be_saved_are_refused(backbone):
    trainer_of(backbone).build_optimizer()
    with pytest.raises(TypeError, match="learns scale.weight, which is in none of its parts"):
        trainer_of(backbone, parts=staticmethod(lambda options: [])).build_optimizer()
    with pytest.raises(TypeError, match=r"has 2 values for an optimizer, but steps\(\) is False"):
        trainer_of(backbone, steps=classmethod(lambda cls, cfg: False)).build_optimizer()


def test_values_that_get_no_gradient_stop_the_run(backbone):
    class Deaf(ScaledCLIP):
        score = MultiTaskCLIP.score

        def losses(self, images, labels):
            losses, *rest = super().losses(images, labels)
            return {"loss": losses["loss"] + self.scale.weight.sum()}, *rest

    trainer = trainer_of(backbone, build_clip_model=lambda self, clip_model: Deaf(clip_model, self.tasks))
    trainer.build_optimizer()
    trainer.step(torch.randn(3, 64), torch.tensor([0, 1, 0]), 1)
    with pytest.raises(TypeError, match="^scale.bias got no gradient in epoch 1: the losses of Scaled do not depend"):
        trainer.check_learned()


def test_a_method_s_own_schedule_counts_after_yaml_files_and_before_the_command_line(tmp_path, monkeypatch):
    from runs.config import build_parser, setup_cfg

    monkeypatch.setattr(TRAINERS["KgCoOp"], "optim", {
        "OPTIM.LR": 0.5, "OPTIM.MAX_EPOCH": lambda cfg: 10 * cfg.DATASET.NUM_SHOTS})
    (tmp_path / "a.yaml").write_text("TRAINER:\n  NAME: KgCoOp\nOPTIM:\n  LR: 0.1\n  MAX_EPOCH: 3\n")

    def cfg(*words):
        return setup_cfg(build_parser().parse_args(["--seed", "1", "--config-file", str(tmp_path / "a.yaml"), *words]))

    found = cfg("DATASET.NUM_SHOTS", "4")
    assert (found.OPTIM.LR, found.OPTIM.MAX_EPOCH) == (0.5, 40)
    assert found.sources["OPTIM.LR"] == "in KgCoOp's own schedule" and found.computed == ["OPTIM.MAX_EPOCH"]
    assert cfg("OPTIM.MAX_EPOCH", "40", "DATASET.NUM_SHOTS", "4").computed == []
    found = cfg("OPTIM.LR", "0.2", "DATASET.NUM_SHOTS", "4")
    assert (found.OPTIM.LR, found.sources["OPTIM.LR"]) == (0.2, "on the command line")
