"""ProLIP and the linear adapter, with a rate that is given or searched for."""

import torch

from runs.methods import TRAINERS

from .tip_adapter import accuracy_of, logits_of


def check(case):
    hyper, adapter = case.hyper, "final/linear2.weight" in case.stored
    options = {**TRAINERS["ProLIP"].optim, "OPTIM.MAX_EPOCH": hyper["train_epoch"], "SEARCH": hyper["search_lr"],
               "ADAPTER": adapter}
    if "lr_v" in hyper:
        options["OPTIM.LR"] = hyper["lr_v"]
    trainer = case.trainer("ProLIP", **options)

    def features(part, view=0):
        """Stored ones; epoch e reads view e + 1."""
        found, labels = case.features(part, view if view is None else (view + 1) % len(case["in/views"]))
        return (found @ case["in/projection"] if adapter else found), labels

    trainer.features, model = features, trainer.model
    if not adapter:
        model.start.copy_(case["in/projection"])
        model.bias.copy_(case.stored.get("in/projection_bias", torch.zeros_like(model.bias)))
        model.projections[0].data.copy_(model.start)
    trainer.prepare()
    trainer.build_optimizer()
    ours = {"text_features": model.zero_shot_features, "cross_entropies": [], "lrs": [],
            "rate_and_lambda": model.projections.settings[0]}
    if "grid_accuracy" in case.stored:
        ours["grid_accuracy"] = trainer.search(0).view(7, 7)
    for epoch in range(hyper["train_epoch"]):
        ours["lrs"].append(trainer.learning_rate())
        shown = trainer.step(*features("train", epoch), trainer.repeats)
        ours["cross_entropies"].append(float(shown["xe_loss"]))
        trainer.step_rate(by_batch=False)
    logits = logits_of(model, features("test")[0])
    own = model.projections[0].detach()
    name = next(name for name in case.stored if name.startswith("final/"))
    return case.errors({**ours, "last_loss": shown["loss"].view(case["last_loss"].shape), "test_logits": logits,
                        "test_accuracy": accuracy_of(logits, case["in/test_labels"]),
                        name: own if name == "final/vit_proj" else own.t()})
