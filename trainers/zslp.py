"""ZS-LP: a linear probe that starts from the texts' features.

Silva-Rodriguez et al., A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models, CVPR 2024. Schedule of
its repository: SGD 0.1 without weight decay, batch 256, 300 epochs, a first epoch at 1e-5, 20 augmented views, whose
features are made once (DATALOADER.VIEWS; 0: OPTIM.MAX_EPOCH views). An epoch takes as many batches of them as one view
makes.
"""

import torch
from torch.nn import functional as F
from torch.utils.data import BatchSampler, RandomSampler

from features.image_features import indices_of
from runs.methods import PREC, WARM_COSINE, Row, register

from .multitask import PerClassTrainer
from .multitask_clip import ClassVectors, MultiTaskCLIP
from .separate import SeparateTasksTrainer, TaskBatches


class Prototypes(ClassVectors):
    """`weight` (n_cls, dim), `multipliers` (n_cls,) of its distance from the texts, `rho` (n_cls,) their rates."""

    def __init__(self, n_cls, dim):
        super().__init__(n_cls, dim)
        self.register_buffer("multipliers", torch.zeros(n_cls))
        self.register_buffer("rho", torch.zeros(n_cls))


class PrototypesCLIP(MultiTaskCLIP):
    """CLIP whose class features are learned; with multipliers of 0 nothing holds them near the texts."""

    adds_tasks = True

    def __init__(self, clip_model, tasks):
        super().__init__(clip_model, tasks)
        self.classifier = Prototypes(len(self.classnames), self.text_encoder.output_dim)

    def class_features(self, classes=slice(None)):
        return self.classifier.weight[classes]

    def distances(self):  # squared, (n_cls,), from where they started; neither is normalised
        return (self.classifier.weight - self.mean_text_features).square().sum(1)

    def task_means(self, values):
        """For each class the mean (n_cls,) of `values` (n_cls,) over the classes of its task."""
        tasks = self.task_of_class
        return (self.add_by_task(values, tasks) / self.add_by_task(torch.ones_like(values), tasks))[tasks]

    def losses(self, images, labels):
        logits, targets = self(images, labels)
        penalties = self.task_means(self.classifier.multipliers * self.distances())[labels]  # of the samples' tasks
        losses = F.cross_entropy(logits, targets, reduction="none") + penalties
        return {"loss": self.sum_over_tasks(losses, labels)}, logits, targets


class ViewLoader:
    """`batches`, lists of indices, of the features (n_views, n, dim) of all views, one after the other; labels (n,)."""

    def __init__(self, features, labels, batches):
        self.features, self.labels, self.batches = features.flatten(0, 1), labels.repeat(len(features)), batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for index in indices_of(self.batches, self.labels.device):
            yield self.features[index], self.labels[index]


@register
class ZSLP(SeparateTasksTrainer, PerClassTrainer):
    """The zero-shot-initialised linear probe; its batches follow from (seed, epoch, task)."""

    node = "ZSLP"
    keys = {"PREC": PREC}
    rows = (Row("ZS-LP", 38, by_default=False, quick=True),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.1, "OPTIM.WEIGHT_DECAY": 0.0,
             "OPTIM.MAX_EPOCH": 300, "DATALOADER.TRAIN_X.BATCH_SIZE": 256, "DATALOADER.VIEWS": 20}

    def build_clip_model(self, clip_model):
        return PrototypesCLIP(clip_model, self.tasks)

    def prepare(self):
        self.model.classifier.weight.data.copy_(self.model.mean_text_features)

    @property
    def n_views(self):
        return self.cfg.DATALOADER.VIEWS or self.max_epoch

    def all_views(self):  # features (n_views, n, dim), labels (n,)
        views = [self.features("train", view) for view in range(self.n_views)]
        return torch.stack([features for features, _ in views]), views[0][1]

    def batches(self, data_source):  # of all views, as many as one view makes
        n, size = len(data_source), self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        n_drawn = min(max(n // self.n_views // size, 1) * size, n)
        return BatchSampler(RandomSampler(data_source, num_samples=n_drawn), size, drop_last=False)

    def make_train_loader(self):
        self.need_images_of_tasks()
        return ViewLoader(*self.all_views(), TaskBatches(self, self.train_images.data_source * self.n_views))
