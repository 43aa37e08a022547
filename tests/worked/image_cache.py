"""A feature adapter: zero-shot CLIP and a learned cache of the training images, as in Tip-Adapter-F."""

import torch
from torch import nn
from torch.nn import functional as F

from common.keys import Key, Positive
from runs.methods import PREC, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP


class Cache(nn.Module):
    """`keys` (n, dim) learn, one for each training image of the class in `labels` (n,); `alpha` weighs their votes."""

    def __init__(self):
        super().__init__()
        self.keys = nn.Parameter(torch.empty(0))  # `prepare` makes as many as there are images
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))
        self.register_buffer("alpha", torch.tensor(1.0))


class CacheCLIP(MultiTaskCLIP):
    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks)
        self.cache, self.beta = Cache(), options.BETA

    def class_features(self, classes=slice(None)):
        return self.zero_shot_features[classes]

    def score(self, image_features, class_features):
        affinity = F.normalize(image_features.to(self.learned_dtype), dim=-1) @ self.cache.keys.t()  # (B, n)
        votes = torch.exp(-self.beta * (1 - affinity)) @ F.one_hot(self.cache.labels, len(self.classnames)).to(affinity)
        return super().score(image_features, class_features) + self.cache.alpha * votes


@register
class ImageCache(MultiTaskTrainer):
    node, optim = "IMAGECACHE", {"OPTIM.NAME": "adamw", "OPTIM.LR": 0.001}  # its own schedule
    keys = {"PREC": PREC, "BETA": Key(5.5, "sharpness of the votes", Positive)}
    rows = (Row("Image cache", 115),)
    reads_templates = True
    parts = staticmethod(lambda options: ["cache"])  # what learns and is saved
    specific = staticmethod(lambda options: {"": "class"})  # it learns something of its own for every class

    def build_clip_model(self, clip_model):
        return CacheCLIP(clip_model, self.tasks, self.options)

    def prepare(self):
        features, self.model.cache.labels = self.features("train")
        self.model.cache.keys.data = F.normalize(features.to(self.model.learned_dtype), dim=-1)

    @torch.no_grad()
    def calibrate(self):
        (features, labels), alpha = self.features("val"), self.model.cache.alpha
        accuracy = {a: float((self.model(features, labels)[0].argmax(1) == labels).float().mean())
                    for a in (0.1, 0.3, 1.0, 3.0, 10.0) if alpha.fill_(a)}
        alpha.fill_(max(accuracy, key=accuracy.get))  # the first of equals
