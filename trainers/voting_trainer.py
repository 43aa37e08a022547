"""Base of the methods with a `VotingCLIP`: keys of the training images, and a search on validation images."""

import numpy as np
import torch
from torch.nn import functional as F

from common.errors import UserError

from .separate import SeparateTasksTrainer


def grid(scale, n, first):
    """The n numbers that a search tries: from `first` on, in equal steps, of which the next would reach `scale`."""
    return [first + i * (scale - first) / n for i in range(n)]


def features_of_task(trainer, task, part, view=None):
    """A task's part of `trainer.features`; the labels count in its own classes.

    Raises:
        UserError: the task has no such images.
    """
    features, labels = trainer.features(part, view)
    task_of_class = trainer.model.task_of_class
    rows = task_of_class[labels] == task
    if not rows.any():
        kind = "validation" if part == "val" else "training"
        raise UserError(f"{type(trainer).__name__} needs {kind} images of every task, but "
                        f"{trainer.tasks[task].name!r} has none")
    return features[rows], labels[rows] - (task_of_class == task).nonzero()[0]


class VotingTrainer(SeparateTasksTrainer):
    """Base of these methods, which have the options `VIEWS`, `SEARCH_SCALE` and `SEARCH_STEP`."""

    learns = False  # whether an optimizer steps something in the cache
    reads_templates = reads_validation_images = True
    fixed_steps = False  # each task has other images to compare with
    not_neutral = ("DATALOADER.VIEWS",)  # it counts even where nothing is stepped: keys are means over views

    @classmethod
    def steps(cls, cfg):
        return cls.learns

    @classmethod
    def parts(cls, options):
        return ["cache"] if cls.learns else []

    @classmethod
    def frozen_parts(cls, options):
        return [] if cls.learns else ["cache"]

    @staticmethod
    def specific(options):
        return {"": "class"}

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
        values = [grid(*each) for each in zip(self.options.SEARCH_SCALE, self.options.SEARCH_STEP, (0.1, 0.1, 0.0))]
        return (values + [[0.0]])[:3]  # a gamma of 0 where there is none

    @torch.no_grad()
    def search(self, task):
        """Accuracies (n_beta, n_alpha, n_gamma), in percent, on a task's validation images."""
        (features, labels), model = features_of_task(self, task, "val"), self.model
        features = F.normalize(features.to(model.learned_dtype), dim=-1)
        zero_shot, affinity = model.evidence(task, features, model.class_features()[model.task_of_class == task])
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
