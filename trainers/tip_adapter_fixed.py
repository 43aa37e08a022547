"""Tip-Adapter-F without validation images, with which the authors of CLAP compare: beta and alpha stay as they are set.

Silva-Rodriguez et al., A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models, CVPR 2024. Other than
in Tip-Adapter-F, the query is not normalised where it is compared with keys, which are; keys start as plain means over
the views of their images, and these means are what they learn from; the scale is CLIP's own. Schedule as ZS-LP.
"""

import torch
from torch.nn import functional as F

from common.keys import Key, NotNegative
from runs.methods import PREC, Row, register

from .zslp import ZSLP, ViewLoader
from .multitask import PerClassTrainer
from .multitask_clip import MultiTaskCLIP
from .votes import Cache


class FixedVotesCLIP(MultiTaskCLIP):
    """Zero-shot CLIP and votes of training images, BETA and ALPHA of which are given."""

    adds_tasks = True

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks)
        self.cache, self.options = Cache(learn=True), options

    def class_features(self, classes=slice(None)):
        return self.mean_text_features[classes]

    def score(self, image_features, class_features):
        with torch.autocast(image_features.device.type, enabled=False):
            classes = torch.arange(len(self.classnames), device=image_features.device)
            values = (self.cache.labels[:, None] == classes).to(self.learned_dtype)  # (n, n_cls)
            affinity = image_features.to(self.learned_dtype) @ F.normalize(self.cache.keys, dim=-1).t()  # (B, n)
            votes = torch.exp(-self.options.BETA * (1 - affinity)) @ values
        return super().score(image_features, class_features) + self.options.ALPHA * votes


@register
class TipAdapterFixed(ZSLP):
    """Tip-Adapter-F with given beta and alpha."""

    node = "TIPADAPTERFIXED"
    keys = {"PREC": PREC, "BETA": Key(1.0, "sharpness of the votes", NotNegative),
            "ALPHA": Key(1.0, "weight of the votes", NotNegative)}
    rows = (Row("Tip-Adapter-F (no val)", 44, by_default=False),)
    reads_templates = True
    parts = staticmethod(lambda options: ["cache"])
    batches = PerClassTrainer.batches

    def build_clip_model(self, clip_model):
        return FixedVotesCLIP(clip_model, self.tasks, self.options)

    def prepare(self):
        (features, self.model.cache.labels), dtype = self.all_views(), self.model.learned_dtype
        self.model.cache.keys.data = features.to(dtype).mean(0)

    def owned(self):
        return [(self.model.cache.keys, self.model.task_of_class[self.model.cache.labels])]

    def make_train_loader(self):
        features, labels = self.all_views()
        return ViewLoader(features.to(self.model.learned_dtype).mean(0, keepdim=True), labels, self.task_batches())
