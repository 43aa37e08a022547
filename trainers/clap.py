"""ZS-LP and CLAP: a linear probe that starts from the texts, and one that is held near them, class by class.

Silva-Rodriguez et al., A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models, CVPR 2024. Schedule of
its repository: SGD 0.1 without weight decay, batch 256, 300 epochs, a first epoch at 1e-5. Features of 20 augmented
views (DATALOADER.VIEWS; 0: OPTIM.MAX_EPOCH views) are made once. An epoch permutes those of all views, and takes as
many batches as one view makes. A batch has images of several tasks: losses are means over its samples, of the
cross-entropy and of the penalty of the sample's own task.
"""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from common.keys import Key
from runs.methods import PREC, WARM_COSINE, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP


class Prototypes(nn.Module):
    """`weight` (n_cls, dim), `multipliers` (n_cls,) of its distance from the texts, `rho` (n_cls,) their rates."""

    def __init__(self, n_cls, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_cls, dim))
        for name in ("multipliers", "rho"):
            self.register_buffer(name, torch.zeros(n_cls))


class PrototypesCLIP(MultiTaskCLIP):
    """CLIP whose class features are learned; with multipliers of 0 nothing holds them near the texts."""

    def __init__(self, clip_model, tasks):
        super().__init__(clip_model, tasks)
        self.classifier = Prototypes(len(self.classnames), self.text_encoder.output_dim)

    def class_features(self, classes=slice(None)):
        return self.classifier.weight[classes]

    def distances(self):
        """Squared distances (n_cls,) of the prototypes from where they started; neither is normalised."""
        return (self.classifier.weight - self.mean_text_features).square().sum(1)

    def task_means(self, values):
        """For each class the mean (n_cls,) of `values` (n_cls,) over the classes of its task."""
        same_task = (self.task_of_class[:, None] == self.task_of_class).to(values)
        return same_task @ values / same_task.sum(1)

    def losses(self, images, labels):
        logits, targets = self(images, labels)
        penalties = self.task_means(self.classifier.multipliers * self.distances())[labels]  # of each sample's task
        return {"loss": F.cross_entropy(logits, targets) + penalties.mean()}, logits, targets


class ViewLoader:
    """Batches of features of all views: so many in an epoch as the images of one view make.

    Args:
        features, labels: (n_views x n, dim) and (n_views x n,), on the device. n: images of a view.
    """

    def __init__(self, features, labels, n, batch_size):
        self.features, self.labels, self.batch_size = features, labels, min(batch_size, len(labels))
        self.n_batches = max(n // batch_size, 1)

    def __len__(self):
        return self.n_batches

    def __iter__(self):
        order = torch.randperm(len(self.labels))
        for index in order.split(self.batch_size)[:self.n_batches]:
            yield self.features[index.to(self.features.device)], self.labels[index.to(self.labels.device)]


@register
class ZSLP(MultiTaskTrainer):
    """The zero-shot-initialised linear probe."""

    node = "ZSLP"
    keys = {"PREC": PREC}
    rows = (Row("ZS-LP", 38, by_default=False),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.1, "OPTIM.WEIGHT_DECAY": 0.0,
             "OPTIM.MAX_EPOCH": 300, "DATALOADER.TRAIN_X.BATCH_SIZE": 256, "DATALOADER.VIEWS": 20}

    @staticmethod
    def parts(options):
        return ["classifier"]

    @staticmethod
    def specific(options):
        return {"": "class"}

    def build_clip_model(self, clip_model):
        return PrototypesCLIP(clip_model, self.tasks)

    def prepare(self):
        self.model.classifier.weight.data.copy_(self.model.mean_text_features)

    def all_views(self):
        """Features (n_views x n, dim) of all views, and labels (n_views x n,)."""
        views = [self.features("train", view) for view in range(self.cfg.DATALOADER.VIEWS or self.max_epoch)]
        return [torch.cat(parts) for parts in zip(*views)]

    def make_train_loader(self):
        features, labels = self.all_views()
        n = len(labels) // (self.cfg.DATALOADER.VIEWS or self.max_epoch)
        return ViewLoader(features, labels, n, self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE)


@register
class CLAP(ZSLP):
    """ZS-LP with a penalty; a class's multiplier is the mean zero-shot probability of it on its training images."""

    node = "CLAP"
    keys = {"PREC": PREC, "MULTIPLIERS": Key(
        "class", "of a class's distance: its own; the task's mean; 1; growing with it; scaled to a mean of 1",
        Literal["class", "constant", "balanced", "adaptive", "corrected"])}
    rows = (Row("CLAP", 39, by_default=False),)

    @torch.no_grad()
    def prepare(self):
        super().prepare()
        (features, labels), model = self.all_views(), self.model
        right = model(features, labels)[0].softmax(1).gather(1, labels[:, None])[:, 0]
        own = F.one_hot(labels, len(model.classnames)).to(right)  # (n_views x n, n_cls)
        multipliers, kind = right @ own / own.sum(0).clamp(min=1), self.options.MULTIPLIERS  # no image: 0
        if kind in ("constant", "corrected"):
            means = model.task_means(multipliers)
            multipliers = means if kind == "constant" else multipliers / means
        model.classifier.multipliers = torch.ones_like(multipliers) if kind == "balanced" else multipliers

    @torch.no_grad()
    def end_epoch(self):
        if self.options.MULTIPLIERS == "adaptive":
            learned, distances = self.model.classifier, self.model.distances()
            learned.multipliers = (learned.multipliers + learned.rho * distances).clamp(min=0)
            learned.rho = distances
