"""Prompts inside CLIP's towers: learned tokens that the first layers of a tower read besides their own.

Jia et al., Visual Prompt Tuning, ECCV 2022; for CLIP's two towers as in Khattak et al., MaPLe, CVPR 2023. In the image
tower they stand after the patches, without positions, before the first norm; before each deeper layer they are
replaced by that layer's own. They are taken away before pooling, so the class token is pooled as ever. In the text
tower they take the places of the context. Layers count from 0, which reads the first prompts.

`TSC` gives every task prompts of its own; an image is then encoded with those of its task.
"""

from contextlib import ExitStack

import torch
from torch import nn

from common.errors import UserError
from common.keys import Key
from runs.keys import refusal

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP
from .prompts import build_prompts, init_context, words

TSC = Key(False, "prompts of its own for every task", bool)


class LayerPrompts(nn.Module):
    """Learned prompts of a tower's first layers: `layers`, for each one (n_sets, n, width).

    Args:
        n_sets: number of sets, 1 for all tasks or one for each. depth: number of layers.
        start: (n, width), where each set of layer 0 starts; the others, or all, start normal with std 0.02.
    """

    def __init__(self, n_sets, n, width, depth, start=None):
        super().__init__()
        self.layers = nn.ParameterList(torch.empty(n_sets, n, width).normal_(std=0.02) for _ in range(depth))
        if start is not None:
            self.layers[0].data.copy_(start)


def encode_with_prompts(tower, images, layers):
    """Image features of a vision transformer that reads prompts.

    Args:
        tower: open_clip's `VisionTransformer`. images: (B, 3, H, W).
        layers: for each of its first layers the prompts (B, n, width), of any float type; none: the tower as it is.

    Returns:
        Features (B, dim); gradients flow to `layers`.
    """
    if not layers:
        return tower(images)
    n = layers[0].shape[1]

    def hook(prompts, n_replaced):
        def put(module, inputs):
            x, *rest = inputs  # (B, tokens, width)
            return torch.cat([x[:, :x.shape[1] - n_replaced], prompts.to(x.dtype)], dim=1), *rest
        return put

    with ExitStack() as hooks:  # for this call alone: the next one may have other prompts
        hooks.enter_context(tower.ln_pre.register_forward_pre_hook(hook(layers[0], 0)))
        for block, prompts in zip(tower.transformer.resblocks[1:], layers[1:]):
            hooks.enter_context(block.register_forward_pre_hook(hook(prompts, n)))
        hooks.enter_context(tower.transformer.register_forward_hook(lambda module, inputs, x: x[:, :-n]))
        return tower(images)


class PromptedCLIP(MultiTaskCLIP):
    """CLIP whose image tower reads the prompts of its part `prompt_learner["image"]`.

    Args:
        per_task: whether each task has prompts of its own.
    """

    def __init__(self, clip_model, tasks, per_task):
        super().__init__(clip_model, tasks)
        self.per_task_images, self.n_sets = per_task, len(tasks) if per_task else 1
        self.image_width = clip_model.visual.positional_embedding.shape[1]
        self.prompt_learner = nn.ModuleDict()

    def image_prompts(self):
        """Prompts (n_sets, n, image width) of each layer of the image tower that reads some."""
        return list(self.prompt_learner["image"].layers)

    def image_features(self, images, labels):
        """Features (B, dim) of pixels (B, 3, H, W); `labels` (B,) tell whose prompts to read, where tasks have own."""
        layers = self.image_prompts()
        if self.per_task_images:
            tasks = self.task_of_class[labels]
            layers = [prompts.index_select(0, tasks) for prompts in layers]
        else:
            layers = [prompts.expand(images.shape[0], -1, -1) for prompts in layers]
        return encode_with_prompts(self.image_encoder, images, layers)


class TwoTowerCLIP(PromptedCLIP):
    """CLIP that also reads the prompts `prompt_learner["text"]` in its text tower: "[v1] ... [vn] name."

    Args:
        n: number of text prompts. init: words, of one token each, that a prompt begins with; the first n of them are
            where layer 0 starts, the others stay words. Empty: a random start.
        depth: number of layers of the text tower with prompts.

    Raises:
        UserError: the first n words are not n tokens.
    """

    def __init__(self, clip_model, tasks, per_task, n, init, depth):
        super().__init__(clip_model, tasks, per_task)
        encoder, given = self.text_encoder, words(init).split()
        first, others, start = " ".join(given[:n]), " ".join(given[n:]), None
        if first:
            start = init_context(first, encoder.token_embedding, encoder.tokenizer)
            if len(start) != n:
                raise UserError(f"CTX_INIT begins with {first!r}, which is {len(start)} tokens, but there are {n} text "
                                "prompts: give so many words of one token, or none for a random start")
        self.prompt_learner["text"] = LayerPrompts(self.n_sets, n, encoder.width, depth, start)
        own = self.task_of_class.tolist() if per_task else [0] * len(self.classnames)
        self.prompts = build_prompts([f"{others} {name}".strip() for name in self.classnames], n, context_of=own,
                                     tokenizer=encoder.tokenizer)

    def class_features(self, classes=None):
        first, *deeper = self.prompt_learner["text"].layers
        return self.text_encoder(self.prompts if classes is None else self.prompts.select(classes), first,
                                 dict(enumerate(deeper, 1)))

    def contexts(self):
        return "task" if self.per_task_images else "suite", self.prompt_learner["text"].layers[0]


class DeepPromptTrainer(MultiTaskTrainer):
    """Base of the methods that learn prompts inside the towers, in the part `prompt_learner`.

    Attributes:
        depths: {key of a number of layers: towers that it counts in}.
        network: class of the model; it is called with CLIP, the tasks and the method's options.
    """

    depths = {}
    network = None
    learns_images = True

    @staticmethod
    def parts(options):
        return ["prompt_learner"]

    @staticmethod
    def specific(options):
        return {"TSC": "task"} if options.TSC else {}

    def build_clip_model(self, clip_model):
        """The method's model.

        Raises:
            UserError: the image tower is no vision transformer of CLIP's, or a tower has fewer layers than a depth.
        """
        from open_clip.transformer import VisionTransformer  # open_clip is slow to import

        visual = clip_model.visual
        if not isinstance(visual, VisionTransformer):
            kind = type(getattr(visual, "trunk", visual)).__name__
            raise refusal(self.cfg, "MODEL.BACKBONE.NAME", f"{type(self).__name__} puts prompts between the layers of "
                          f"CLIP's vision transformers, and its image tower is {kind}: use another, such as ViT-B/16")
        layers = {"image": len(visual.transformer.resblocks)}
        if hasattr(clip_model, "transformer"):  # the text encoder refuses deep prompts in towers of another layout
            layers["text"] = clip_model.transformer.layers
        for key, towers in self.depths.items():
            for tower in towers:
                if self.options[key] > layers.get(tower, self.options[key]):
                    raise refusal(self.cfg, f"TRAINER.{self.node}.{key}",
                                  f"the {tower} tower of {self.cfg.MODEL.BACKBONE.NAME} has {layers[tower]} layers: "
                                  "set it to that or less")
        return self.network(clip_model, self.tasks, self.options)
