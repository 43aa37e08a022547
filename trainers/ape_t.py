"""APE-T: APE with a learned residual per class on the chosen channels, added to its text and to its keys.

Zhu et al., Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior Refinement, ICCV 2023. The sums keep
the length they get, affinities are of all channels, and every vote has a learned weight. On a suite every task has its
own channels, beta and alpha. Defaults are the published ones of ImageNet, with RN50.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from common.keys import Key
from runs.methods import Row, register

from .ape import APE, ChannelCache, choose_channels
from .tip_adapter import TipAdapterF
from .votes import VotingCLIP


class ResidualCLIP(VotingCLIP):
    """`cache.residuals` (n_cls, n_channels) and, of the training images' votes, `cache.weights` (n,) are learned."""

    def __init__(self, clip_model, tasks):
        super().__init__(clip_model, tasks, ChannelCache())
        self.cache.residuals, self.cache.weights = nn.Parameter(torch.empty(0)), nn.Parameter(torch.empty(0))

    def add_residuals(self, features, classes):
        """Features (n, dim), each of one of the `classes` (n,), with this class's residual."""
        return features.scatter_add(1, self.cache.channels[self.task_of_class[classes]], self.cache.residuals[classes])

    def keys(self):
        return self.add_residuals(self.cache.keys, self.cache.labels)

    def class_features(self):
        return self.add_residuals(super().class_features(), torch.arange(len(self.classnames)).to(self.task_of_class))

    def values(self, task, gamma):
        return super().values(task, gamma) * self.cache.weights[self.images_of(task)][:, None]


@register
class APET(TipAdapterF):
    """Learned with the first beta and alpha; the search follows, on the epoch that is deployed."""

    node = "APET"
    keys = {
        **TipAdapterF.keys,
        "CHANNELS": APE.keys["CHANNELS"],
        "CHANNELS_BY": Key("texts", "what tells classes apart where channels are chosen: texts alone, or training "
                           "images, too", Literal["texts", "images"]),
        "W": replace(APE.keys["W"], default=(0.2, 0.8)),
        "INIT": replace(TipAdapterF.keys["INIT"], default=(1.0, 2.0)),
        "SEARCH_SCALE": replace(TipAdapterF.keys["SEARCH_SCALE"], default=(7.0, 7.0)),
    }
    rows = (Row("APE-T", 46, by_default=False),)
    optim = {**TipAdapterF.optim, "OPTIM.LR": 0.0001, "OPTIM.WEIGHT_DECAY": 0.1, "OPTIM.ADAM_EPS": 0.001}

    def build_clip_model(self, clip_model):
        return ResidualCLIP(clip_model, self.tasks)

    def prepare(self):
        super().prepare()
        model, cache = self.model, self.model.cache
        cache.channels = choose_channels(model, self.options, by_images=self.options.CHANNELS_BY == "images")
        cache.residuals.data = cache.keys.new_zeros(len(model.classnames), cache.channels.shape[1])
        cache.weights.data = cache.keys.new_ones(len(cache.keys))

    def owned(self):
        cache, task_of_class = self.model.cache, self.model.task_of_class
        return [(cache.residuals, task_of_class), (cache.weights, task_of_class[cache.labels])]
