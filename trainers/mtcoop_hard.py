"""CoOp on many tasks at once: all classes share a context (CoOp-MT), or one per task (CoOp-CA), or per class (CoOp-CS).

Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022.
"""

import torch
from torch import nn

from dassl.engine import TRAINER_REGISTRY

from .multitask import MultiTaskCLIP, MultiTaskTrainer
from .prompts import LearnedContext, build_prompts


class TaskContexts(nn.Module):
    """One learned context per task, kept in `learners`; all together (n_tasks, n_ctx, dim)."""

    def __init__(self, n_tasks, *args, **kwargs):
        super().__init__()
        self.learners = nn.ModuleList(LearnedContext(*args, **kwargs) for _ in range(n_tasks))
        self.n_ctx = self.learners[0].n_ctx

    def forward(self):
        return torch.cat([learner() for learner in self.learners])


class HardSharedCLIP(MultiTaskCLIP):
    """CLIP with learned contexts: one for all, `TSC` one per task, `CSC` one per class."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks)
        encoder, n_cls = self.text_encoder, len(self.classnames)
        args = options.N_CTX, encoder.token_embedding
        if options.CSC and options.TSC:
            raise ValueError("TRAINER.MTCOOPH.CSC (a context per class) and TSC (one per task) exclude each other")
        if options.TSC:
            self.prompt_learner = TaskContexts(len(tasks), *args, init=options.CTX_INIT)
            context_of = self.task_of_class.tolist()
        else:
            self.prompt_learner = LearnedContext(*args, count=n_cls if options.CSC else None, init=options.CTX_INIT)
            context_of = range(n_cls) if options.CSC else [0] * n_cls
        self.prompts = build_prompts(self.classnames, self.prompt_learner.n_ctx, options.TOKEN_POSITION, context_of,
                                     max_length=encoder.max_length)

    def class_features(self, classes=None):
        prompts = self.prompts if classes is None else self.prompts.select(classes)
        return self.text_encoder(prompts, self.prompt_learner())


@TRAINER_REGISTRY.register()
class MTCoOpHard(MultiTaskTrainer):
    """CoOp with hard-shared, task-specific or class-specific contexts."""

    options = "MTCOOPH"

    @staticmethod
    def task_specific(options):
        return "TSC" if options.TSC else ""

    @staticmethod
    def class_specific(options):
        return "CSC" if options.CSC else ""

    def build_clip_model(self, clip_model):
        return HardSharedCLIP(clip_model, self.tasks, self.cfg.TRAINER.MTCOOPH)

    def parts(self):
        return ["prompt_learner"]
