"""A training step has fixed shapes and waits for no value: what a CUDA graph of it needs."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from tests.helpers import call, train_args

VARIANTS = {
    "CoOp": ("MTCoOpHard", {"TRAINER.MTCOOPH.N_CTX": 4}),
    "NATA": ("MTCoOp", {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 4}),
    "CATA": ("MTCoOp", {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 4, "TRAINER.MTCOOP.CSC": True}),
}


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
