"""CoOp on many tasks at once: all classes share a context (CoOp-MT), or one per task (CoOp-CA), or per class (CoOp-CS).

Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022.
"""

from common.errors import UserError
from common.keys import Count, Key
from runs.methods import POSITION, PREC, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import ContextCLIP


class HardSharedCLIP(ContextCLIP):
    """CLIP with learned contexts: one for all, `TSC` one per task, `CSC` one per class."""

    def __init__(self, clip_model, tasks, options):
        if options.CSC and options.TSC:
            raise UserError("TRAINER.MTCOOPH.CSC (a context per class) and TSC (one per task) exclude each other")
        per = "class" if options.CSC else "task" if options.TSC else "suite"
        super().__init__(clip_model, tasks, options.N_CTX, options.CTX_INIT, options.TOKEN_POSITION, per)


@register
class MTCoOpHard(MultiTaskTrainer):
    """CoOp with hard-shared, task-specific or class-specific contexts."""

    node = "MTCOOPH"
    keys = {
        "PREC": PREC,
        "N_CTX": Key(16, "number of context vectors", Count),
        "CSC": Key(False, "class-specific context", bool),
        "TSC": Key(False, "task-specific context", bool),
        "CTX_INIT": Key("", "words to start from; their number is then the context length", str),
        "TOKEN_POSITION": POSITION,
    }
    rows = (
        Row("CoOp-CA", 50, {"N_CTX": 16, "CSC": False, "TSC": True}, tells=("TSC",)),
        Row("CoOp-CS", 60, {"N_CTX": 16, "CSC": True, "TSC": False}, tells=("CSC",)),
        Row("CoOp-MT", 70, {"N_CTX": 16, "CSC": False, "TSC": False}),
    )
    config = "MTCoOpHard/{CFG}"
    arguments = ("N_CTX", "CSC", "TSC")
    folder_name = "MTCoOpHard/{CFG}_{SHOTS}shots/nctx{N_CTX}_csc{CSC}_tsc{TSC}/seed{SEED}"

    @staticmethod
    def parts(options):
        return ["prompt_learner"]

    @staticmethod
    def specific(options):
        return {option: kind for option, kind in (("TSC", "task"), ("CSC", "class")) if options[option]}

    def build_clip_model(self, clip_model):
        return HardSharedCLIP(clip_model, self.tasks, self.options)
