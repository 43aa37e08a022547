"""CoOp on many tasks at once: all classes share a context (CoOp-MT), or one per task (CoOp-CA), or per class (CoOp-CS).

Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022.
"""

from dassl.engine import TRAINER_REGISTRY

from .multitask import MultiTaskTrainer
from .multitask_clip import ContextCLIP


class HardSharedCLIP(ContextCLIP):
    """CLIP with learned contexts: one for all, `TSC` one per task, `CSC` one per class."""

    def __init__(self, clip_model, tasks, options):
        if options.CSC and options.TSC:
            raise ValueError("TRAINER.MTCOOPH.CSC (a context per class) and TSC (one per task) exclude each other")
        per = "class" if options.CSC else "task" if options.TSC else "suite"
        super().__init__(clip_model, tasks, options.N_CTX, options.CTX_INIT, options.TOKEN_POSITION, per)


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
