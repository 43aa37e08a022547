"""CLIP-Adapter."""

from ._training import epochs, optim, train


def check(case):
    trainer = case.trainer("CLIPAdapter", **optim(case), RATIO=case.hyper["ratio"], REDUCTION=case.hyper["reduction"])
    adapter = trainer.model.adapter
    return train(case, trainer, {"adapter.fc.0.weight": adapter.down, "adapter.fc.2.weight": adapter.up}, epochs(case))
