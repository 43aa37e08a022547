"""CLIP-Adapter: a small network on the image feature, mixed with the feature itself; an adapter for every task.

Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, IJCV 2024. Schedule and batch size are
CoOp's (SGD 0.002, 200 epochs, batch 32), which the published code follows; its repository has no config of its own.
"""

import torch
from torch import nn

from common.keys import Count, Key, Share
from runs.methods import PREC, WARM_COSINE, Row, register

from .multitask_clip import MultiTaskCLIP
from .separate import SeparateTasksTrainer


class Adapters(nn.Module):
    """relu(up relu(down f)) for each task: `down` (n_tasks, dim // reduction, dim), `up` (n_tasks, dim, ...)."""

    def __init__(self, n_tasks, dim, reduction):
        super().__init__()
        self.down = nn.Parameter(torch.zeros(n_tasks, dim // reduction, dim))
        self.up = nn.Parameter(torch.zeros(n_tasks, dim, dim // reduction))

    def forward(self, features, tasks):
        """Features (B, dim), not normalised, and the number (B,) of each one's task -> (B, dim)."""
        hidden = (features @ self.down.transpose(1, 2)).relu()  # (n_tasks, B, ...): none is without a gradient
        adapted = (hidden @ self.up.transpose(1, 2)).relu()
        own = torch.arange(self.up.shape[0], device=tasks.device)[:, None] == tasks  # (n_tasks, B)
        return (own[..., None] * adapted).sum(0)


class AdapterCLIP(MultiTaskCLIP):
    """CLIP with hand-written prompts, whose image feature f is RATIO x A(f) + (1 - RATIO) x f."""

    per_task_images = adds_tasks = True

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks)
        self.ratio = options.RATIO
        self.adapter = Adapters(len(tasks), self.text_encoder.output_dim, options.REDUCTION)

    def image_features(self, images, labels):
        features = super().image_features(images, labels).to(self.learned_dtype)
        return self.ratio * self.adapter(features, self.task_of_class[labels]) + (1 - self.ratio) * features

    def class_features(self, classes=slice(None)):
        return self.zero_shot_features[classes]


@register
class CLIPAdapter(SeparateTasksTrainer):
    """CLIP-Adapter, an adapter per task; its initial values follow from (seed, task)."""

    node = "CLIPADAPTER"
    keys = {
        "PREC": PREC,
        "RATIO": Key(0.2, "share of the adapter's output in the feature", Share),
        "REDUCTION": Key(4, "the feature's width over that of the hidden layer", Count),
    }
    rows = (Row("CLIP-Adapter", 48, by_default=False),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.002, "OPTIM.MAX_EPOCH": 200,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 32}
    reads_templates = True

    @staticmethod
    def parts(options):
        return ["adapter"]

    @staticmethod
    def specific(options):
        return {"": "task"}

    def build_clip_model(self, clip_model):
        return AdapterCLIP(clip_model, self.tasks, self.options)

    def owned(self):  # a row is a task's
        return [(value, torch.arange(len(self.tasks), device=self.device)) for value in self.trained]

    def prepare(self):
        for number, task in enumerate(self.tasks):
            generator = self.generator(task.name)
            for weight in self.model.adapter.parameters():  # as nn.Linear draws them
                bound = weight.shape[2] ** -0.5
                weight.data[number] = torch.empty(weight.shape[1:]).uniform_(-bound, bound, generator=generator)
