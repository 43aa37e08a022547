"""Tip-Adapter and Tip-Adapter-F: zero-shot CLIP, and votes of the training images for their classes.

Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, ECCV 2022. With features of length
1, the logit of class k is 100 f.t_k + alpha x the sum of exp(-beta (1 - f.F_i)) over its training images i. On a suite
every task has its own beta and alpha. Defaults are the published ones of ImageNet; schedules are of all datasets.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from common.errors import UserError
from common.keys import Count, Key, NotNegative, Positive
from runs.methods import PREC, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP

SCALE = 100  # of cosines: published code has this number instead of CLIP's own


class Cache(nn.Module):
    """`keys` (n, dim) of training images of the classes `labels` (n,); `settings` (n_tasks, 3): beta, alpha, gamma."""

    def __init__(self, learn=False):
        super().__init__()
        self.keys = nn.Parameter(torch.empty(0), requires_grad=learn)  # `prepare` makes them
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))
        self.register_buffer("settings", torch.empty(0))


class CacheCLIP(MultiTaskCLIP):
    """Zero-shot CLIP with a `Cache`, whose images vote inside their own task."""

    def __init__(self, clip_model, tasks, cache):
        super().__init__(clip_model, tasks)
        self.cache = cache

    def class_features(self):
        return self.zero_shot_features

    def evidence(self, task, features, texts):
        """Of features (B, dim) of length 1, zero-shot logits (B, K) of a task's classes, affinities (B, n) to its keys.

        Args:
            texts: (K, dim), of its classes.
        """
        return SCALE * features @ texts.t(), features @ self.cache.keys[self.images_of(task)].t()

    def images_of(self, task):
        """Which keys (n,) are of a task."""
        return self.task_of_class[self.cache.labels] == task

    def values(self, task, gamma):
        """What the images of a task give to its classes (n, K)."""
        return F.one_hot(self.cache.labels, len(self.classnames))[self.images_of(task)][:, self.task_of_class == task]

    def votes(self, task, affinity, beta, gamma):
        """(B, n) affinities -> (B, K) votes."""
        return torch.exp(-beta * (1 - affinity)) @ self.values(task, gamma).to(affinity)

    def score(self, image_features, class_features):
        with torch.autocast(image_features.device.type, enabled=False):
            features, columns = F.normalize(image_features.to(self.learned_dtype), dim=-1), []
            for task, (beta, alpha, gamma) in enumerate(self.cache.settings):
                zero_shot, affinity = self.evidence(task, features, class_features[self.task_of_class == task])
                columns.append(zero_shot + alpha * self.votes(task, affinity, beta, gamma))
            return torch.cat(columns, dim=1)


def grid(scale, n, first=0.1):
    """The n numbers that a search tries: from `first` on, in equal steps that would next reach `scale`."""
    return [first + i * (scale - first) / n for i in range(n)]


@register
class TipAdapter(MultiTaskTrainer):
    """The votes weigh as validation images choose; nothing is learned by steps."""

    node = "TIPADAPTER"
    keys = {
        "PREC": PREC,
        "VIEWS": Key(10, "augmented views of a training image whose mean is its key", Count),
        "SEARCH_SCALE": Key((7.0, 3.0), "where the search for beta and alpha ends", tuple[Positive, Positive]),
        "SEARCH_STEP": Key((200, 20), "values of beta and alpha that are tried", tuple[Count, Count]),
    }
    rows = (Row("Tip-Adapter", 43, by_default=False),)
    reads_templates = True

    @classmethod
    def steps(cls, cfg):
        return False

    @staticmethod
    def frozen_parts(options):
        return ["cache"]

    @staticmethod
    def specific(options):
        return {"": "class"}

    def build_clip_model(self, clip_model):
        return CacheCLIP(clip_model, self.tasks, Cache())

    def make_features(self, epochs):
        super().make_features(range(max(self.options.VIEWS, epochs.stop)))  # those of the keys, too, in one pass

    def prepare(self):
        views, cache, dtype = range(self.options.VIEWS), self.model.cache, self.model.learned_dtype
        cache.labels = self.features("train")[1]
        mean = sum(self.features("train", view)[0].to(dtype) for view in views) / len(views)
        cache.keys.data = F.normalize(mean, dim=-1)
        cache.settings = torch.zeros(len(self.tasks), 3, dtype=dtype, device=self.device)

    def axes(self):
        """Values of beta, alpha and gamma that the search tries."""
        (beta, alpha), (n_beta, n_alpha) = self.options.SEARCH_SCALE, self.options.SEARCH_STEP
        return grid(beta, n_beta), grid(alpha, n_alpha), [0.0]

    @torch.no_grad()
    def search(self, task):
        """Accuracies (n_beta, n_alpha, n_gamma), in percent, on a task's validation images.

        Raises:
            UserError: it has none.
        """
        (features, labels), model = self.features("val"), self.model
        own, columns = model.task_of_class[labels] == task, model.task_of_class == task
        if not own.any():
            raise UserError(f"{type(self).__name__} needs validation images to choose its weights, but task "
                            f"{self.tasks[task].name!r} has none")
        features = F.normalize(features[own].to(model.learned_dtype), dim=-1)
        labels = labels[own] - columns.nonzero()[0]
        zero_shot, affinity = model.evidence(task, features, model.class_features()[columns])
        betas, alphas, gammas = self.axes()
        right = []
        for beta in betas:
            votes = [model.votes(task, affinity, beta, gamma) for gamma in gammas]
            right += [((zero_shot + alpha * own_votes).argmax(1) == labels).sum() for alpha in alphas
                      for own_votes in votes]
        found = torch.stack(right).double() * (100 / len(labels))
        return found.view(len(betas), len(alphas), len(gammas)).cpu().numpy()

    def calibrate(self):
        settings = self.model.cache.settings
        for task in range(len(self.tasks)):
            found = self.search(task)
            best = np.unravel_index(found.argmax(), found.shape)  # the first of equals
            chosen = [axis[i] for axis, i in zip(self.axes(), best)] if found.any() else [0, 0, 0]
            settings[task] = torch.tensor(chosen, dtype=settings.dtype)


@register
class TipAdapterF(TipAdapter):
    """The keys are learned, with the first beta and alpha; the search follows, on the epoch that is deployed."""

    node = "TIPADAPTERF"
    keys = {**TipAdapter.keys, "INIT": Key((1.0, 1.17), "beta and alpha of training", tuple[NotNegative, NotNegative])}
    rows = (Row("Tip-Adapter-F", 44, by_default=False),)
    optim = {"OPTIM.NAME": "adamw", "OPTIM.LR": 0.001, "OPTIM.WEIGHT_DECAY": 0.01, "OPTIM.ADAM_EPS": 1e-4,
             "OPTIM.LR_SCHEDULER": "cosine", "OPTIM.WARMUP_EPOCH": -1, "OPTIM.MAX_EPOCH": 20,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 256, "TEST.FINAL_MODEL": "best_val"}
    rate_by_batch, drop_last = True, False

    @classmethod
    def steps(cls, cfg):
        return True

    @staticmethod
    def parts(options):
        return ["cache"]

    @staticmethod
    def frozen_parts(options):
        return []

    def build_clip_model(self, clip_model):
        return CacheCLIP(clip_model, self.tasks, Cache(learn=True))

    def prepare(self):
        super().prepare()
        self.model.cache.settings[:, :2] = self.model.cache.settings.new_tensor(self.options.INIT)
