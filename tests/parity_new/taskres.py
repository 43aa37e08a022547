"""TaskRes."""

from ._training import epochs, optim, train


def check(case):
    trainer = case.trainer("TaskRes", **optim(case), ALPHA=case.hyper["alpha"])
    return train(case, trainer, {"text_feature_residuals": trainer.model.classifier.weight}, epochs(case))
