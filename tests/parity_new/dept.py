"""DePT on CoOp."""

from ._towers import batches, build
from ._training import optim, train


def check(case):
    hyper = case.hyper
    trainer = build(case, "DePT", "a photo of a {}.", **optim(case), N_CTX=hyper["N_CTX"], CTX_INIT=hyper["CTX_INIT"],
                    WEIGHT=hyper["weight"], LR_FACTOR=hyper["lr_factor"])
    learner = trainer.model.prompt_learner
    head = learner.head
    learned = {"prompt_learner.ctx": learner.learners[0].ctx,
               "film_lp_img.scale": head.scale, "film_lp_img.bias": head.shift,
               "film_lp_text.scale": head.text_scale, "film_lp_text.bias": head.text_shift,
               "linear_probe_proj.weight": head.weight, "linear_probe_proj.bias": head.bias}
    return train(case, trainer, learned, batches(case, trainer, hyper["epochs"], hyper["batches"]))
