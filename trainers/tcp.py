"""TCP: CoOp whose class features are held near the hand-written ones, which also give every class tokens of its own.

Yao et al., TCP: Textual-based Class-aware Prompt Tuning for Visual-Language Model, CVPR 2024. Schedule of its
repository (htyao89/Textual-based_Class-aware_prompt_tuning): Adam 2e-3 with weight decay 5e-4 in the gradient, batch
32, 50 epochs, a first epoch at 1e-5. The weight 8.0 is a literal there.
"""

import torch
from torch import nn

from common.keys import Count, Key, Natural, NotNegative
from runs.keys import refusal
from runs.methods import PREC, WARM_COSINE, Row, register

from .kgcoop import KnowledgeGuidedCLIP
from .multitask import PerTaskTrainer
from .prompts import build_prompts, words


class ClassTokens(nn.Module):
    """The network from a class's hand-written text feature to tokens of its own.

    Args:
        text_dim: size of a text feature. n_ctx, dim: number and width of the tokens.
    """

    def __init__(self, text_dim, n_ctx, dim):
        super().__init__()
        self.linear1 = nn.Linear(text_dim, text_dim // 4)
        self.linear2 = nn.Linear(text_dim // 4, n_ctx * dim)
        self.shape = n_ctx, dim

    def forward(self, features):
        """Normalised features (n, text_dim) -> tokens (n, n_ctx, dim); the nonlinearity is CLIP's QuickGELU."""
        hidden = self.linear1(features)
        return self.linear2(hidden * torch.sigmoid(1.702 * hidden)).unflatten(1, self.shape)


class ClassAwareCLIP(KnowledgeGuidedCLIP):
    """CLIP with a learned context per task, in whose places stand the classes' own tokens from block `layer` on.

    In a prompt the vectors replace as many of the first words of the task's template, those before the class name.
    """

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks, options)
        encoder, learner, self.layer = self.text_encoder, self.prompt_learner, options.LAYER
        learner.meta_nets = nn.ModuleList(ClassTokens(encoder.output_dim, learner.n_ctx, encoder.width) for _ in tasks)
        texts = [without_first_words(task.templates[0], learner.n_ctx).format(words(name))
                 for task in tasks for name in task.classnames]
        # A context for every class, since the tokens that take its places are the class's.
        self.prompts = build_prompts(texts, learner.n_ctx, context_of=range(len(texts)), end="",
                                     tokenizer=encoder.tokenizer)
        self.sizes = [len(task.classnames) for task in tasks]

    def class_features(self, classes=slice(None)):
        own = self.zero_shot_features.split(self.sizes)
        tokens = torch.cat([network(features) for network, features in zip(self.prompt_learner.meta_nets, own)])
        contexts = self.prompt_learner()[self.task_of_class]  # (n_cls, n_ctx, dim)
        return self.text_encoder(self.prompts, contexts, {self.layer: tokens})[classes]


def without_first_words(template, n):
    """A template without its first `n` words, of which the class name and what follows are none."""
    before, name, after = template.partition("{}")
    kept = before.split()[n:]
    return " ".join([*kept, name]) + after


@register
class TCP(PerTaskTrainer):
    """TCP, a context and a network per task; the teacher is zero-shot CLIP with the task's templates."""

    node = "TCP"
    keys = {
        "PREC": PREC,
        "N_CTX": Key(4, "number of context vectors, if CTX_INIT is empty", Count),
        "CTX_INIT": Key("", "words to start from", str),
        "LAYER": Key(8, "block of the text tower, counted from 0, before which a class's own tokens take the places of "
                     "the context", Natural),
        "W": Key(8.0, "weight of the distance from the zero-shot text features", NotNegative),
    }
    rows = (Row("TCP", 102, by_default=False),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "adam", "OPTIM.LR": 0.002, "OPTIM.MAX_EPOCH": 50,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 32}
    reads_templates = True

    def build_clip_model(self, clip_model):
        model = ClassAwareCLIP(clip_model, self.tasks, self.options)
        n_blocks = model.text_encoder.n_blocks
        if self.options.LAYER >= n_blocks:
            raise refusal(self.cfg, "TRAINER.TCP.LAYER", f"the text tower of {self.cfg.MODEL.BACKBONE.NAME} has "
                          f"{n_blocks} blocks, counted from 0: set it to at most {n_blocks - 1}")
        return model
