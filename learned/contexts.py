"""The contexts that a run has learned, with names."""

import torch

from common.errors import UserError


@torch.no_grad()
def contexts_of(trainer):
    """A trained model's contexts.

    Returns:
        (kind, names, contexts): kind is "task", "class" or, for contexts that belong to neither, "context"; n names;
        (n, n_ctx, dim), float32.

    Raises:
        UserError: the trainer learns no context.
    """
    with trainer.autocast():
        found = trainer.model.contexts()
    if found is None:
        raise UserError(f"{trainer.cfg.TRAINER.NAME} learns no context")
    kind, contexts = found
    names = {"suite": ["shared"], "task": [task.name for task in trainer.tasks],
             "class": [f"{task.name}: {name}" for task in trainer.tasks for name in task.classnames]}[kind]
    several = len(contexts) // len(names)
    if several > 1:
        names = [f"{name}, {i}" for name in names for i in range(1, several + 1)]
    return "context" if kind == "suite" else kind, names, contexts.float()
