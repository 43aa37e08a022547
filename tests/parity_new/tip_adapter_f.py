"""Tip-Adapter-F: all epochs, and the search on the one that the published code keeps, by test accuracy."""

import numpy as np
import torch

from runs.methods import TRAINERS

from .tip_adapter import accuracy_of, cache_of, logits_of, options_of, searched


def check(case):
    hyper, optim = case.hyper, TRAINERS["TipAdapterF"].optim
    trainer = case.trainer("TipAdapterF", **options_of(case), **{
        **optim, "INIT": (hyper["init_beta"], hyper["init_alpha"]), "OPTIM.LR": hyper["lr"],
        "OPTIM.MAX_EPOCH": hyper["train_epoch"], "DATALOADER.TRAIN_X.BATCH_SIZE": hyper["batch"]})
    trainer.prepare()
    ours = {name: value.detach().clone() for name, value in cache_of(trainer.model).items()}
    epochs, logits = [], []
    for said in case.train(trainer, case["in/train_views"], hyper["batch"]):
        epochs.append(trainer.learned())
        logits.append(logits_of(trainer.model, case["in/test"]))
    accuracies = torch.stack([accuracy_of(of_epoch, case["in/test_labels"]) for of_epoch in logits])
    best = int(accuracies.argmax())
    trainer.set_learned(epochs[best])
    ours |= searched(case, trainer)
    assert best == case["best_epoch"]
    return case.errors({
        **ours, **said, "losses": np.reshape(said["losses"], case["losses"].shape),
        "epoch_weights": torch.stack([of_epoch["cache"]["keys"] for of_epoch in epochs]),
        "epoch_test_logits": torch.stack(logits), "epoch_test_accuracy": accuracies,
        "reported_accuracy": max(accuracies[best], ours["test_accuracy"])})
