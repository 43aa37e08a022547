"""What the checks of methods that learn by steps share: the stored schedule, batches and steps."""

from unittest import mock

import torch


def optim(case):
    """The stored schedule as {config key: value}."""
    return {f"OPTIM.{key}": value for key, value in case.hyper["optimizer"].items()}


def epochs(case):
    """The batches of each stored epoch, [[(features, labels)]]: epoch e reads view e, the incomplete one is dropped."""
    found = []
    for view, order in zip(case["in/views"], case["in/orders"]):
        pieces = [piece for piece in order.split(case.hyper["batch"]) if len(piece) == case.hyper["batch"]]
        found.append([(view[piece], case["in/labels"][piece]) for piece in pieces])
    return found


def ordered(loader, orders):
    """Epochs of a trainer's own loader, whose permutations are the stored `orders`."""
    for order in orders:
        with mock.patch("torch.randperm", return_value=order):
            yield loader


def train(case, trainer, learned, batches):
    """Start from stored values, take the stored steps: {quantity: relative error}.

    Args:
        trainer: prepared. learned: {name of a stored value: our parameter}; ours may have a dimension of tasks besides.
        batches: for each epoch its batches (features, labels).
    """
    for name, value in learned.items():
        if f"init/{name}" in case.stored:
            value.data.copy_(case[f"init/{name}"])
    trainer.build_optimizer()
    ours, per_group = {"losses": [], "lrs": []}, "lrs" in case.stored and case["lrs"].ndim == 2
    with torch.no_grad():
        if "first_logits" in case.stored:
            ours["first_logits"] = logits(case, trainer, "test")
    trainer.set_mode(training=True)
    for epoch, loader in enumerate(batches):
        trainer.epoch = epoch
        for features, labels in loader:
            rates = [group["lr"] for group in trainer.optimizer.param_groups]
            ours["lrs"].append(rates if per_group else rates[0])
            ours["losses"].append(trainer.step(features, labels, 1)["loss"].item())
            if len(ours["lrs"]) == 1:
                ours |= {f"grad0/{name}": value.grad.clone() for name, value in learned.items()}
            trainer.step_rate(by_batch=True)
        trainer.end_epoch()
        trainer.step_rate(by_batch=False)
    trainer.set_mode(training=False)
    ours |= {f"final/{name}": value for name, value in learned.items()}
    ours["test_logits"] = logits(case, trainer, "test")
    return case.errors({name: value.reshape(case[name].shape) if isinstance(value, torch.Tensor) else value
                        for name, value in ours.items() if name in case.stored})


@torch.no_grad()
def logits(case, trainer, part):
    """Logits of stored images of a part."""
    return trainer.model(*case.features(part))[0]
