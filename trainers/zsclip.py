"""Zero-shot CLIP on one task or a whole suite: each task's own template, or an ensemble of templates."""

import torch
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY

from .multitask import MultiTaskCLIP, MultiTaskTrainer, template_prompts

# The seven templates that CLIP's authors picked for ImageNet (github.com/openai/CLIP, Prompt_Engineering_for_ImageNet).
ENSEMBLE_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


class TemplateCLIP(MultiTaskCLIP):
    """CLIP with hand-written prompts; `extra_templates` are used for every task besides its own."""

    def __init__(self, clip_model, tasks, extra_templates=()):
        super().__init__(clip_model, tasks)
        per_set = [[task.template for task in tasks], *([template] * len(tasks) for template in extra_templates)]
        self.prompts = torch.nn.ModuleList(
            template_prompts(tasks, templates, self.text_encoder.max_length) for templates in per_set)

    @torch.no_grad()
    def class_features(self, classes=None):
        """Mean over the templates of normalised features (n_cls, embed_dim)."""
        sets = self.prompts if classes is None else [prompts.select(classes) for prompts in self.prompts]
        return torch.stack([F.normalize(self.text_encoder(prompts), dim=-1) for prompts in sets]).mean(0)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(MultiTaskTrainer):
    """Zero-shot CLIP with each task's own template. Nothing is trained: run it with `--eval-only`."""

    extra_templates = ()

    def precision(self):
        return "fp16" if self.device.type == "cuda" else "fp32"

    def build_clip_model(self, clip_model):
        return TemplateCLIP(clip_model, self.tasks, self.extra_templates)

    def train(self):
        raise ValueError(f"{type(self).__name__} has nothing to train: run it with --eval-only")


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """Zero-shot CLIP with the mean text feature of each task's template and seven general ones."""

    extra_templates = ENSEMBLE_TEMPLATES
