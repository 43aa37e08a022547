"""CLAP: a linear probe that starts from the texts' features and is held near them, each class by a multiplier.

Silva-Rodriguez et al., A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models, CVPR 2024.
"""

from typing import Literal

import torch
from torch.nn import functional as F

from common.keys import Key
from runs.methods import PREC, Row, register

from .zslp import ZSLP


@register
class CLAP(ZSLP):
    """ZS-LP with a penalty; a class's multiplier is the mean zero-shot probability of it on its training images."""

    node = "CLAP"
    keys = {"PREC": PREC, "MULTIPLIERS": Key(
        "class", "of a class's distance: its own; the task's mean; 1; growing with it; scaled to a mean of 1",
        Literal["class", "constant", "balanced", "adaptive", "corrected"])}
    rows = (Row("CLAP", 39, by_default=False, quick=True),)

    @torch.no_grad()
    def prepare(self):
        super().prepare()
        (features, labels), model = self.all_views(), self.model
        views = torch.stack([model(view, labels)[0].softmax(1) for view in features])  # (n_views, n, n_cls)
        own = F.one_hot(labels, views.shape[2]).to(views)  # (n, n_cls)
        multipliers = (views.mean(0) * own).sum(0) / own.sum(0).clamp(min=1)  # of a class without images 0
        means, kind = model.task_means(multipliers), self.options.MULTIPLIERS
        model.classifier.multipliers = {"constant": means, "balanced": torch.ones_like(means),
                                        "corrected": multipliers / means}.get(kind, multipliers)

    @torch.no_grad()
    def end_epoch(self):
        if self.options.MULTIPLIERS == "adaptive":
            learned, distances = self.model.classifier, self.model.distances()
            learned.multipliers = (learned.multipliers + learned.rho * distances).clamp(min=0)
            learned.rho = distances
