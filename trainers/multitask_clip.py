"""CLIP that scores images inside a sample's own task; what its class features come from is a method's."""

from functools import cached_property, partial

import torch
from torch import nn
from torch.nn import functional as F

from common.digests import digest, digest_of_module
from common.errors import UserError
from runs.config import set_value
from runs.keys import all_keys, refusal, source_of

from .prompts import LearnedContext, TaskContexts, build_prompts, check_classnames, words
from .text_encoder import TextEncoder, WholePromptEncoder, again_in_backward

# Texts whose ids tell tokenizers apart.
SAMPLE_TEXTS = ("a photo of a cat.", "The QUICK brown_fox's 10,234 jumps; naïve café, 東京 🙂", "two  spaces")


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


def digest_of_clip(clip_model):
    """A digest of all that decides a CLIP model's output: values, activation, heads, pooling ..., and its tokenizer."""
    return digest([digest_of_module(clip_model), [clip_model.tokenizer.encode(text) for text in SAMPLE_TEXTS]])


def cast_towers(clip_model, prec):
    """Cast the matrices of a frozen CLIP's towers, in place, for PREC fp16 or bf16; what a method adds stays fp32."""
    from clip.model import TextTowerCLIP, convert_weights  # open_clip is slow to import

    if prec in ("fp16", "bf16"):
        dtype = torch.float16 if prec == "fp16" else torch.bfloat16
        convert_weights(clip_model.visual, dtype)
        if isinstance(clip_model, TextTowerCLIP):
            clip_model.text.cast(dtype)
        else:
            convert_weights(clip_model.transformer, dtype)


def recompute_blocks(visual, cfg):
    """Let each block of a vision transformer keep its input alone for the backward pass, which calls it again.

    What hooks put into the input is kept with it.

    Raises:
        UserError: the image tower has no such blocks.
    """
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        raise refusal(cfg, "MODEL.CHECKPOINT_IMAGE", f"the image tower of {cfg.MODEL.BACKBONE.NAME} is "
                      f"{type(visual).__name__}, and this is for vision transformers of CLIP's: leave it False")
    for block in blocks:
        block.forward = partial(again_in_backward, block.forward)


class MultiTaskCLIP(nn.Module):
    """CLIP whose class features a subclass makes; images are scored by `cosine_scale` x cosine.

    Everything that asks for predictions (testing, predicting, exporting, calibrating) asks for `class_features`, once,
    then for `logits` of `image_features` of each batch.

    Args:
        clip_model: CLIP, its towers cast as `cast_towers` does.
        tasks: list of `Task`; its classes, task after task, are the columns of the logits.

    Raises:
        UserError: two classes of a task are the same to the text encoder.
    """

    per_task_images = False  # whether `image_features` reads the labels
    adds_tasks = False  # whether the loss is the sum of the tasks' own, so that each learns as if alone
    reads_names = True  # whether the text encoder reads the classes' names

    def __init__(self, clip_model, tasks):
        from clip.model import TextTowerCLIP  # open_clip is slow to import

        super().__init__()
        self.image_encoder = clip_model.visual
        self.text_encoder = (WholePromptEncoder if isinstance(clip_model, TextTowerCLIP) else TextEncoder)(clip_model)
        self.logit_scale = clip_model.logit_scale
        if self.reads_names:
            check_classnames(tasks, clip_model.tokenizer)
        self.tasks = tasks
        self.classnames = [name for task in tasks for name in task.classnames]
        task_of_class = torch.tensor([t for t, task in enumerate(tasks) for _ in task.classnames])
        self.register_buffer("task_of_class", task_of_class, persistent=False)
        self.dtype = clip_model.dtype  # of pixels, too: both towers are cast

    @property
    def learned_dtype(self):
        """dtype of what is learned, of logits and losses: float32, under fp64 float64."""
        return self.logit_scale.dtype

    @property
    def cosine_scale(self):
        """What cosines are multiplied by."""
        return self.logit_scale.exp()

    def to_double(self):
        """Cast all of it to float64, in place."""
        from clip.model import convert_to_double  # open_clip is slow to import

        convert_to_double(self)
        self.dtype = torch.float64

    @torch.no_grad()
    def template_features(self, templates):
        """Normalised text features (n_cls, embed_dim) of hand-written prompts; `templates` has one per task."""
        prompts = template_prompts(self.tasks, templates, self.text_encoder.tokenizer)
        features = self.text_encoder(prompts.to(self.task_of_class.device))
        return F.normalize(features.to(self.learned_dtype), dim=-1)

    @cached_property
    def text_features(self):
        """Text features of each task's classes in its templates, [(n_classes, n_templates, embed_dim)], not normalised.

        They are made once, when the model has its device and precision; under amp in float32, so that they are the same
        in whatever step they are first asked for.
        """
        texts = [template.format(words(name)) for task in self.tasks for name in task.classnames
                 for template in task.templates]
        with torch.no_grad(), torch.autocast(self.task_of_class.device.type, enabled=False):
            prompts = build_prompts(texts, end="", tokenizer=self.text_encoder.tokenizer)
            features = self.text_encoder(prompts.to(self.task_of_class.device)).to(self.learned_dtype)
        sizes = [len(task.classnames) * len(task.templates) for task in self.tasks]
        return [own.unflatten(0, (-1, len(task.templates))) for own, task in zip(features.split(sizes), self.tasks)]

    @cached_property
    def zero_shot_features(self):
        """Text features (n_cls, embed_dim) at length 1: with several templates the mean of features at length 1."""
        unit = [F.normalize(features, dim=-1) for features in self.text_features]
        return torch.cat([own[:, 0] if own.shape[1] == 1 else F.normalize(own.mean(1), dim=-1) for own in unit])

    @cached_property
    def mean_text_features(self):
        """Plain means (n_cls, embed_dim) over the templates of text features, none of them normalised."""
        return torch.cat([own.mean(1) for own in self.text_features])

    @cached_property
    def name_features(self):
        """Text features (n_tasks, embed_dim) of the tasks' names, as sentences of their own, at length 1."""
        with torch.no_grad(), torch.autocast(self.task_of_class.device.type, enabled=False):
            prompts = build_prompts([task.name for task in self.tasks], tokenizer=self.text_encoder.tokenizer)
            features = self.text_encoder(prompts.to(self.task_of_class.device))
        return F.normalize(features.to(self.learned_dtype), dim=-1)

    def image_features(self, images, labels):
        """Features (B, ...) of a batch, as `logits` takes them. Pixels (B, 3, H, W) are encoded, features are kept.

        Args:
            labels: (B,); they tell the tasks, to a tower that learns something of its own for every task.
        """
        return self.image_encoder(images) if images.ndim == 4 else images

    def class_features(self, classes=None):
        """Text features (n, embed_dim) of the classes at the indices `classes` (n,), by default all."""
        raise NotImplementedError

    def contexts(self):
        """Learned contexts for people to look at: (kind, contexts), or None where there are none.

        Kind is "suite", "task" or "class". Contexts are (n, n_ctx, dim), of each task or class after the other; n may
        be a multiple of their number.
        """
        return None

    def score(self, image_features, class_features):
        """Logits (B, n) of features (B, embed_dim) and (n, embed_dim): `cosine_scale` x cosine.

        They are computed in float32, under fp64 in float64, whatever the towers' precision: logits near 25 have steps
        of 1/64 in fp16 and of 1/8 in bf16, enough to move a prediction.
        """
        with torch.autocast(image_features.device.type, enabled=False):
            image_features, class_features = (F.normalize(features.to(self.learned_dtype), dim=-1)
                                              for features in (image_features, class_features))
            return self.cosine_scale * image_features @ class_features.t()

    def in_own_task(self, labels, classes=slice(None)):
        """Mask (B, n) of the classes that belong to the sample's own task; `labels` (B,)."""
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

    def logits_of_all_tasks(self, images, class_features):
        """Logits (B, n_cls) of images whose task is not known: of each task's classes, as if they were of this task.

        Args:
            images: pixels (B, 3, H, W), or features as `image_features` makes them. class_features: as in `logits`.
        """
        columns, first = [], 0
        features = None if self.per_task_images else self.image_features(images, None)
        for task in self.tasks:
            labels = torch.full((images.shape[0],), first, device=images.device)  # they tell the task
            own = self.image_features(images, labels) if features is None else features
            columns.append(self.logits(own, labels, class_features)[:, first:first + len(task.classnames)])
            first += len(task.classnames)
        return torch.cat(columns, dim=1)

    def forward(self, images, labels):
        """Training logits (B, n) masked to each sample's own task, and targets (B,) counting in them.

        Args:
            images: as in `image_features`.
        """
        return self.logits(self.image_features(images, labels), labels, self.class_features()), labels

    def sum_over_tasks(self, losses, labels):
        """Sum over the tasks of the mean of their samples' `losses` (B,); `labels` (B,). Each learns as if alone."""
        tasks = self.task_of_class[labels]
        return (losses / self.add_by_task(torch.ones_like(losses), tasks)[tasks]).sum()

    def add_by_task(self, values, tasks):
        """Sums (n_tasks,) of the `values` (n,) of each task; `tasks` (n,)."""
        return values.new_zeros(len(self.tasks)).index_add(0, tasks, values)

    def losses(self, images, labels):
        """The losses of a batch, by default the mean cross-entropy, or with `adds_tasks` the sum of the tasks' means.

        Args:
            images: as in `image_features`: features (B, ...), or pixels (B, 3, H, W) where the image tower learns.

        Returns:
            {name: scalar}, all of which the log shows (names contain "loss"); `MultiTaskTrainer.backward` makes the
            gradients of them. Then logits (B, n) and targets (B,), of which the log shows the accuracy.
        """
        logits, targets = self(images, labels)
        if self.adds_tasks:
            loss = self.sum_over_tasks(F.cross_entropy(logits, targets, reduction="none"), labels)
        else:
            loss = F.cross_entropy(logits, targets)
        return {"loss": loss}, logits, targets


class ClassVectors(nn.Module):
    """`weight` (n_cls, dim): a learned vector for each class, 0 at first."""

    def __init__(self, n_cls, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_cls, dim))


class ContextCLIP(MultiTaskCLIP):
    """CLIP with learned contexts around the class names, as in CoOp.

    Args:
        n_ctx, init: as in `LearnedContext`.
        position: as in `build_prompts`.
        per: what has a context of its own, "suite" (one for all classes), "task" or "class".
    """

    def __init__(self, clip_model, tasks, n_ctx, init="", position="end", per="task"):
        super().__init__(clip_model, tasks)
        self.per = per
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

    def contexts(self):
        return self.per, self.prompt_learner()


def template_prompts(tasks, templates, tokenizer):
    """`Prompts` of all classes: each task's template filled with its class names.

    Args:
        templates: one template per task, `{}` standing for the class name.
    """
    texts = [template.format(words(name)) for task, template in zip(tasks, templates) for name in task.classnames]
    return build_prompts(texts, end="", tokenizer=tokenizer)
