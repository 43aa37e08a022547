"""ProGrad: CoOp updated only where that does not oppose the zero-shot prediction.

Zhu et al., Prompt-aligned Gradient for Prompt Tuning, ICCV 2023.
"""

import torch
from torch.nn import functional as F

from common.keys import Count, Key, NotNegative, Positive
from runs.methods import PREC, Row, register

from .multitask import PerTaskTrainer
from .multitask_clip import ContextCLIP


class TaughtCLIP(ContextCLIP):
    """CLIP with a learned context per task, and zero-shot CLIP as its teacher."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks, options.N_CTX, options.CTX_INIT)
        self.temperature = options.T

    def teacher_logits(self, image_features, labels):
        """Zero-shot logits (B, n_cls) masked to each sample's own task."""
        return self.logits(image_features, labels, self.zero_shot_features)

    def losses(self, image_features, labels):
        """Cross-entropy with the labels, and T^2 x cross-entropy with the teacher's softened prediction.

        The second is the KL divergence from the teacher up to a constant.
        """
        logits = self.logits(image_features, labels, self.class_features())
        teacher = F.softmax(self.teacher_logits(image_features, labels) / self.temperature, dim=1)
        # Outside the sample's task this is -inf, and the teacher's probability 0.
        ours = F.log_softmax(logits / self.temperature, dim=1).masked_fill(logits.isneginf(), 0)
        kl_loss = -self.temperature**2 * (teacher * ours).sum(1).mean()
        return {"xe_loss": F.cross_entropy(logits, labels), "kl_loss": kl_loss}, logits, labels


def project(domain, general, strength):
    """The prompt-aligned gradient of one learner, of any shape.

    Args:
        domain, general: gradients of the cross-entropy and of the distance from the teacher.
        strength: how much of the conflicting component is taken away, lambda; 1 takes all.

    Returns:
        domain, less strength x its component along general where they point in opposite directions.
    """
    unit = general / general.norm().clamp_min(torch.finfo(general.dtype).tiny)
    along = (domain * unit).sum()
    return torch.where(along < 0, domain - strength * along * unit, domain)


@register
class ProGrad(PerTaskTrainer):
    """CoOp, a context per task, with prompt-aligned gradients, each task's by itself."""

    node = "PROGRAD"
    keys = {
        "PREC": PREC,
        "N_CTX": Key(16, "number of context vectors, if CTX_INIT is empty", Count),
        "CTX_INIT": Key("", "words to start from", str),
        "LAMBDA": Key(1.0, "share of the conflicting component that is taken from a gradient", NotNegative),
        "T": Key(1.0, "temperature of the zero-shot teacher's prediction", Positive),
    }
    rows = (Row("ProGrad", 90),)

    def build_clip_model(self, clip_model):
        return TaughtCLIP(clip_model, self.tasks, self.options)

    def backward(self, losses):
        # Of the whole batch at once: the projection of a sum is not the sum of projections.
        domain, general = (torch.autograd.grad(losses[name], self.trained, retain_graph=name == "xe_loss")
                           for name in ("xe_loss", "kl_loss"))
        for learned, *gradients in zip(self.trained, domain, general):
            learned.grad = project(*gradients, self.options.LAMBDA)
