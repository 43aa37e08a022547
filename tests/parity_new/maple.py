"""MaPLe."""

from . import _deep


def check(case):
    trainer = _deep.build(case, "MaPLe")
    prompts, learned = trainer.model.prompt_learner, {}
    for i, (text, to_image) in enumerate(zip(prompts["text"].layers, prompts["maps"])):
        learned[f"compound_prompts_text.{i - 1}" if i else "ctx"] = text
        for name, value in to_image.named_parameters():
            learned[f"compound_prompt_projections.{i - 1}.{name}" if i else f"proj.{name}"] = value
    return _deep.check(case, trainer, learned)
