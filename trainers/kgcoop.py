"""KgCoOp: CoOp whose class features are held near those of the hand-written prompts.

Yao et al., Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, CVPR 2023.
"""

from torch.nn import functional as F

from common.keys import Count, Key, NotNegative
from runs.methods import PREC, Row, register

from .multitask import PerTaskTrainer
from .multitask_clip import ContextCLIP


class KnowledgeGuidedCLIP(ContextCLIP):
    """CLIP with a learned context per task and the distance of its class features to the zero-shot ones."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks, options.N_CTX, options.CTX_INIT)
        self.weight = options.W

    def losses(self, image_features, labels):
        """Mean over the samples of cross-entropy + W x distance of the sample's task.

        A task's distance is the mean over its classes of 1 - cosine(learned, zero-shot feature).
        """
        features = self.class_features()  # (n_cls, embed_dim)
        logits = self.logits(image_features, labels, features)
        distance = 1 - F.cosine_similarity(features.to(self.learned_dtype), self.zero_shot_features)  # (n_cls,)
        own = self.in_own_task(labels).to(self.learned_dtype)  # (B, n_cls)
        distance = (own / own.sum(1, keepdim=True)) @ distance  # (B,)
        return {"loss": F.cross_entropy(logits, labels) + self.weight * distance.mean()}, logits, labels


@register
class KgCoOp(PerTaskTrainer):
    """CoOp, a context per task, with the knowledge-guided distance."""

    node = "KGCOOP"
    keys = {
        "PREC": PREC,
        "N_CTX": Key(4, "number of context vectors, if CTX_INIT is empty", Count),
        "CTX_INIT": Key("a photo of a", "words to start from", str),
        "W": Key(8.0, "weight of the distance from the zero-shot text features", NotNegative),
    }
    rows = (Row("KgCoOp", 100),)

    def build_clip_model(self, clip_model):
        return KnowledgeGuidedCLIP(clip_model, self.tasks, self.options)
