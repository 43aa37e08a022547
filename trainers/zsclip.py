"""Zero-shot CLIP on one task or a whole suite: each task's own template, or an ensemble of templates."""

import torch

from runs.methods import Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP

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
        self.extra_templates = extra_templates

    def class_features(self, classes=slice(None)):
        """Mean over the templates of normalised features (n, embed_dim)."""
        sets = [self.template_features([template] * len(self.tasks)) for template in self.extra_templates]
        return torch.stack([self.zero_shot_features, *sets]).mean(0)[classes]


@register
class ZeroshotCLIP(MultiTaskTrainer):
    """Zero-shot CLIP with each task's own template. Nothing is learned, with or without `--eval-only`."""

    rows = (Row("ZS-CLIP", 10, quick=True),)
    config = "ZeroShot/{MODEL}"
    folder_name = "{TRAINER}/{MODEL}/{SELECTED}"
    reads_training_images = False
    reads_templates = True
    extra_templates = ()

    @classmethod
    def steps(cls, cfg):
        return False

    def precision(self):
        return "fp16" if self.device.type == "cuda" else "fp32"

    def build_clip_model(self, clip_model):
        return TemplateCLIP(clip_model, self.tasks, self.extra_templates)


@register
class ZeroshotCLIP2(ZeroshotCLIP):
    """Zero-shot CLIP with the mean text feature of each task's template and seven general ones."""

    rows = (Row("ZS-CLIP (ensemble)", 20, by_default=False),)
    extra_templates = ENSEMBLE_TEMPLATES
