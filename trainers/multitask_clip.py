"""Frozen CLIP that scores images inside a sample's own task; what its class features come from is a method's."""

import zlib
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional as F

from common.digests import digest_of_tensors
from common.errors import UserError
from runs.config import set_value
from runs.keys import all_keys, refusal, source_of

from .prompts import LearnedContext, TaskContexts, build_prompts, words
from .text_encoder import TextEncoder, WholePromptEncoder


def read_clip(name, quick_gelu=None):
    """CLIP of a backbone's name; a process that does many runs replaces this by one that reads it once."""
    from clip import clip  # open_clip is slow to import

    return clip.load(name, device="cpu", quick_gelu=quick_gelu)[0]


def load_clip(cfg):
    """CLIP in fp32 on the CPU, frozen, for `MODEL.BACKBONE.NAME`; `cfg` then says how it reads images.

    Raises:
        UserError: none is named, it can't be loaded, or reads images of another size than `INPUT.SIZE`.
    """
    from clip import ClipError  # open_clip is slow to import

    if not cfg.MODEL.BACKBONE.NAME:
        raise refusal(cfg, "MODEL.BACKBONE.NAME", "must name a CLIP: set it by --backbone or a --config-file")
    print(f"Loading CLIP (backbone: {cfg.MODEL.BACKBONE.NAME})")
    try:
        options = cfg.MODEL.BACKBONE
        model = read_clip(options.NAME, None if options.QUICK_GELU == "auto" else options.QUICK_GELU)
    except ClipError as error:
        raise UserError(str(error)) from error
    read_as_trained(cfg, model.visual)
    return model.requires_grad_(False)


def read_as_trained(cfg, visual):
    """Give `cfg.INPUT` the image tower's own size, mean, std, interpolation and resize mode where they are not set.

    Those that are set count; one that differs is said.

    Raises:
        UserError: `INPUT.SIZE` is set to another size, which the tower can't read.
    """
    own, size, keys = visual.preprocess_cfg, visual.input_resolution, all_keys()
    own = {"INPUT.SIZE": (size, size), "INPUT.PIXEL_MEAN": own["mean"], "INPUT.PIXEL_STD": own["std"],
           # open_clip takes all but bilinear for bicubic
           "INPUT.INTERPOLATION": "bilinear" if own["interpolation"] == "bilinear" else "bicubic",
           "INPUT.RESIZE_MODE": own["resize_mode"]}
    backbone, sources = cfg.MODEL.BACKBONE.NAME, getattr(cfg, "sources", {})
    cfg.defrost()
    for key, value in own.items():
        given = cfg.INPUT[key.removeprefix("INPUT.")]
        if tuple(given) == tuple(value):
            continue
        if key not in sources:
            set_value(cfg, keys, key, value, f"by the backbone {backbone}")
            print(f"{key} is {value}, as the backbone was trained")
        elif key == "INPUT.SIZE":
            raise refusal(cfg, key, f"the backbone {backbone} reads {size}x{size} images: leave it out, or set "
                          f"INPUT.SIZE \"({size}, {size})\"")
        else:
            print(f"Warning: {key} is {given!r}{source_of(cfg, key)}, but the backbone {backbone} was trained with "
                  f"{value!r}: the former is used, leave it out for the latter")
    cfg.freeze()


def digest_of_weights(clip_model):
    """What identifies a CLIP model: its values, and its modules' description, which tells QuickGELU from GELU."""
    return f"{digest_of_tensors(clip_model.state_dict())}-{zlib.crc32(repr(clip_model).encode()):08x}"


class MultiTaskCLIP(nn.Module):
    """Frozen CLIP whose class features a subclass makes; images are scored by exp(logit_scale) x cosine.

    Args:
        clip_model: fp32 CLIP.
        tasks: list of `Task`; its classes, task after task, are the columns of the logits.
    """

    def __init__(self, clip_model, tasks):
        from clip.model import TextTowerCLIP  # open_clip is slow to import

        super().__init__()
        self.image_encoder = clip_model.visual
        self.text_encoder = (WholePromptEncoder if isinstance(clip_model, TextTowerCLIP) else TextEncoder)(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.tasks = tasks
        self.classnames = [name for task in tasks for name in task.classnames]
        task_of_class = torch.tensor([t for t, task in enumerate(tasks) for _ in task.classnames])
        self.register_buffer("task_of_class", task_of_class, persistent=False)
        self.dtype = torch.float32  # of the image tower

    @property
    def learned_dtype(self):
        """dtype of what is learned, of logits and losses: float32, under fp64 float64."""
        return self.logit_scale.dtype

    def set_precision(self, prec):
        """Cast the frozen towers for `fp16` or `bf16`; what is learned stays in fp32.

        `fp64` casts the text tower and what is learned; the image tower and its features stay in fp32.
        """
        from clip.model import convert_to_double, convert_weights  # open_clip is slow to import

        if prec in ("fp16", "bf16"):
            self.dtype = torch.float16 if prec == "fp16" else torch.bfloat16
            convert_weights(self.image_encoder, self.dtype)
            self.text_encoder.cast(self.dtype)
        elif prec == "fp64":
            convert_to_double(self)
            self.image_encoder.float()  # there and back, a float32 stays as it was

    @torch.no_grad()
    def template_features(self, templates):
        """Normalised text features (n_cls, embed_dim) of hand-written prompts; `templates` has one per task."""
        prompts = template_prompts(self.tasks, templates, self.text_encoder.tokenizer)
        features = self.text_encoder(prompts.to(self.task_of_class.device))
        return F.normalize(features.to(self.learned_dtype), dim=-1)

    @cached_property
    def zero_shot_features(self):
        """`template_features` of the tasks' own templates, made once, when the model has its device and precision."""
        return self.template_features([task.template for task in self.tasks])

    def class_features(self, classes=None):
        """Text features (n, embed_dim) of the classes at the indices `classes` (n,), by default all."""
        raise NotImplementedError

    def score(self, image_features, class_features):
        """Logits (B, n) of features (B, embed_dim) and (n, embed_dim): exp(logit_scale) x cosine.

        They are computed in float32, under fp64 in float64, whatever the towers' precision: logits near 25 have steps
        of 1/64 in fp16 and of 1/8 in bf16, enough to move a prediction.
        """
        with torch.autocast(image_features.device.type, enabled=False):
            image_features, class_features = (F.normalize(features.to(self.learned_dtype), dim=-1)
                                              for features in (image_features, class_features))
            return self.logit_scale.exp() * image_features @ class_features.t()

    def in_own_task(self, labels, classes=slice(None)):
        """Which classes (B, n) are of the sample's own task; `labels` (B,)."""
        return self.task_of_class[labels][:, None] == self.task_of_class[classes]

    def mask_other_tasks(self, logits, labels, classes=slice(None)):
        """Logits (B, n) with -inf for the classes that are not of the sample's task; `labels` (B,)."""
        return logits.masked_fill(~self.in_own_task(labels, classes), float("-inf"))

    def logits(self, image_features, labels, class_features):
        """Logits (B, n_cls) masked to each sample's own task, which is known by `labels` (B,); that of testing too.

        Args:
            class_features: what `class_features()` returned.
        """
        return self.mask_other_tasks(self.score(image_features, class_features), labels)

    def forward(self, image_features, labels):
        """Training logits (B, n) masked to each sample's own task, and targets (B,) counting in them."""
        return self.logits(image_features, labels, self.class_features()), labels

    def losses(self, image_features, labels):
        """What a method minimises on a batch, by default the mean cross-entropy.

        Returns:
            {name: scalar}, all of which the log shows (names contain "loss"); `MultiTaskTrainer.backward` makes the
            gradients of them. Then logits (B, n) and targets (B,), of which the log shows the accuracy.
        """
        logits, targets = self(image_features, labels)
        return {"loss": F.cross_entropy(logits, targets)}, logits, targets


class ContextCLIP(MultiTaskCLIP):
    """CLIP with learned contexts around the class names, as in CoOp.

    Args:
        n_ctx, init: as in `LearnedContext`.
        position: as in `build_prompts`.
        per: what has a context of its own, "suite" (one for all classes), "task" or "class".
    """

    def __init__(self, clip_model, tasks, n_ctx, init="", position="end", per="task"):
        super().__init__(clip_model, tasks)
        encoder, n_cls = self.text_encoder, len(self.classnames)
        if per == "task":
            self.prompt_learner = TaskContexts(len(tasks), n_ctx, encoder.token_embedding, init=init,
                                               tokenizer=encoder.tokenizer)
        else:
            count = n_cls if per == "class" else None
            self.prompt_learner = LearnedContext(n_ctx, encoder.token_embedding, count, init, encoder.tokenizer)
        context_of = {"suite": [0] * n_cls, "task": self.task_of_class.tolist(), "class": range(n_cls)}[per]
        self.prompts = build_prompts(self.classnames, self.prompt_learner.n_ctx, position, context_of,
                                     tokenizer=encoder.tokenizer)

    def class_features(self, classes=None):
        prompts = self.prompts if classes is None else self.prompts.select(classes)
        return self.text_encoder(prompts, self.prompt_learner())


def template_prompts(tasks, templates, tokenizer):
    """`Prompts` of all classes: each task's template filled with its class names.

    Args:
        templates: one template per task, `{}` standing for the class name.
    """
    texts = [template.format(words(name)) for task, template in zip(tasks, templates) for name in task.classnames]
    return build_prompts(texts, end="", tokenizer=tokenizer)
