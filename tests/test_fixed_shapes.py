"""A training step has fixed shapes and waits for nothing: what a CUDA graph of it needs."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.proxy_tensor import make_fx

from tests.helpers import call, train_args

VARIANTS = {
    "CoOp": ("MTCoOpHard", {"TRAINER.MTCOOPH.N_CTX": 4}),
    "NATA": ("MTCoOp", {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 4}),
    "CATA": ("MTCoOp", {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 4, "TRAINER.MTCOOP.CSC": True}),
}


def trace(trainer, losses):
    """Trace losses and gradients with tensors that have shapes and no values.

    Raises:
        DataDependentOutputException, DynamicOutputShapeException: a shape, or a Python value, depends on values.
    """
    model = trainer.model
    learned = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def step(learned, features, labels):
        learned = {name: value.requires_grad_() for name, value in learned.items()}
        found = torch.func.functional_call(model, learned, (features, labels), strict=False)
        return torch.autograd.grad(losses(found), list(learned.values()))

    class Losses(torch.nn.Module):
        pass

    features, labels = torch.randn(4, model.text_encoder.output_dim), torch.tensor([0, 1, 2, 3])
    return make_fx(step, tracing_mode="fake")(learned, features, labels)
