"""A prompt method: CoOp with a context per task, each held near the mean of all."""

from torch.nn import functional as F

from common.keys import Count, Key, NotNegative
from runs.methods import PREC, Row, register

from .multitask import PerTaskTrainer
from .multitask_clip import ContextCLIP


class AnchoredCLIP(ContextCLIP):
    """CLIP with a learned context per task, and the distance of the contexts from their mean."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks, options.N_CTX)
        self.weight = options.WEIGHT

    def losses(self, images, labels):
        logits, targets = self(images, labels)
        contexts = self.prompt_learner()  # (n_tasks, n_ctx, dim)
        distance = (contexts - contexts.mean(dim=0)).square().sum(dim=(1, 2)).mean()
        return {"loss": F.cross_entropy(logits, targets) + self.weight * distance}, logits, targets


@register
class AnchoredCoOp(PerTaskTrainer):
    """CoOp, a context per task, held near the mean context."""

    node = "ANCHOREDCOOP"  # its options are TRAINER.ANCHOREDCOOP.*
    keys = {
        "PREC": PREC,
        "N_CTX": Key(4, "number of context vectors", Count),
        "WEIGHT": Key(0.1, "of the distance from the mean context", NotNegative),
    }
    rows = (Row("Anchored CoOp", 105),)  # label in the tables, and the number that orders them

    def build_clip_model(self, clip_model):
        return AnchoredCLIP(clip_model, self.tasks, self.options)
