"""APE: votes of training images as in Tip-Adapter, on the channels that tell classes apart.

Zhu et al., Not All Features Matter: Enhancing Few-shot CLIP with Adaptive Prior Refinement, ICCV 2023. Affinities are
of the chosen channels at length 1, and an image's vote weighs exp(gamma x divergence of zero-shot CLIP from its class).
On a suite every task has its own channels, beta, alpha and gamma. Defaults are the published ones of ImageNet, RN50.
"""

import torch
from torch.nn import functional as F

from common.keys import Count, Key, NotNegative, Positive, Share
from runs.methods import PREC, Row, register

from .tip_adapter import VIEWS
from .votes import Cache, VotingCLIP
from .voting_trainer import VotingTrainer

TINY = 1e-6  # added to probabilities before their logarithm (published code)


class ChannelCache(Cache):
    """A `Cache` that knows the chosen `channels` (n_tasks, n_channels)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("channels", torch.empty(0, dtype=torch.long))


class ChannelCLIP(VotingCLIP):
    """`cache.divergence` (n,) is that of zero-shot CLIP's prediction for each training image, in bits."""

    def __init__(self, clip_model, tasks):
        super().__init__(clip_model, tasks, ChannelCache())
        self.cache.register_buffer("divergence", torch.empty(0))

    def on_channels(self, task, features):
        """Features (n, dim) -> (n, n_channels) of length 1."""
        return F.normalize(features[:, self.cache.channels[task]], dim=-1)

    def evidence(self, task, features, texts):
        keys = self.on_channels(task, self.cache.keys[self.images_of(task)])
        return super().evidence(task, features, texts)[0], self.on_channels(task, features) @ keys.t()

    def values(self, task, gamma):
        return super().values(task, gamma) * torch.exp(gamma * self.cache.divergence[self.images_of(task)])[:, None]


def choose_channels(model, options, by_images):
    """The channels (n_tasks, n_channels) that tell each task's classes apart, best first.

    They have the largest -w1 x similarity + w2 x variance: the mean product of the features of two classes, and the
    variance of texts over classes. Features are a class's text and, with `by_images`, its keys.
    """
    chosen, (w1, w2) = [], options.W
    for task in range(len(model.tasks)):
        texts, keys, labels = model.own(task)
        if by_images:
            means = texts.index_add(0, labels, keys) / (1 + labels.bincount(minlength=len(texts)))[:, None]
        else:
            means = texts
        similarity = (means.sum(0).square() - means.square().sum(0)) / (len(texts) * (len(texts) - 1))
        n = max(1, round(options.CHANNELS * keys.shape[1]))
        chosen.append((w2 * texts.var(dim=0) - w1 * similarity).topk(n).indices)
    return torch.stack(chosen)


@register
class APE(VotingTrainer):
    """Nothing is learned by steps: validation images choose beta, alpha and gamma."""

    node = "APE"
    keys = {
        "PREC": PREC,
        "VIEWS": VIEWS,
        "CHANNELS": Key(500 / 1024, "share of the channels that is chosen", Share),
        "W": Key((0.7, 0.3), "of similarity and of variance where channels are chosen",
                 tuple[NotNegative, NotNegative]),
        "SEARCH_SCALE": Key((7.0, 7.0, 0.5), "where the values of beta, alpha and gamma end that are tried",
                            tuple[Positive, Positive, Positive]),
        "SEARCH_STEP": Key((200, 20, 5), "how many values of beta, alpha and gamma are tried",
                           tuple[Count, Count, Count]),
    }
    rows = (Row("APE", 45, by_default=False),)

    def build_clip_model(self, clip_model):
        return ChannelCLIP(clip_model, self.tasks)

    def prepare(self):
        super().prepare()
        model, cache = self.model, self.model.cache
        cache.channels = choose_channels(model, self.options, by_images=True)
        cache.divergence = cache.keys.new_zeros(len(cache.keys))
        for task in range(len(self.tasks)):
            texts, keys, labels = model.own(task)
            cosines = model.on_channels(task, keys) @ model.on_channels(task, texts).t()
            predicted = cosines.softmax(dim=1).gather(1, labels[:, None])[:, 0]  # without temperature, as published
            cache.divergence[model.images_of(task)] = torch.log2((1 + TINY) / (predicted + TINY))
