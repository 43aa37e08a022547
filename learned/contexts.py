"""What a run's contexts are, and how similar those of its tasks are to each other."""

import contextlib
import io

import torch
from torch.nn import functional as F

from common.errors import UserError
from trainers.mtcoop import MTCoOp

from .loading import NO_IMAGES, load_run


@torch.no_grad()
def contexts_of(trainer):
    """A trained model's contexts.

    Returns:
        (kind, names, contexts): what a context belongs to ("task", "class", or "context" where it is none of these), n
        names, and (n, n_ctx, dim), float32. SoftCPT's contexts per class come as their mean in each task; the meta
        network being linear, that is the context it makes from the mean input.

    Raises:
        UserError: the trainer learns no context.
    """
    model, tasks = trainer.model, [task.name for task in trainer.tasks]
    if isinstance(trainer, MTCoOp):
        with trainer.autocast():
            contexts = model.contexts()  # (n_tasks, n_ctx, dim) or, per class, (n_cls, n_ctx, dim)
        if model.per_class:
            sizes = [len(task.classnames) for task in trainer.tasks]
            contexts = torch.stack([own.mean(dim=0) for own in contexts.split(sizes)])
        return "task", tasks, contexts.float()
    learner = getattr(model, "prompt_learner", None)
    learned = [value for name, value in learner.named_parameters() if name.split(".")[-1] == "ctx"] if learner else []
    if not learned:
        raise UserError(f"{trainer.cfg.TRAINER.NAME} has no prompt_learner with a learned context (ctx)")
    contexts = torch.cat([ctx.reshape(-1, *ctx.shape[-2:]) for ctx in learned]).float()
    kinds = {kind for _, kind in trainer.ties()}
    if "class" in kinds:
        return "class", [f"{task.name}: {name}" for task in trainer.tasks for name in task.classnames], contexts
    if "task" in kinds:
        n = len(contexts) // len(tasks)  # PLOT has several contexts per task
        names = tasks if n == 1 else [f"{task}, {i}" for task in tasks for i in range(1, n + 1)]
        return "task", names, contexts
    return "context", ["shared" if len(contexts) == 1 else str(i) for i in range(len(contexts))], contexts


def similarities(contexts):
    """Cosine similarities (n, n) of contexts (n, n_ctx, dim), each taken as one vector."""
    contexts = F.normalize(contexts.flatten(1), dim=1)
    return contexts @ contexts.t()


def task_similarities(folder):
    """Cosine similarities, a list of n lists, of the contexts that a finished run has learned for its n tasks.

    Raises:
        MissingFile, UserError: as `load_run`, or there is no context per task.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # what building and loading say
        kind, _, contexts = contexts_of(load_run(folder, settings=NO_IMAGES))
    if kind != "task":
        raise UserError(f"{folder} has no context per task")
    return similarities(contexts).cpu().tolist()
