"""The cross-modal linear probe and its uni-modal one."""

from unittest import mock

from runs.methods import TRAINERS

from ._training import logits, train


def check(case):
    hyper, n = case.hyper, case.hyper["iters"]
    assert hyper["max_iter"] == n, "the cosine's length is the number of steps"
    trainer = case.trainer("CrossModal", **{
        **TRAINERS["CrossModal"].optim, "OPTIM.LR": hyper["lr"], "OPTIM.WEIGHT_DECAY": hyper["wd"],
        "OPTIM.MAX_EPOCH": 1, "OPTIM.WARMUP_EPOCH": hyper["warmup_iter"], "STEPS": n, "WISEFT": 0.5,
        "DATALOADER.TRAIN_X.BATCH_SIZE": hyper["batch"], "TEXTS": hyper["text_batch"] > 0})
    # the image itself, then its one augmented view
    trainer.features = lambda part, view=None: case.features(part, None if view is None else view + 1)
    trainer.prepare()
    head = trainer.model.classifier
    errors = case.errors({"init/weight": head.weight})
    accuracies, weights = [], []  # of each validated step
    orders = {len(case[f"in/{kind}_orders"][0]): iter(case[f"in/{kind}_orders"]) for kind in ("image", "text")}

    def steps():
        for step, batch in enumerate(trainer.make_train_loader()):
            yield batch
            if step % hyper["eval_freq"] == 0:
                right = logits(case, trainer, "val").argmax(1) == case["in/val_labels"]
                accuracies.append(float(right.double().mean()))
                weights.append(head.weight.detach().clone())

    with mock.patch("torch.randperm", side_effect=lambda n, generator: next(orders[n])):
        errors |= train(case, trainer, {}, [steps()])
    best = accuracies.index(max(accuracies))  # the first of equals
    head.weight.data = weights[best]
    errors |= case.errors({"val_accuracies": accuracies, "best_iteration": best * hyper["eval_freq"],
                           "final/weight": head.weight, "test_logits": logits(case, trainer, "test")})
    trainer.calibrate()
    return errors | case.errors({"wiseft_logits": logits(case, trainer, "test")})
