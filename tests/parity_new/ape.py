"""APE, and APE-T with channels by texts alone or, as after a run of APE, by texts and keys."""

import torch

from runs.methods import TRAINERS

from .tip_adapter import accuracy_of, logits_of, searched


def check(case):
    return check_trained(case) if "losses" in case.stored else check_training_free(case)


def build(case, name, **options):
    hyper = case.hyper
    trainer = case.trainer(name, **{"VIEWS": len(case["in/views"]), "SEARCH_SCALE": hyper["search_scale"],
                                    "SEARCH_STEP": hyper["search_step"], "W": hyper["w_training_free"],
                                    "CHANNELS": hyper["feat_num"] / case["in/test"].shape[1], **options})
    trainer.prepare()
    return trainer, {"text_features": trainer.model.zero_shot_features, "channels": trainer.model.cache.channels[0]}


def check_training_free(case):
    trainer, ours = build(case, "APE")
    return case.errors({**ours, "divergence": trainer.model.cache.divergence[:, None], **searched(case, trainer)})


def check_trained(case):
    hyper, by_images = case.hyper, case.about["channels_of_training_free"]
    trainer, ours = build(case, "APET", **{
        **TRAINERS["APET"].optim, "SEARCH_SCALE": hyper["search_scale"][:2], "SEARCH_STEP": hyper["search_step"][:2],
        "W": hyper["w_training"], "CHANNELS_BY": "images" if by_images else "texts",
        "INIT": (hyper["init_beta"], hyper["init_alpha"]), "OPTIM.LR": hyper["lr"], "OPTIM.ADAM_EPS": hyper["eps"],
        "OPTIM.MAX_EPOCH": hyper["train_epoch"], "DATALOADER.TRAIN_X.BATCH_SIZE": case.about["batch"]})
    epochs, accuracies = [], []
    for said in case.train(trainer, case["in/views"], case.about["batch"]):
        epochs.append(trainer.learned())
        accuracies.append(accuracy_of(logits_of(trainer.model, case["in/val"]), case["in/val_labels"]))
    best = int(torch.stack(accuracies).argmax())
    cache = trainer.model.cache
    assert best == case["best_epoch"]
    ours |= {**said, "epoch_val_accuracy": torch.stack(accuracies)}
    trainer.set_learned(epochs[best])
    ours |= {"final/res": cache.residuals, "final/value_weights": cache.weights[:, None], **searched(case, trainer)}
    return case.errors(ours)
