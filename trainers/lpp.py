"""LP++: a linear probe blended with the texts, class by class, whose step sizes follow from the features.

Huang et al., LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, CVPR 2024. Of its repository: 300 epochs, each
one step on all images in one augmented view (DATALOADER.VIEWS), momentum 0.9, the best epoch by validation. OPTIM.LR
multiplies the rates of the paper. Tasks are separate problems, of which a suite minimises the sum of the losses: it
learns what single runs learn, but one epoch is chosen for all tasks, by their mean.
"""

import torch
from torch import nn
from torch.nn import functional as F

from features.image_features import FeatureLoader
from runs.methods import PREC, Row, register

from .multitask import PerClassTrainer
from .multitask_clip import ClassVectors, MultiTaskCLIP


class Blend(ClassVectors):
    """`weight` (n_cls, dim), `bias` and `alpha` (n_cls,) of the classes, and what `alpha` is stepped by.

    `rates` (2, n_cls) are those of weight and bias, and of alpha; `gradients` (n_cls,) sums up alpha's of all epochs.
    """

    def __init__(self, n_cls, dim):
        super().__init__(n_cls, dim)
        self.bias, self.alpha = (nn.Parameter(torch.zeros(n_cls)) for _ in range(2))
        self.register_buffer("rates", torch.zeros(2, n_cls))
        self.register_buffer("gradients", torch.zeros(n_cls))


class BlendCLIP(MultiTaskCLIP):
    """Logits w.f + b + alpha t.f of features at length 1, without temperature."""

    adds_tasks = True

    def __init__(self, clip_model, tasks):
        super().__init__(clip_model, tasks)
        self.classifier = Blend(len(self.classnames), self.text_encoder.output_dim)

    def class_features(self, classes=slice(None)):
        learned = self.classifier
        blended = learned.weight + learned.alpha[:, None] * self.zero_shot_features
        return torch.cat([blended, learned.bias[:, None]], dim=1)[classes]  # (n, dim + 1), the last is the bias

    def score(self, image_features, class_features):
        with torch.autocast(image_features.device.type, enabled=False):
            features = F.normalize(image_features.to(self.learned_dtype), dim=-1)
            return features @ class_features[:, :-1].t() + class_features[:, -1]


@register
class LPplusplus(PerClassTrainer):
    """LP++. The bias, which is drawn, follows from (seed, task)."""

    node = "LPPLUSPLUS"
    keys = {"PREC": PREC}
    rows = (Row("LP++", 41, by_default=False),)
    optim = {"OPTIM.NAME": "sgd", "OPTIM.LR": 1.0, "OPTIM.WEIGHT_DECAY": 0.0, "OPTIM.MOMENTUM": 0.9,
             "OPTIM.MAX_EPOCH": 300, "OPTIM.LR_SCHEDULER": "single_step", "OPTIM.STEPSIZE": (-1,),
             "OPTIM.WARMUP_EPOCH": 0, "DATALOADER.VIEWS": 1, "TEST.FINAL_MODEL": "best_val"}
    reads_templates = True
    fixed_steps = False  # a step adds up the gradients of alpha

    def build_clip_model(self, clip_model):
        return BlendCLIP(clip_model, self.tasks)

    @torch.no_grad()
    def prepare(self):
        (features, labels), model, learned = self.features("train", 0), self.model, self.model.classifier
        self.need_images_of_tasks()
        features = F.normalize(features.to(model.learned_dtype), dim=-1)
        learned.weight.index_add_(0, labels, features)  # sums, not means
        cosines = features @ model.zero_shot_features.t()  # (n, n_cls)
        for number, task in enumerate(self.tasks):
            own = model.task_of_class == number  # (n_cls,)
            rows = own[labels]  # (n,)
            x, cos = features[rows], cosines[rows][:, own]  # (n, dim), (n, n_cls) of the task
            of_class = F.one_hot(labels[rows], len(own))[:, own].to(features)
            counts = of_class.sum(0)
            bound = features.shape[1] ** -0.5  # as nn.Linear draws it
            learned.bias[own] = torch.empty(len(counts)).uniform_(
                -bound, bound, generator=self.generator(task.name)).to(learned.bias)
            learned.alpha[own] = 250 * ((cos * of_class).sum(0) / counts)[counts > 0].mean()
            learned.rates[0, own] = 4 * len(x) / torch.linalg.matrix_norm(x, ord=2) ** 2
            learned.rates[1, own] = len(x) / (4 * cos.square().sum(0).max())

    def make_train_loader(self):
        return FeatureLoader(self.train_images, [list(range(len(self.train_images)))], self.encode, self.device)

    def add_gradients(self, images, labels, share=1.0):
        """Multiply gradients by the rate of each class. Alpha's are summed up, and the optimizer gets 0 for it."""
        shown, learned = super().add_gradients(images, labels, share), self.model.classifier
        scale = self.scaler.get_scale() if self.scaler else 1
        learned.gradients += learned.alpha.grad / scale
        learned.alpha.grad.zero_()
        learned.weight.grad *= learned.rates[0][:, None]
        learned.bias.grad *= learned.rates[0]
        return shown

    def end_epoch(self):
        if (self.epoch + 1) % 10 == 0:
            learned = self.model.classifier
            learned.alpha.data -= self.learning_rate() * learned.rates[1] * learned.gradients
