"""How the code is built: one loop that can be read, methods that declare themselves, and who imports whom."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from runs.methods import TRAINERS
from tests.helpers import REPOSITORY, call, results, train_args
from tests.tracer import changes, tracing
from trainers.multitask import MultiTaskTrainer

LEARNING = ["MTCoOp", "MTCoOpHard", "KgCoOp", "ProGrad", "CoCoOp", "PLOT"]


def test_a_run_is_one_method_that_no_method_overrides():
    assert len(inspect.getsource(MultiTaskTrainer.train).splitlines()) <= 80
    for name, trainer in TRAINERS.items():
        assert trainer.train is MultiTaskTrainer.train, name


@pytest.mark.parametrize("name", LEARNING)
def test_a_step_changes_class_at_most_six_times(name, photo_root, backbone, tmp_path):
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "DATALOADER.TRAIN_X.BATCH_SIZE": 4}
    if name == "CoCoOp":
        options["TRAINER.COCOOP.MAX_PROMPTS"] = 1024
    trainer = call(train_args(photo_root, backbone, tmp_path / "run", name, "--no-train", **options))
    features, labels = next(iter(trainer.make_train_loader()))
    with tracing(trainer, trainer.model) as calls:
        trainer.step(features, labels, trainer.repeats)
    assert calls[0].endswith(".step") and any(call.endswith(".losses") for call in calls)
    assert changes(calls) <= 6, calls


def test_the_tracer_sees_changes():
    class Base:
        def f(self):
            return self.g()

    class Child(Base):
        def g(self):
            return 1

    child = Child()
    with tracing(child) as calls:
        child.f()
        child.f()
    assert calls == ["Base.f", "Child.g", "Base.f", "Child.g"] and changes(calls) == 3


def test_no_loader_is_made_that_is_not_iterated(photo_root, backbone, tmp_path, monkeypatch):
    made, iterated = [], set()
    loader = torch.utils.data.DataLoader
    init, iterate = loader.__init__, loader.__iter__

    def counted(self, *args, **kwargs):
        made.append(self)
        init(self, *args, **kwargs)

    def noted(self):
        iterated.add(id(self))
        return iterate(self)

    monkeypatch.setattr(loader, "__init__", counted)
    monkeypatch.setattr(loader, "__iter__", noted)
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOpHard", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", "DATALOADER.FEATURE_CACHE": False}))
    assert made and {id(loader) for loader in made} == iterated


TOY = '''"""A toy: CoOp with one context for all, whose loss is scaled."""

from torch.nn import functional as F

from common.keys import Key, Positive
from runs.methods import PREC, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import ContextCLIP


class ScaledCLIP(ContextCLIP):
    def losses(self, image_features, labels):
        logits, targets = self(image_features, labels)
        return {"loss": F.cross_entropy(logits, targets)}, logits, targets


@register
class Toy(MultiTaskTrainer):
    """A toy."""

    node = "TOY"
    keys = {"PREC": PREC, "SCALE": Key(2.0, "of the loss", Positive)}
    rows = (Row("Toy-CLIP", 75),)

    def build_clip_model(self, clip_model):
        return ScaledCLIP(clip_model, self.tasks, 2, per="suite")

    @staticmethod
    def parts(options):
        return ["prompt_learner"]
'''


@pytest.mark.slow
def test_a_method_is_two_files(tmp_path, photo_root, backbone):
    """With its own file and its import it has keys, a command, a run and a row of the table in its place."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in subprocess.run(["git", "ls-files", "*.py", "configs", "scripts", "clip"], cwd=REPOSITORY, text=True,
                               capture_output=True, check=True).stdout.split():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy / name)
    (copy / "trainers" / "toy.py").write_text(TOY)
    with open(copy / "trainers" / "__init__.py", "a") as f:
        f.write("\nfrom . import toy  # noqa: E402, F401\n")

    def python(*arguments):
        return subprocess.run([sys.executable, *map(str, arguments)], cwd=copy, text=True, capture_output=True,
                              env={**os.environ, "PYTHONPATH": str(copy)})

    assert "| `TRAINER.TOY.SCALE` | `2.0` | of the loss | number above 0 |" in python("-m", "trainers", "--keys").stdout
    commands = python("-m", "trainers", "outfits16", "tiny_ep50", "--shots", "1", "--seeds", "1").stdout.splitlines()
    place = next(i for i, line in enumerate(commands) if line.startswith("Toy-CLIP|python train.py --root "))
    assert "/outfits16/Toy/tiny_ep50_1shots/seed1 --trainer Toy --seed 1 " in commands[place]
    assert commands[place - 1].startswith("CoOp-MT|") and commands[place + 1].startswith("CoCoOp|")
    for trainer in ("Toy", "CoCoOp"):
        done = python("train.py", *train_args(photo_root, backbone, tmp_path / "runs" / trainer, trainer,
                                              **{"DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 1}))
        assert done.returncode == 0, done.stderr[-2000:]
    assert results(tmp_path / "runs" / "Toy")["identity"]["TRAINER.TOY.SCALE"] == 2
    rows = python("parse_test_res.py", "--table", tmp_path / "runs").stdout
    assert 0 < rows.index("Toy-CLIP") < rows.index("CoCoOp")
    refused = python("train.py", *train_args(photo_root, backbone, tmp_path / "x", "Toy", **{"TRAINER.TOY.SCALE": 0}))
    assert refused.returncode == 1 and "TRAINER.TOY.SCALE is 0" in refused.stderr


def imports(room, rooms):
    """Names of the other rooms that a room's modules import."""
    names = set()
    for path in (REPOSITORY / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module)
    return {name.split(".")[0] for name in names} & rooms - {room}


def test_the_picture_of_the_rooms_is_true():
    """Each line of docs/layout.md names what a room imports, all of it and no more, and only rooms below it."""
    picture = (REPOSITORY / "docs" / "layout.md").read_text().split("```")[1].strip().splitlines()
    arrows = {room.strip(): set(below.split()) for room, below in (line.split("->") for line in picture)}
    tracked = subprocess.run(["git", "ls-files", "*/*.py"], cwd=REPOSITORY, text=True, capture_output=True,
                             check=True).stdout.split()
    assert set(arrows) == {name.split("/")[0] for name in tracked} - {"tests"} and len(picture) <= 20
    order = list(arrows)
    for room, below in arrows.items():
        assert imports(room, set(arrows)) == below, room
        assert all(order.index(other) > order.index(room) for other in below), room


def test_no_method_is_named_outside_its_own_file():
    named = re.compile("ProtoNet|LinearProbe|LP-CLIP|Zeroshot|CoCoOp|PLOT|MTCoOp")
    allowed = ("tests/", "benchmarks/", "runs/paper.py", "trainers/__init__.py")
    own = {inspect.getsourcefile(trainer) for trainer in TRAINERS.values()}
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=REPOSITORY, text=True, capture_output=True,
                             check=True).stdout.split()
    for name in tracked:
        if not name.startswith(allowed) and str(REPOSITORY / name) not in own:
            assert not named.search((REPOSITORY / name).read_text()), name
