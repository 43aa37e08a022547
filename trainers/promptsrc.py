"""PromptSRC: IVLP held near frozen CLIP, tested with a mean of its prompts over the epochs.

Khattak et al., Self-regulating Prompts, ICCV 2023. Defaults are the few-shot settings of
github.com/muzairkhattak/PromptSRC: SGD 0.0025, batch 4, 50 epochs, a first epoch at 1e-5, 4 prompts in the first 9
layers of each tower, GPA_MEAN 30 and GPA_STD 30. From base to new classes it has OPTIM.MAX_EPOCH 20, GPA_MEAN 15 and
GPA_STD 1. A step encodes its images twice, with prompts and without.
"""

from functools import cached_property

import torch
from torch.nn import functional as F

from common.keys import Key, NotNegative, Positive
from runs.methods import Row, register

from .ivlp import IVLP, IndependentCLIP
from .multitask_clip import template_prompts

# The teacher's templates, 60 of the 80 that CLIP's authors wrote for ImageNet, as published.
TEACHER_TEMPLATES = (
    "a photo of a {}.", "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}.",
    "a photo of the hard to see {}.", "a low resolution photo of the {}.", "a rendering of a {}.",
    "graffiti of a {}.", "a bad photo of the {}.", "a cropped photo of the {}.", "a tattoo of a {}.",
    "the embroidered {}.", "a photo of a hard to see {}.", "a bright photo of a {}.", "a photo of a clean {}.",
    "a photo of a dirty {}.", "a dark photo of the {}.", "a drawing of a {}.", "a photo of my {}.", "the plastic {}.",
    "a photo of the cool {}.", "a close-up photo of a {}.", "a black and white photo of the {}.",
    "a painting of the {}.", "a painting of a {}.", "a pixelated photo of the {}.", "a sculpture of the {}.",
    "a bright photo of the {}.", "a cropped photo of a {}.", "a plastic {}.", "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.", "a blurry photo of the {}.", "a photo of the {}.", "a good photo of the {}.",
    "a rendering of the {}.", "a {} in a video game.", "a photo of one {}.", "a doodle of a {}.",
    "a close-up photo of the {}.", "the origami {}.", "the {} in a video game.", "a sketch of a {}.",
    "a doodle of the {}.", "a origami {}.", "a low resolution photo of a {}.", "the toy {}.",
    "a rendition of the {}.", "a photo of the clean {}.", "a photo of a large {}.", "a rendition of a {}.",
    "a photo of a nice {}.", "a photo of a weird {}.", "a blurry photo of a {}.", "a cartoon {}.", "art of a {}.",
    "a sketch of the {}.", "a embroidered {}.", "a pixelated photo of a {}.", "itap of the {}.",
)


class RegulatedCLIP(IndependentCLIP):
    """CLIP with independent prompts, whose features and scores are held near those of frozen CLIP."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks, options)
        self.text_weight, self.image_weight = options.TEXT_LOSS_WEIGHT, options.IMAGE_LOSS_WEIGHT
        for name, value in list(self.prompt_learner.named_parameters()):  # sums over the epochs, which resuming needs
            self.prompt_learner.register_buffer(f"sum_{name.replace('.', '_')}", torch.zeros_like(value))

    @cached_property
    def teacher_features(self):
        """Class features (n_cls, embed_dim) of frozen CLIP at length 1: of the plain mean over its templates."""
        tokenizer, device, total = self.text_encoder.tokenizer, self.task_of_class.device, 0
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for template in TEACHER_TEMPLATES:
                prompts = template_prompts(self.tasks, [template] * len(self.tasks), tokenizer).to(device)
                total = total + self.text_encoder(prompts).to(self.learned_dtype)
        return F.normalize(total, dim=-1)

    def losses(self, images, labels):
        """Cross-entropy, and distances from frozen CLIP: of class and image features, and of the scores.

        That of class features is of each sample's own task: on one task it is the published one. That of scores is
        divided by the number of the task's classes, as published.
        """
        texts, features = self.class_features(), self.image_features(images, labels)
        logits = self.logits(features, labels, texts)
        with torch.no_grad():
            frozen = self.image_encoder(images)
            taught = self.logits(frozen, labels, self.teacher_features)
        own = self.in_own_task(labels)  # (B, n_cls)
        shares = own.to(self.learned_dtype) / own.sum(1, keepdim=True)
        apart = (unit(texts, self.learned_dtype) - self.teacher_features).abs().mean(1)  # (n_cls,)
        ours, theirs = (F.log_softmax(x, dim=1).masked_fill(~own, 0) for x in (logits, taught))
        units = (unit(x, self.learned_dtype) for x in (features, frozen))
        losses = {"xe_loss": F.cross_entropy(logits, labels),
                  "text_loss": self.text_weight * (shares @ apart).mean(),
                  "image_loss": self.image_weight * F.l1_loss(*units),
                  "score_loss": (shares * theirs.exp() * (theirs - ours)).sum(1).mean()}
        return {"loss": sum(losses.values()), **losses}, logits, labels


def unit(features, dtype):
    """Features (n, dim) at length 1, in `dtype`."""
    return F.normalize(features.to(dtype), dim=-1)


@register
class PromptSRC(IVLP):
    """Prompts that regulate themselves: by frozen CLIP, and by a Gaussian mean over the epochs."""

    node = "PROMPTSRC"
    keys = {
        **IVLP.keys,
        "TEXT_LOSS_WEIGHT": Key(25.0, "weight of the distance of class features", NotNegative),
        "IMAGE_LOSS_WEIGHT": Key(10.0, "weight of the distance of image features", NotNegative),
        "GPA_MEAN": Key(30.0, "epoch, counted from 1, whose prompts weigh most in the mean", float),
        "GPA_STD": Key(30.0, "standard deviation of the weights, in epochs", Positive),
    }
    rows = (Row("PromptSRC", 115, by_default=False),)
    optim = {**IVLP.optim, "OPTIM.MAX_EPOCH": 50}
    network = RegulatedCLIP

    def epoch_weights(self):
        """Weights (n_epochs,) of the mean: a Gaussian density at 1, 2, ..., scaled to a sum of 1."""
        epochs = torch.arange(1, self.max_epoch + 1, dtype=torch.float64)
        return torch.softmax(-((epochs - self.options.GPA_MEAN) / self.options.GPA_STD).square() / 2, dim=0)

    @torch.no_grad()
    def end_epoch(self):
        """Add the epoch's prompts to their sums; after the last epoch these are the prompts."""
        learner, weight = self.model.prompt_learner, float(self.epoch_weights()[self.epoch])
        for name, value in learner.named_parameters():
            total = learner.get_buffer(f"sum_{name.replace('.', '_')}").add_(weight * value)
            if self.epoch + 1 == self.max_epoch:
                value.copy_(total)
