"""The model of the methods where training images vote for their classes, beside zero-shot CLIP."""

import torch
from torch import nn
from torch.nn import functional as F

from .multitask_clip import MultiTaskCLIP


class Cache(nn.Module):
    """`keys` (n, dim) of training images of the classes `labels` (n,); `settings` (n_tasks, 3): beta, alpha, gamma."""

    def __init__(self, learn=False):
        super().__init__()
        keys = torch.empty(0)  # `prepare` makes them
        self.register_parameter("keys", nn.Parameter(keys)) if learn else self.register_buffer("keys", keys)
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))
        self.register_buffer("settings", torch.empty(0))


class VotingCLIP(MultiTaskCLIP):
    """Zero-shot CLIP with a `Cache`, whose images vote inside their own task."""

    adds_tasks = True
    cosine_scale = 100  # a literal of the published code

    def __init__(self, clip_model, tasks, cache):
        super().__init__(clip_model, tasks)
        self.cache = cache

    def class_features(self):
        return self.zero_shot_features

    def evidence(self, task, features, texts):
        """Zero-shot logits (B, K) for a task's K classes, and affinities (B, n) to its n keys.

        Args:
            features: (B, dim), of length 1. texts: (K, dim), of the task's classes.
        """
        return self.cosine_scale * features @ texts.t(), features @ self.keys()[self.images_of(task)].t()

    def keys(self):
        """The keys (n, dim) with which features are compared."""
        return self.cache.keys

    def images_of(self, task):
        """Mask (n,) of the keys that belong to a task."""
        return self.task_of_class[self.cache.labels] == task

    def own(self, task):
        """A task's texts (K, dim), keys (n, dim) and their labels (n,), counting in its own classes."""
        columns, rows = self.task_of_class == task, self.images_of(task)
        return self.zero_shot_features[columns], self.cache.keys[rows], self.cache.labels[rows] - columns.nonzero()[0]

    def values(self, task, gamma):
        """The values (n, K) that a task's n images give to its K classes."""
        return self.cache.labels[self.images_of(task)][:, None] == (self.task_of_class == task).nonzero()[:, 0]

    def votes(self, task, affinity, beta, gamma):
        """(B, n) affinities -> (B, K) votes."""
        return torch.exp(-beta * (1 - affinity)) @ self.values(task, gamma).to(affinity)

    def score(self, image_features, class_features):
        with torch.autocast(image_features.device.type, enabled=False):
            features, columns = F.normalize(image_features.to(self.learned_dtype), dim=-1), []
            for task in range(len(self.tasks)):
                beta, alpha, gamma = self.cache.settings[task].unbind()
                zero_shot, affinity = self.evidence(task, features, class_features[self.task_of_class == task])
                columns.append(zero_shot + alpha * self.votes(task, affinity, beta, gamma))
            return torch.cat(columns, dim=1)
