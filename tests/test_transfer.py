"""Testing a trained model on tasks and classes that it did not see in training, and when that is refused."""

import shutil
import sys

import pytest
import torch
from torch.nn import functional as F

import train
from clip import clip
from common.errors import UserError
from common.images import read_image
from dassl.data.transforms import build_transform
from tests import helpers
from tests.helpers import results, train_args
from tests.test_text_encoder import plain_features

# The same shapes as photo_root's two tasks, under other names.
OTHER = {"colour_naming": ("hue_guessing", {"red": "crimson", "green": "lime", "dark_blue": "navy"}),
         "lightness": ("brightness", {"dark": "dim", "light": "bright"})}
SOFT = {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 4, "TRAINER.MTCOOP.CLASS_N_CTX": 2}
VARIANTS = {
    "NATA": ("MTCoOp", {}), "NATS": ("MTCoOp", {"TRAINER.MTCOOP.TASK_CSC": True}),
    "CATA": ("MTCoOp", {"TRAINER.MTCOOP.CSC": True}),
    "frozen CATA": ("MTCoOp", {"TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.FREEZE_CLS_PROMPT": True}),
    "CSTA": ("MTCoOp", {"TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.CLASS_CSC": True}),
    "CATS": ("MTCoOp", {"TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.TASK_CSC": True}),
    "CSTS": ("MTCoOp", {"TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.CLASS_CSC": True, "TRAINER.MTCOOP.TASK_CSC": True}),
    "shared": ("MTCoOpHard", {}), "per task": ("MTCoOpHard", {"TRAINER.MTCOOPH.TSC": True}),
    "per class": ("MTCoOpHard", {"TRAINER.MTCOOPH.CSC": True}),
}
TIED_TO_TASKS = {"NATS": "MTCOOP.TASK_CSC", "CATS": "MTCOOP.TASK_CSC", "CSTS": "MTCOOP.TASK_CSC",
                 "per task": "MTCOOPH.TSC"}
TIED_TO_CLASSES = {"CSTA": "MTCOOP.CLASS_CSC", "per class": "MTCOOPH.CSC"}
FREE = ("NATA", "CATA", "frozen CATA", "shared")


@pytest.fixture(scope="module")
def other_root(photo_root, tmp_path_factory):
    """The images of photo_root as tasks and classes of other names."""
    root = tmp_path_factory.mktemp("other")
    for task, (name, classes) in OTHER.items():
        for old, new in classes.items():
            shutil.copytree(photo_root / task / old, root / name / new)
    return root


@pytest.fixture
def build(backbone, tmp_path):
    """build(variant, root, ...) is a trainer with its initial values; nothing is trained."""
    def make(variant, root, output="target", **options):
        trainer, own = VARIANTS[variant]
        return helpers.call(train_args(
            root, backbone, tmp_path / output, trainer, "--no-train",
            **{"DATASET.SPLIT_DIR": tmp_path / "splits", **SOFT, "TRAINER.MTCOOPH.N_CTX": 4, **own, **options}))
    return make


def learned(trainer):
    return {name: value.detach().clone() for part, module in trainer.saved.items()
            for name, value in module.named_parameters(prefix=part)}


def load(trainer, folder):
    """Load into a trainer whose values are wiped before, and return what was loaded."""
    with torch.no_grad():
        for value in trainer.trained:
            value.zero_()
    trainer.load_model(str(folder))
    return learned(trainer)


def test_transfer_equals_contexts_made_from_the_names_by_hand(photo_root, other_root, tmp_path):
    # The backbone of random values hardly tells class names apart; `tiny` does.
    common = {"DATASET.SPLIT_DIR": tmp_path / "splits", "INPUT.SIZE": "(64, 64)", "OPTIM.LR": 0.0005, **SOFT}

    def call(root, output, *extra, **options):
        return helpers.call(train_args(root, "tiny", tmp_path / output, "MTCoOp", *extra, **{**common, **options}))

    call(photo_root, "run", **{"DATASET.SUBSAMPLE_TASKS": "task0"})
    tested = call(other_root, "test", "--eval-only", "--model-dir", str(tmp_path / "run"))
    ctx, proj = (torch.load(tmp_path / "run" / part / "model.pth.tar-3", weights_only=True)["state_dict"][name]
                 for part, name in (("task_prompt_learner", "ctx"), ("prompt_gen", "proj")))
    model, _ = clip.load("tiny", device="cpu")
    model.requires_grad_(False).eval()
    names = ["brightness", "hue_guessing"]
    classes = [["bright", "dim"], ["crimson", "lime", "navy"]]
    assert [list(task.classnames) for task in tested.tasks] == classes  # sorted folders
    task_features = plain_features(model, names, ctx[None], [0, 0], "end")  # (2, embed_dim)
    contexts = (task_features @ proj).view(2, 4, 64)
    test_set = tested.dataset.test
    transform = build_transform(tested.cfg, is_train=False)
    for t, task in enumerate(results(tmp_path / "test")["tasks"]):
        first = sum(map(len, classes[:t]))
        texts = F.normalize(plain_features(model, classes[t], contexts, [t] * len(classes[t]), "end"), dim=1)
        own = [datum for datum in test_set if first <= datum.label < first + len(classes[t])]
        images = torch.stack([transform(read_image(datum.impath)) for datum in own])
        ours = F.normalize(tested.model.class_features()[first:first + len(classes[t])].detach(), dim=1)
        torch.testing.assert_close(ours, texts, atol=1e-5, rtol=0)
        scores = F.normalize(model.encode_image(images), dim=1) @ texts.t()
        best = scores.topk(2, dim=1).values
        assert (best[:, 0] - best[:, 1]).min() > 1e-5  # no tie that rounding could decide
        correct = int((scores.argmax(dim=1) == torch.tensor([datum.label - first for datum in own])).sum())
        assert (task["name"], task["total"], task["correct"]) == (names[t].replace("_", " "), len(own), correct)


@pytest.mark.parametrize("variant", FREE)
def test_contexts_that_are_not_tied_serve_other_tasks(variant, build, photo_root, other_root, tmp_path):
    source = build(variant, photo_root, "run")
    source.save_model(1)
    for target in (build(variant, other_root), build(variant, other_root, **{"DATASET.SUBSAMPLE_TASKS": "task1"})):
        loaded = load(target, tmp_path / "run")
        assert all(torch.equal(loaded[name], value) for name, value in learned(source).items())


@pytest.mark.parametrize("variant", [*TIED_TO_TASKS, *TIED_TO_CLASSES])
def test_tied_contexts_refuse_other_tasks_and_classes(variant, build, photo_root, other_root, tmp_path):
    source = build(variant, photo_root, "run")
    source.save_model(1)
    loaded = load(build(variant, photo_root), tmp_path / "run")
    assert all(torch.equal(loaded[name], value) for name, value in learned(source).items())
    if variant in TIED_TO_TASKS:
        option = TIED_TO_TASKS[variant]
        first = "task 'colour naming' where this run has task '(brightness|lightness)'"
    else:
        option = TIED_TO_CLASSES[variant]
        first = "class 'dark blue' of task 'colour naming' where this run has class '(bright|dark)' of task '.*ness'"
    for target in (build(variant, other_root), build(variant, photo_root, **{"DATASET.SUBSAMPLE_TASKS": "task1"})):
        with pytest.raises(ValueError, match=f"TRAINER.{option} learns something of its own for every .* of training, and .*"
                                             f"was trained with {first}: test on those of training") as error:
            load(target, tmp_path / "run")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("variant", ["NATA", "NATS", "CATA", "CATS", "shared", "per task"])
def test_base_to_new(variant, build, photo_root, tmp_path):
    source = build(variant, photo_root, "run", **{"DATASET.SUBSAMPLE_CLASSES": "base"})
    source.save_model(1)
    target = build(variant, photo_root, **{"DATASET.SUBSAMPLE_CLASSES": "new"})
    assert target.tasks[0].classnames == ("red",)
    loaded = load(target, tmp_path / "run")
    assert all(torch.equal(loaded[name], value) for name, value in learned(source).items())


@pytest.mark.parametrize("variant", [*TIED_TO_TASKS, *TIED_TO_CLASSES])
def test_checkpoints_without_names(variant, build, photo_root, other_root, tmp_path):
    """Published checkpoints: the number of tasks or classes is all that can be checked."""
    source = build(variant, photo_root, "run")
    source.save_model(1)
    for path in (tmp_path / "run").glob("*/model.pth.tar-1"):
        state = torch.load(path, weights_only=True)
        assert state.pop("tasks")[1] == {"name": "lightness", "classes": ["dark", "light"]}
        del state["identity"]
        torch.save(state, path)
    loaded = load(build(variant, photo_root), tmp_path / "run")
    assert all(torch.equal(loaded[name], value) for name, value in learned(source).items())
    option = {**TIED_TO_TASKS, **TIED_TO_CLASSES}[variant]
    with pytest.raises(ValueError, match=f"; TRAINER.{option} learns something of its own for every .* of training") as error:
        load(build(variant, photo_root, **{"DATASET.SUBSAMPLE_TASKS": "task1"}), tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage, message", [
    (lambda path: (path.parent / "checkpoint").write_bytes(bytes(range(128, 256))),
     "checkpoint must hold the name of a checkpoint beside it, but holds '.*': give the epoch instead of last"),
    (lambda path: change_values(path, lambda values: {name: "text" for name in values}), "ctx is no tensor"),
    (lambda path: change_values(path, lambda values: "text"), "has no 'state_dict': it is no checkpoint of a run")])
def test_a_checkpoint_that_is_none_is_one_sentence(damage, message, build, photo_root, tmp_path):
    build("shared", photo_root, "run").save_model(1)
    path, = (tmp_path / "run").glob("*/model.pth.tar-1")
    damage(path)
    with pytest.raises(UserError, match=message) as error:
        build("shared", photo_root).load_model(str(tmp_path / "run"))
    assert "\n" not in str(error.value)


def change_values(path, change):
    """Change the values that a checkpoint holds."""
    state = torch.load(path, weights_only=True)
    torch.save({**state, "state_dict": change(state["state_dict"])}, path)


def test_refusal_on_the_command_line(build, photo_root, other_root, backbone, tmp_path, monkeypatch, capsys):
    build("NATS", photo_root, "run").save_model(1)
    monkeypatch.setattr(sys, "argv", ["train.py", *train_args(
        other_root, backbone, tmp_path / "test", "MTCoOp", "--eval-only", "--model-dir", str(tmp_path / "run"),
        **{"DATASET.SPLIT_DIR": tmp_path / "splits", **SOFT, "TRAINER.MTCOOP.TASK_CSC": True})])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 1 and capsys.readouterr().err.splitlines()[-1].startswith(
        "error: TRAINER.MTCOOP.TASK_CSC learns something of its own for every task of training")
    assert not (tmp_path / "test" / "results.json").exists()
