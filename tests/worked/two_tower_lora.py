"""A method inside the towers: low-rank updates (LoRA) of attention weights of both, with hand-written prompts."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from common.keys import Count, Key
from runs.methods import PREC, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP, template_prompts


class LoRA(nn.Module):
    """W -> W + b a for a weight W (n, m): `a` (rank, m) starts at random and `b` (n, rank) at 0; both are float32."""

    def __init__(self, weight, rank):
        super().__init__()
        self.a = nn.Parameter(0.02 * torch.randn(rank, weight.shape[1]))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight):
        return weight + (self.b @ self.a).to(weight.dtype)


class LoRACLIP(MultiTaskCLIP):
    def __init__(self, clip_model, tasks, rank):
        super().__init__(clip_model, tasks)
        pool, self.adapters = self.image_encoder.attnpool, nn.ModuleList()  # of CLIP's ResNets
        for module, name in [(pool.q_proj, "weight"), (pool.c_proj, "weight"),
                             *((block.attn, "in_proj_weight") for block in self.text_encoder.blocks)]:
            self.adapters.append(LoRA(getattr(module, name), rank))
            parametrize.register_parametrization(module, name, self.adapters[-1])
        self.prompts = template_prompts(tasks, [task.templates[0] for task in tasks], self.text_encoder.tokenizer)

    def class_features(self, classes=None):
        return self.text_encoder(self.prompts if classes is None else self.prompts.select(classes))


@register
class TwoTowerLoRA(MultiTaskTrainer):
    """LoRA on the image tower's attention pool and on all blocks of the text tower."""

    node = "TWOTOWERLORA"
    keys = {"PREC": PREC, "RANK": Key(2, "rank of the updates", Count)}
    rows = (Row("LoRA", 125),)
    learns_images = learns_texts = True  # batches are pixels, and no feature is kept
    reads_templates = True

    @staticmethod
    def parts(options):
        return ["adapters"]

    def build_clip_model(self, clip_model):
        return LoRACLIP(clip_model, self.tasks, self.options.RANK)
