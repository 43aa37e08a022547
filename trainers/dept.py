"""DePT on CoOp: a linear head on scaled and shifted features takes what is specific to the classes out of the context.

Zhang et al., DePT: Decoupled Prompt Tuning, CVPR 2024. Schedule of its repository (Koorye/DePT): SGD 3.5e-3 with weight
decay 5e-4, batch 4, 10 epochs, a first epoch at 1e-5; scale, shift and head have 6.5 times the rate, but 1e-5 in the
first epoch too. There the context alone predicts new classes; here a model serves the classes of training.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.keys import Count, Key, Positive, Share
from runs.methods import PREC, WARM_COSINE, Row, register

from .multitask import PerTaskTrainer
from .multitask_clip import ContextCLIP


class ChannelHead(nn.Module):
    """Logits w_k.(scale x f + shift) + b_k of features f that are not normalised; a task's images share the former.

    `weight` (n_cls, dim) and `bias` (n_cls,) start as nn.Linear's. `scale` and `shift` (n_tasks, dim) start at 1 and 0;
    `text_scale` and `text_shift` are those of text features.
    """

    def __init__(self, n_tasks, n_cls, dim):
        super().__init__()
        linear = nn.Linear(dim, n_cls)
        self.weight, self.bias = linear.weight, linear.bias
        self.scale, self.text_scale = (nn.Parameter(torch.ones(n_tasks, dim)) for _ in range(2))
        self.shift, self.text_shift = (nn.Parameter(torch.zeros(n_tasks, dim)) for _ in range(2))

    def of_images(self, tasks):
        """Rows (n_cls, dim + 1) r with logits r[:-1].f + r[-1] of image features f; `tasks` (n_cls,) of the classes."""
        return self.rows(self.scale[tasks], self.shift[tasks])

    def of_texts(self, tasks):
        """As `of_images`, for text features."""
        return self.rows(self.text_scale[tasks], self.text_shift[tasks])

    def rows(self, scale, shift):
        return torch.cat([self.weight * scale, ((self.weight * shift).sum(1) + self.bias)[:, None]], dim=1)


class DecoupledCLIP(ContextCLIP):
    """CLIP with a learned context per task, whose logits are mixed with those of the head."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks, options.N_CTX, options.CTX_INIT)
        self.share, self.dim = options.WEIGHT, self.text_encoder.output_dim
        self.prompt_learner.head = ChannelHead(len(tasks), len(self.classnames), self.dim)

    def class_features(self, classes=slice(None)):
        """Text features and the head's rows side by side, (n, 2 dim + 1)."""
        features = super().class_features().to(self.learned_dtype)
        return torch.cat([features, self.prompt_learner.head.of_images(self.task_of_class)], dim=1)[classes]

    def head_logits(self, features, rows):
        """The head's logits (B, n) of features (B, dim) by its rows (n, dim + 1)."""
        with torch.autocast(features.device.type, enabled=False):
            return features.to(self.learned_dtype) @ rows[:, :-1].t() + rows[:, -1]

    def score(self, image_features, class_features):
        texts, rows = class_features[:, :self.dim], class_features[:, self.dim:]
        return ((1 - self.share) * super().score(image_features, texts)
                + self.share * self.head_logits(image_features, rows))

    def losses(self, image_features, labels):
        """(1 - WEIGHT) x cross-entropy by cosines + WEIGHT x that of the head, on images and their classes' texts."""
        class_features = self.class_features()
        texts, rows = class_features[:, :self.dim], class_features[:, self.dim:]
        cosines = self.mask_other_tasks(super().score(image_features, texts), labels)
        of_texts = self.prompt_learner.head.of_texts(self.task_of_class)
        head = torch.cat([self.mask_other_tasks(self.head_logits(image_features, rows), labels),
                          self.mask_other_tasks(self.head_logits(texts[labels], of_texts), labels)])
        loss = ((1 - self.share) * F.cross_entropy(cosines, labels)
                + self.share * F.cross_entropy(head, labels.repeat(2)))
        return {"loss": loss}, self.logits(image_features, labels, class_features), labels


@register
class DePT(PerTaskTrainer):
    """DePT on CoOp, a context per task; scale and shift are a task's, the rows of the head its classes'."""

    node = "DEPT"
    keys = {
        "PREC": PREC,
        "N_CTX": Key(4, "number of context vectors, if CTX_INIT is empty", Count),
        "CTX_INIT": Key("", "words to start from", str),
        "WEIGHT": Key(0.7, "share of the head in loss and logits", Share),
        "LR_FACTOR": Key(6.5, "rate of head, scale and shift over that of the context", Positive),
    }
    rows = (Row("DePT", 103, by_default=False),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.0035, "OPTIM.MAX_EPOCH": 10,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 4}

    @staticmethod
    def specific(options):
        return {"": "class"}

    def build_clip_model(self, clip_model):
        return DecoupledCLIP(clip_model, self.tasks, self.options)

    def groups(self):
        learner = self.model.prompt_learner
        return [{"params": list(learner.learners.parameters())},
                {"params": list(learner.head.parameters()), "lr": self.options.LR_FACTOR * self.cfg.OPTIM.LR}]
