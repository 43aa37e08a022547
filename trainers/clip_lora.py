"""CLIP-LoRA: low-rank updates of the attention's projections in both towers, with hand-written prompts.

Zanella and Ben Ayed, Low-Rank Few-Shot Adaptation of Vision-Language Models, CVPR Workshops 2024. Schedule of its
repository (MaxZanella/CLIP-LoRA): AdamW 2e-4 with weight decay 0.01, batch 32, 500 steps for each shot, a cosine to
1e-6 that goes on with every step. Its text features are of the first template; where the image tower alone learns, it
trains with all templates and tests with the first. One set of updates serves all tasks of a suite or, with TSC, each
task has a set of its own, and towers in which it is.
"""

from math import ceil
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from common.errors import UserError
from common.keys import Count, Key, Natural, Positive, Share
from runs.keys import refusal
from runs.methods import PREC, Row, register

from .lora import Attention, LowRank, with_same_values
from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP, template_prompts

# {LAYERS: the blocks (first, end) of a tower, in its depth}; of 12 the thirds are 0-3, 4-7 and 8-11, as published
LAYERS = {"all": (0, 1), "bottom": (0, 1 / 3), "mid": (1 / 3, 2 / 3), "up": (2 / 3, 1),
          "half-bottom": (0, 1 / 2), "half-up": (1 / 2, 1)}


class LoRACLIP(MultiTaskCLIP):
    """CLIP with low-rank updates; a `UserError` where a tower that shall learn is of another kind."""

    cosine_scale = 100.0  # a literal of the published code

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks)
        self.learns_texts, self.per_task_images = options.TOWERS != "image", options.TSC and options.TOWERS != "text"
        self.updates, self.copies = nn.ModuleDict(), nn.ModuleDict()  # of each tower; with TSC a copy for each task
        for tower, module, other in (("text", self.text_encoder, "image"), ("image", self.image_encoder, "text")):
            if options.TOWERS in (tower, "both"):
                if not any(type(block.attn) is nn.MultiheadAttention for block in self.blocks_of(module)):
                    raise UserError(f"TRAINER.CLIPLORA.TOWERS is {options.TOWERS!r}, but the {tower} tower here is no "
                                    "transformer as CLIP's are, which alone CLIP-LoRA is published for: use a backbone "
                                    f"such as ViT-B/16, or set it to {other}")
                if options.TSC:
                    self.copies[tower] = nn.ModuleList(with_same_values(module) for _ in tasks)
                    self.updates[tower] = nn.ModuleList(self.adapt(own, options) for own in self.copies[tower])
                else:
                    self.updates[tower] = self.adapt(module, options)
        self.prompts = template_prompts(tasks, [task.templates[0] for task in tasks], self.text_encoder.tokenizer)
        if options.DROPOUT:
            self.prompts.prefix = 0  # each prompt has masks of its own from [SOS] on

    @staticmethod
    def blocks_of(tower):
        return getattr(tower, "blocks", getattr(getattr(tower, "transformer", None), "resblocks", ()))

    def adapt(self, tower, options):
        """Put `Attention` into those of a tower's blocks that LAYERS names; returns their updates by block."""
        blocks = self.blocks_of(tower)
        (first, end), found = (round(share * len(blocks)) for share in LAYERS[options.LAYERS]), nn.ModuleDict()
        if first == end:
            raise UserError(f"TRAINER.CLIPLORA.LAYERS is {options.LAYERS!r}, which of {len(blocks)} blocks are none: "
                            "set it to all")
        for number in range(first, end):
            frozen = blocks[number].attn
            own = nn.ModuleDict({name: LowRank(frozen.embed_dim, options) for name in options.MATRICES})
            blocks[number].attn, found[str(number)] = Attention(frozen, own), own
        return found

    def class_features(self, classes=None):
        prompts = self.prompts if classes is None else self.prompts.select(classes)
        if "text" not in self.copies:
            return self.text_encoder(prompts)
        tasks, found = self.task_of_class if classes is None else self.task_of_class[classes], []
        for task, encoder in enumerate(self.copies["text"]):
            encoder.chunk, encoder.checkpoint = self.text_encoder.chunk, self.text_encoder.checkpoint
            rows = (tasks == task).nonzero()[:, 0]
            if len(rows):
                found.append((rows, encoder(prompts.select(rows))))
        rows, features = (torch.cat(parts) for parts in zip(*found))
        return features[rows.argsort()]

    def image_features(self, images, labels):
        if images.ndim != 4 or "image" not in self.copies:
            return super().image_features(images, labels)
        rows = [(self.task_of_class[labels] == task).nonzero()[:, 0] for task in range(len(self.tasks))]
        found = [tower(images[own]) for own, tower in zip(rows, self.copies["image"]) if len(own)]
        return torch.cat(found)[torch.cat(rows).argsort()]

    def forward(self, images, labels):
        texts = self.class_features() if self.learns_texts else self.zero_shot_features
        return self.logits(self.image_features(images, labels), labels, texts), labels


@register
class CLIPLoRA(MultiTaskTrainer):
    """CLIP-LoRA. Dropout draws other masks with another MODEL.TEXT_CHUNK, so results differ more than by rounding."""

    node = "CLIPLORA"
    keys = {
        "PREC": PREC,
        "TOWERS": Key("both", "which towers learn", Literal["both", "text", "image"]),
        "LAYERS": Key("all", "which blocks of a tower learn: thirds or halves of its depth, bottom first",
                      Literal[tuple(LAYERS)]),
        "MATRICES": Key(("q", "k", "v"), "which projections of the attention learn: of queries, keys, values, output",
                        Annotated[tuple[Literal["q", "k", "v", "o"], ...], Field(min_length=1)]),
        "RANK": Key(2, "rank of the updates", Count),
        "ALPHA": Key(1.0, "factor of the updates, divided by the square root of the rank", Positive),
        "DROPOUT": Key(0.25, "share of an update's input that is 0 in training; each has a mask of its own", Share),
        "TSC": Key(False, "updates of its own for every task", bool),
        "STEPS": Key(500, "steps for each shot, in whole epochs; 0: OPTIM.MAX_EPOCH epochs", Natural),
    }
    rows = (Row("CLIP-LoRA", 126, by_default=False),)
    optim = {"OPTIM.NAME": "adamw", "OPTIM.LR": 2e-4, "OPTIM.WEIGHT_DECAY": 0.01, "OPTIM.LR_SCHEDULER": "cosine",
             "OPTIM.COSINE_MIN_LR": 1e-6, "OPTIM.WARMUP_EPOCH": 0, "DATALOADER.TRAIN_X.BATCH_SIZE": 32}
    rate_by_batch, drop_last = True, False
    reads_templates = True
    fixed_steps = False  # dropout draws, and again in the backward pass
    not_neutral = ("MODEL.TEXT_CHUNK", "MODEL.COMPILE")  # dropout draws other masks
    learns_images = property(lambda self: self.options.TOWERS != "text")
    learns_texts = property(lambda self: self.options.TOWERS != "image")
    parts = staticmethod(lambda options: ["updates"])
    specific = staticmethod(lambda options: {"TSC": "task"} if options.TSC else {})

    def check_cfg(self, cfg):
        super().check_cfg(cfg)
        for key in ("CHECKPOINT_IMAGE", "COMPILE"):
            if self.options.TSC and cfg.MODEL[key]:
                raise refusal(cfg, f"MODEL.{key}", "is not for TRAINER.CLIPLORA.TSC, where each task has towers of its "
                              "own: leave it False")

    def build_clip_model(self, clip_model):
        return LoRACLIP(clip_model, self.tasks, self.options)

    def build_data(self):
        super().build_data()
        n, shots = len(self.train_images), self.cfg.DATASET.NUM_SHOTS
        if n and self.options.STEPS:
            n_steps = self.options.STEPS * (shots if shots > 0 else n / self.dataset.num_classes)
            self.max_epoch = ceil(n_steps / ceil(n / self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE))
