"""LP++: the whole trajectory, and the last of equally good epochs, which is what the published code tests."""

from runs.methods import TRAINERS

from ._training import logits, train


def check(case):
    n_epochs = case.hyper["epochs"]
    trainer = case.trainer("LPplusplus", **{**TRAINERS["LPplusplus"].optim, "OPTIM.MAX_EPOCH": n_epochs})
    trainer.prepare()
    learned = trainer.model.classifier
    errors = case.errors({"init/weight": learned.weight, "init/alpha": learned.alpha.mean(),
                          "lr_w": learned.rates[0].mean(), "lr_alpha": learned.rates[1].mean()})
    learned.bias.data.copy_(case["init/bias"])
    seen, alphas, accuracies, tests = [], [], [], []  # of each epoch: the training logits, then what follows it

    def epochs():
        for number in range(n_epochs):
            seen.append(logits(case, trainer, "train"))
            yield [case.features("train", 0)]
            alphas.append(learned.alpha.tolist())
            right = logits(case, trainer, "val").argmax(1) == case["in/val_labels"]
            accuracies.append(100 * float(right.double().mean()))
            tests.append(logits(case, trainer, "test"))

    errors |= train(case, trainer, {"weight": learned.weight, "bias": learned.bias}, epochs())
    best = max(range(n_epochs), key=lambda epoch: (accuracies[epoch], epoch))
    right = tests[best].argmax(1) == case["in/test_labels"]
    return errors | case.errors({
        "alphas": alphas, "best_val_accuracy": accuracies[best], "test_accuracy": 100 * float(right.double().mean()),
        "best_epoch": best, "test_logits": tests[best], "val_logits_last": logits(case, trainer, "val"),
        "logits_last": seen[-1], "final/alpha": learned.alpha[None], "alpha_grad_sum": learned.gradients[None]})
