"""What the checks of methods with deep prompts share: their hyper-parameters, and where their prompts are."""

from ._towers import batches
from ._training import optim, train


def learned_of(trainer):
    """{name of a stored value: our prompts} of the towers that have prompts."""
    prompts, named = trainer.model.prompt_learner, {}
    for tower, first in (("image", "image_encoder.VPT"), ("text", "prompt_learner.ctx")):
        for i, value in enumerate(prompts[tower].layers if tower in prompts else ()):
            named[f"{tower}_encoder.transformer.resblocks.{i}.VPT_shallow" if i else first] = value
    return named


def build(case, name, **options):
    """The trainer `name` with the case's hyper-parameters that are keys of it, and `options`."""
    from runs.methods import TRAINERS

    keys = {key: value for key, value in case.hyper.items() if key in TRAINERS[name].keys}
    return case.trainer(name, **optim(case), **keys, **options)


def check(case, trainer, learned):
    """{quantity: error} of the stored steps; `learned` is {name of a stored value: our parameter}, all of them."""
    assert set(learned) == {name.removeprefix("init/") for name in case.stored if name.startswith("init/")}
    return train(case, trainer, learned, batches(case, trainer, case.hyper["epochs"], case.hyper["batches"]))
