"""CoCoOp: a context that depends on the image, so every image has class features of its own.

Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from common.keys import Count, Key
from runs.methods import PREC, Row, register

from .multitask import PerTaskTrainer
from .multitask_clip import MultiTaskCLIP
from .prompts import LearnedContext, TaskContexts, build_prompts


class ConditionalContext(LearnedContext):
    """Learned vectors `ctx`, to all of which the meta network adds the same vector, made of the image's feature.

    Args:
        image_dim: size of an image feature.
    """

    def __init__(self, n_ctx, embedding, image_dim, init="", tokenizer=None):
        super().__init__(n_ctx, embedding, init=init, tokenizer=tokenizer)
        self.meta_net = nn.Sequential(OrderedDict(
            linear1=nn.Linear(image_dim, image_dim // 16), relu=nn.ReLU(inplace=True),
            linear2=nn.Linear(image_dim // 16, embedding.embedding_dim)))

    def forward(self, image_features):
        """Normalised features (B, image_dim) -> contexts (B, n_ctx, dim)."""
        return self.ctx + self.meta_net(image_features)[:, None]


class ConditionalContexts(TaskContexts):
    """A `ConditionalContext` per task."""

    learner = ConditionalContext

    def forward(self, image_features, tasks):
        """Contexts (B, n_ctx, dim) of normalised features (B, image_dim), each by its task's learner; `tasks` (B,).

        Every learner sees every image, which costs nothing next to the text encoder; which tasks a batch holds is
        then never waited for, and a task without an image gets gradients of 0, as with the other methods.
        """
        contexts = torch.stack([learner(image_features) for learner in self.learners])  # (n_tasks, B, n_ctx, dim)
        return contexts[tasks, torch.arange(len(tasks), device=tasks.device)]


class ConditionalCLIP(MultiTaskCLIP):
    """CLIP that scores an image by class features of the image's own context."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks)
        encoder = self.text_encoder
        self.prompt_learner = ConditionalContexts(len(tasks), options.N_CTX, encoder.token_embedding,
                                                  encoder.output_dim, options.CTX_INIT, encoder.tokenizer)
        self.prompts = build_prompts(self.classnames, self.prompt_learner.n_ctx, context_of=self.task_of_class.tolist(),
                                     tokenizer=encoder.tokenizer)
        self.max_prompts = options.MAX_PROMPTS
        self.sizes = [len(task.classnames) for task in tasks]

    def contexts(self):
        """The learned vectors of each task, to which an image adds its own."""
        return "task", torch.stack([learner.ctx for learner in self.prompt_learner.learners])

    def class_features(self, classes=None):
        """None: there are no features of a class without an image."""

    def chunks(self, labels):
        """Split a batch into slices with at most MAX_PROMPTS prompts, an image's being those of its own task's classes.

        An image's prompts stay together, so one with more makes a slice of its own.
        """
        slices, first, n_prompts = [], 0, 0
        for i, task in enumerate(self.task_of_class[labels].tolist()):
            if i > first and n_prompts + self.sizes[task] > self.max_prompts:
                slices.append(slice(first, i))
                first, n_prompts = i, 0
            n_prompts += self.sizes[task]
        return [*slices, slice(first, len(labels))]

    def logits(self, image_features, labels, class_features=None):
        return torch.cat([self.logits_at_once(image_features[chunk], labels[chunk]) for chunk in self.chunks(labels)])

    def logits_at_once(self, image_features, labels):
        """`logits`, with the prompts of all images encoded together."""
        image_features = F.normalize(image_features.to(self.learned_dtype), dim=1)
        contexts = self.prompt_learner(image_features, self.task_of_class[labels])  # (B, n_ctx, dim)
        image, cls = self.in_own_task(labels).nonzero(as_tuple=True)  # (prompts,) each, image by image
        features = self.text_encoder(self.prompts.select(cls, image), contexts)  # (prompts, embed_dim)
        cosine = (image_features[image] * F.normalize(features.to(self.learned_dtype), dim=1)).sum(1)
        logits = cosine.new_full((len(labels), len(self.classnames)), float("-inf"))
        return logits.index_put((image, cls), self.logit_scale.exp() * cosine)

    def losses(self, image_features, labels):
        """Mean cross-entropy of a batch that `chunks` would not split."""
        logits = self.logits_at_once(image_features, labels)
        return {"loss": F.cross_entropy(logits, labels)}, logits, labels


@register
class CoCoOp(PerTaskTrainer):
    """Conditional context optimization, a learner (vectors and meta network) per task."""

    node = "COCOOP"
    keys = {
        "PREC": PREC,
        "N_CTX": Key(4, "number of context vectors, if CTX_INIT is empty", Count),
        "CTX_INIT": Key("a photo of a", "words to start from", str),
        "MAX_PROMPTS": Key(1024, "(image, class) prompts encoded at once: bounds memory, changes no result", Count),
    }
    fixed_steps = False  # an image has as many prompts as its task has classes
    neutral = ("TRAINER.COCOOP.MAX_PROMPTS",)
    rows = (Row("CoCoOp", 80),)

    def build_clip_model(self, clip_model):
        return ConditionalCLIP(clip_model, self.tasks, self.options)

    def add_gradients(self, features, labels, share=1.0):
        # The loss is a mean over samples, so its gradients are those of its chunks, each weighted by its share; one
        # chunk's activations are gone when the next is encoded.
        metrics = {}
        for chunk in self.model.chunks(labels):
            weight = len(labels[chunk]) / len(labels)
            for name, value in super().add_gradients(features[chunk], labels[chunk], share * weight).items():
                metrics[name] = metrics.get(name, 0) + weight * value
        return metrics
