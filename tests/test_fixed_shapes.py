"""A training step has fixed shapes and waits for no value: what a CUDA graph of it needs. And `StepGraph` itself."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import UserError
from runs.methods import TRAINERS
from tests.helpers import call, train_args
from trainers import step_graph
from trainers.multitask import MultiTaskTrainer
from trainers.step_graph import StepGraph

VARIANTS = {
    "CoOp": ("MTCoOpHard", {"TRAINER.MTCOOPH.N_CTX": 4}),
    "NATA": ("MTCoOp", {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 4}),
    "CATA": ("MTCoOp", {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 4, "TRAINER.MTCOOP.CSC": True}),
}
WITHOUT_STEPS = ("ZeroshotCLIP", "ZeroshotCLIP2", "LinearProbe", "TipAdapter", "APE")
STEPPING = sorted(set(TRAINERS) - set(WITHOUT_STEPS))
FIXED = [name for name in STEPPING if TRAINERS[name].fixed_steps is not False]
DEPTHS = {"VPT": "VISION", "IVLP": "VISION TEXT", "PromptSRC": "VISION TEXT"}
OPTIONS = {name: {f"TRAINER.{name.upper()}.PROMPT_DEPTH_{tower}": 2 for tower in towers.split()}
           for name, towers in DEPTHS.items()}
OPTIONS |= {"TCP": {"TRAINER.TCP.LAYER": 1}, "MaPLe": {"TRAINER.MAPLE.PROMPT_DEPTH": 2},
            "ProtoNet": {"TRAINER.PROTONET.DIM": 8, "TRAINER.PROTONET.EPISODES": 4},
            "CrossModal": {"TRAINER.CROSSMODAL.STEPS": 3}, "CLIPLoRA": {"TRAINER.CLIPLORA.STEPS": 0}}
# Parts of the names of operators that wait for a value, or take one from Python.
WAIT = ("_local_scalar_dense", "nonzero", "bincount", "unique", "masked_select", "repeat_interleave.Tensor",
        "lift_fresh", "aten.equal")


class Loss(nn.Module):
    """The loss of a batch, so that `functional_call` calls it; `waits` reads it as a number, as a step must not."""

    def __init__(self, model, waits=False):
        super().__init__()
        self.model, self.waits = model, waits

    def forward(self, features, labels):
        loss = self.model.losses(features, labels)[0]["loss"]
        return loss * loss.item() if self.waits else loss


def trace(module, features, labels):
    """The graph of loss and gradients, from tensors that have shapes and no values."""
    learned = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}

    def step(learned, features, labels):
        learned = {name: value.requires_grad_() for name, value in learned.items()}
        loss = functional_call(module, learned, (features, labels))
        return loss, torch.autograd.grad(loss, list(learned.values()))

    return make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(learned, features, labels)


def reads(graph):
    """The operators of a graph that read a value, for a Python number or for a shape."""
    called = [node.target for node in graph.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    return [op for op in called if torch.Tag.data_dependent_output in op.tags or "nonzero" in str(op)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_depends_on_no_value(variant, photo_root, backbone, tmp_path):
    trainer, options = VARIANTS[variant]
    trained = call(train_args(photo_root, backbone, tmp_path / "run", trainer, **options, **{"OPTIM.MAX_EPOCH": 1}))
    features, labels = next(iter(trained.make_train_loader()))
    graph = trace(Loss(trained.model), features, labels)
    assert not reads(graph) and len(graph.graph.nodes) > 100
    assert reads(trace(Loss(trained.model, waits=True), features, labels))


class Watch(TorchDispatchMode):
    """Notes what a CUDA graph can't hold: operators that wait for a value, take one from Python, or draw."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        by_mask = str(op).startswith("aten.index") and any(
            torch.is_tensor(index) and index.dtype == torch.bool for part in args if isinstance(part, (list, tuple))
            for index in part)
        draws = torch.Tag.nondeterministic_seeded in op.tags and "scaled_dot_product" not in str(op)  # without dropout
        if by_mask or draws or any(name in str(op) for name in WAIT):
            self.found.add(str(op))
        return op(*args, **(kwargs or {}))


@pytest.fixture
def watched(photo_root, backbone, tmp_path, monkeypatch):
    """A function that trains a method, and returns what its second batch does that a graph can't hold."""
    def train(name, **options):
        found, add_gradients = [], TRAINERS[name].add_gradients

        def watch(self, *batch):
            before = {key: value.clone() for key, value in self.model.state_dict().items()}
            with Watch() as watch:
                metrics = add_gradients(self, *batch)
            after = self.model.state_dict()
            found.append(watch.found | {key for key in before if not torch.equal(before[key], after[key])})
            return metrics

        monkeypatch.setattr(TRAINERS[name], "add_gradients", watch)
        trainer = call(train_args(photo_root, backbone, tmp_path / "run", name, **{
            "OPTIM.MAX_EPOCH": 2, **OPTIONS.get(name, {}), **options}))
        return trainer, found[1]

    return train


@pytest.mark.parametrize("name", STEPPING)
def test_a_method_says_whether_its_steps_are_fixed(name, watched):
    trainer, found = watched(name)
    assert trainer.fixed_steps == (not found), found


@pytest.mark.parametrize("name", FIXED)
def test_an_epoch_of_fixed_steps_waits_for_nothing(name, photo_root, backbone, tmp_path, monkeypatch):
    """Nor does its optimizer. A first epoch may find out what is kept."""
    waits, step = [], TRAINERS[name].step

    def watch(self, *batch):
        with Watch() as watch:
            metrics = step(self, *batch)
        waits.append((self.epoch, watch.found))
        return metrics

    monkeypatch.setattr(TRAINERS[name], "step", watch)
    call(train_args(photo_root, backbone, tmp_path / "run", name, **{
        "DATALOADER.TRAIN_X.BATCH_SIZE": 2, "OPTIM.MAX_EPOCH": 2, **OPTIONS.get(name, {})}))
    assert waits and not any(found for epoch, found in waits if epoch)


def test_sampled_classes_are_not_fixed(watched):
    trainer, found = watched("MTCoOp", **{"TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.CLS_SAMPLE_RATE": 0.5})
    assert found and not trainer.fixed_steps


@pytest.fixture
def graphs(monkeypatch):
    """The `StepGraph`s that are made. The CPU replays what it recorded by computing it anew into the same tensors."""
    made, build = [], MultiTaskTrainer.build_optimizer

    def record(function):
        usual, results = function(), function()

        def replay():
            for result, new in zip(results, function()):
                result.copy_(new)

        return usual, results, replay

    def build_optimizer(self):
        build(self)
        self.graph = StepGraph(self, required=True)
        made.append(self.graph)

    monkeypatch.setattr(step_graph, "record", record)
    monkeypatch.setattr(MultiTaskTrainer, "build_optimizer", build_optimizer)
    return made


def learned(trainer):
    return torch.cat([value.detach().flatten() for value in trainer.trained])


@pytest.mark.parametrize("name", FIXED)
def test_replayed_steps_are_the_steps(name, photo_root, backbone, tmp_path, monkeypatch, request):
    """The last batch, which is smaller, is no graph's."""
    monkeypatch.setattr(TRAINERS[name], "drop_last", False)
    options = {"DATALOADER.TRAIN_X.BATCH_SIZE": 3, **OPTIONS.get(name, {})}
    usual = call(train_args(photo_root, backbone, tmp_path / "usual", name, **options))
    graphs = request.getfixturevalue("graphs")
    replayed = call(train_args(photo_root, backbone, tmp_path / "graph", name, **options))
    assert graphs[0].replay and torch.equal(learned(replayed), learned(usual))


def test_learned_values_may_move(photo_root, backbone, tmp_path, monkeypatch, graphs):
    """The graph reads them where they were when it was captured."""
    end_epoch, captures = MultiTaskTrainer.end_epoch, []
    capture = StepGraph.capture
    monkeypatch.setattr(StepGraph, "capture", lambda *args: (captures.append(1), capture(*args))[1])

    def moved(self):
        end_epoch(self)
        for value in self.trained:
            value.data = value.data.clone()

    monkeypatch.setattr(MultiTaskTrainer, "end_epoch", moved)
    options = {"DATALOADER.TRAIN_X.BATCH_SIZE": 2}
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOp", **options))
    assert len(captures) == 3  # one an epoch


def test_a_graph_that_gives_something_else_ends_the_run(photo_root, backbone, tmp_path, monkeypatch, graphs):
    """A method that draws and does not say so would learn from the numbers of its first draw for ever."""
    losses = TRAINERS["MTCoOpHard"].add_gradients
    monkeypatch.setattr(TRAINERS["MTCoOpHard"], "add_gradients", lambda self, images, labels: losses(
        self, images + torch.randn_like(images), labels))
    with pytest.raises(TypeError, match="set its fixed_steps False"):
        call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOpHard"))


def test_a_step_that_cannot_be_captured_is_taken_without(photo_root, backbone, tmp_path, monkeypatch, graphs, capsys):
    def fail(function):
        function()
        raise RuntimeError("operation not permitted when stream is capturing\nat some place")

    usual = call(train_args(photo_root, backbone, tmp_path / "usual", "MTCoOpHard", "--no-train"))
    monkeypatch.setattr(step_graph, "record", fail)
    with pytest.raises(UserError, match=r"can't be one CUDA graph \(operation not permitted"):
        call(train_args(photo_root, backbone, tmp_path / "required", "MTCoOpHard"))
    build = MultiTaskTrainer.build_optimizer
    monkeypatch.setattr(MultiTaskTrainer, "build_optimizer", lambda self: (build(self), setattr(
        self.graph, "required", False)))
    trainer = call(train_args(photo_root, backbone, tmp_path / "auto", "MTCoOpHard"))
    assert trainer.graph is None and "launched one by one, which is slower" in capsys.readouterr().out
    assert not torch.equal(learned(trainer), torch.cat([v.flatten() for v in usual.model.prompt_learner.parameters()]))


@pytest.mark.parametrize("name, message", [("MTCoOp", "needs a CUDA GPU"), ("CoCoOp", "can't be one CUDA graph")])
def test_a_graph_that_is_asked_for_and_cannot_be(name, message, photo_root, backbone, tmp_path):
    with pytest.raises(UserError, match=f"MODEL.CUDA_GRAPH.*{message}"):
        call(train_args(photo_root, backbone, tmp_path / "run", name, **{"MODEL.CUDA_GRAPH": True}))
