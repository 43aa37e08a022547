"""ProLIP: the image tower's last projection is learned, held near its start.

Fahes et al., Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia, 2024. With an image's feature x before
the projection, and u(.) of length 1, logits are 100 u(x P + b).t_k; the loss is the cross-entropy + lambda |P - P0|^2
on all training images. Tasks have their own P, rate and lambda, and their losses are summed, so none disturbs another.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from common.keys import Key, NotNegative
from dassl.optim import build_lr_scheduler, build_optimizer
from features.image_features import FeatureLoader
from features.unprojected_features import UnprojectedImageEncoder
from runs.methods import PREC, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP
from .voting_trainer import features_of_task

TRIED = [(10.0 ** -rate, weight) for rate in range(2, 9) for weight in (10, 1, 0.1, 0.01, 0.001, 0.0001, 0)]


class ProjectedCLIP(MultiTaskCLIP):
    """CLIP whose last map of image features (width, dim) is learned or, with `adapter`, one (dim, dim) after it.

    `projections` holds the maps, and `settings` (n_tasks, 2), the rates and lambdas that they are learned with.
    """

    cosine_scale = 100  # a literal of the published code

    def __init__(self, clip_model, tasks, adapter, backbone):
        super().__init__(clip_model, tasks)
        start, bias = torch.eye(clip_model.output_dim), torch.zeros(clip_model.output_dim)
        if not adapter:
            self.image_encoder = UnprojectedImageEncoder(clip_model.visual, backbone)
            start, bias = self.image_encoder.projection, self.image_encoder.bias
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.projections = nn.ParameterList(start.clone() for _ in tasks)
        self.projections.register_buffer("settings", torch.zeros(len(tasks), 2))

    def class_features(self):
        return self.zero_shot_features

    def logits_by(self, learned, features, texts):
        """Logits (B, K) by a map (width, dim) of features (B, width); texts (K, dim)."""
        mapped = F.normalize(features.to(self.learned_dtype) @ learned + self.bias, dim=-1)
        return self.cosine_scale * mapped @ texts.t()

    def score(self, image_features, class_features):
        with torch.autocast(image_features.device.type, enabled=False):
            return torch.cat([self.logits_by(learned, image_features, class_features[self.task_of_class == task])
                              for task, learned in enumerate(self.projections)], dim=1)

    def losses(self, images, labels):
        logits, targets = self(images, labels)
        tasks, weights = self.task_of_class[labels], self.projections.settings[:, 1]
        xe_loss = sum(F.cross_entropy(logits[tasks == task], targets[tasks == task]) for task in tasks.unique())
        far = sum(weight * (own - self.start).square().sum() for weight, own in zip(weights, self.projections))
        return {"loss": xe_loss + far, "xe_loss": xe_loss}, logits, targets


@register
class ProLIP(MultiTaskTrainer):
    """The projection is learned with a rate and a lambda that are given, or that validation images chose."""

    node = "PROLIP"
    keys = {
        "PREC": PREC,
        "LAMBDA": Key("1/shots", "weight of the distance", NotNegative | Literal["1/shots", "1/shots^2"]),
        "SEARCH": Key(False, "choose rate and lambda of each task on validation images, by 49 more trainings", bool),
        "ADAPTER": Key(False, "learn a map after the projection, from the identity, instead of the projection", bool),
    }
    rows = (Row("ProLIP", 47, by_default=False),)
    optim = {"OPTIM.NAME": "adam", "OPTIM.LR": 1e-5, "OPTIM.WEIGHT_DECAY": 0.0, "OPTIM.ADAM_EPS": 1e-4,
             "OPTIM.LR_SCHEDULER": "cosine", "OPTIM.WARMUP_EPOCH": -1, "OPTIM.MAX_EPOCH": 300}
    reads_templates, fixed_steps = True, False  # each task has images of its own
    parts = staticmethod(lambda options: ["projections"])
    specific = staticmethod(lambda options: {"": "task"})

    def build_clip_model(self, clip_model):
        return ProjectedCLIP(clip_model, self.tasks, self.options.ADAPTER, self.cfg.MODEL.BACKBONE.NAME)

    def prepare(self):
        given, settings = self.options.LAMBDA, self.model.projections.settings
        for number, task in enumerate(self.tasks):
            shots = len(features_of_task(self, number, "train")[1]) / len(task.classnames)
            weight = {"1/shots": 1 / shots, "1/shots^2": 1 / shots ** 2}.get(given, given)
            chosen = TRIED[int(self.search(number).argmax())] if self.options.SEARCH else (self.cfg.OPTIM.LR, weight)
            settings[number] = settings.new_tensor(chosen)  # of equals the first

    def search(self, task):
        """Validation accuracies (49,), in percent, of a task that is trained with each of the pairs `TRIED`."""
        model, cfg, runs, (images, labels) = self.model, self.cfg.OPTIM, [], features_of_task(self, task, "val")
        texts = model.zero_shot_features[model.task_of_class == task]
        for rate, weight in TRIED:
            learned = nn.Parameter(model.start.clone())
            optimizer = build_optimizer([{"params": [learned], "lr": rate}], cfg)
            runs.append((learned, weight, optimizer, build_lr_scheduler(optimizer, cfg)))
        for view in range(self.max_epoch):
            features, targets = features_of_task(self, task, "train", view)
            for learned, weight, optimizer, scheduler in runs:
                optimizer.zero_grad()
                far = weight * (learned - model.start).square().sum()
                (F.cross_entropy(model.logits_by(learned, features, texts), targets) + far).backward()
                optimizer.step()
                scheduler.step()
        return 100 * torch.stack([model.logits_by(learned, images, texts).argmax(1) == labels
                                  for learned, *_ in runs]).double().mean(1)

    def groups(self):
        rates, maps = self.model.projections.settings[:, 0].tolist(), self.model.projections
        return [{"params": [own], "lr": rate} for own, rate in zip(maps, rates)]

    def make_train_loader(self):
        return FeatureLoader(self.train_images, [range(len(self.train_images))], self.encode, self.device)
