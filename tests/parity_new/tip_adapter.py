"""Tip-Adapter, training-free."""

import torch
from torch.nn import functional as F


def options_of(case):
    return {"VIEWS": case.hyper["augment_epoch"], "SEARCH_SCALE": case.hyper["search_scale"],
            "SEARCH_STEP": case.hyper["search_step"]}


def cache_of(model):
    """What is stored of a cache before anything is searched or learned."""
    return {"text_features": model.zero_shot_features, "cache_keys": model.cache.keys.t(),
            "cache_values": F.one_hot(model.cache.labels)}


@torch.no_grad()
def logits_of(model, features):
    return model.score(features, model.class_features())


def accuracy_of(logits, labels):
    return 100 * (logits.argmax(dim=1) == labels).double().mean()


@torch.no_grad()
def searched(case, trainer):
    """What is stored of the search, and of the model with what it chose."""
    found, settings, columns = trainer.search(0), trainer.model.cache.settings, len(case["best"])
    trainer.calibrate()
    logits = logits_of(trainer.model, case["in/test"])
    return {"grid_accuracy": found.reshape(case["grid_accuracy"].shape), "best": settings[0, :columns],
            "test_logits": logits, "test_accuracy": accuracy_of(logits, case["in/test_labels"])}


def check(case):
    trainer = case.trainer("TipAdapter", **options_of(case))
    trainer.prepare()
    model = trainer.model
    zero_shot, affinity = model.evidence(0, F.normalize(case["in/test"], dim=-1), model.class_features())
    return case.errors({**cache_of(model), "zero_shot_logits": zero_shot, "affinity": affinity,
                        **searched(case, trainer)})
