"""SoftCPT: a meta network makes every task's context from the task's name, so related tasks get related contexts.

Ding et al., Prompt Tuning with Soft Context Sharing for Vision-Language Models, Neurocomputing 2024.
"""

import math
from typing import Literal

import torch

from common.keys import Count, Key, Natural, Positive, Share
from runs.keys import refusal
from runs.methods import POSITION, PREC, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP
from .prompts import LearnedContext, MetaNetwork, build_prompts, init_context


class SoftSharedCLIP(MultiTaskCLIP):
    """CLIP whose contexts are made by the meta network, per task or, with `CSC`, per class.

    Task prompts (learned vectors + task name) give task features. With `CSC`, class prompts (learned vectors + class
    name) give class features too, and the meta network reads [class feature | task feature] ("lin"), the mean of both
    ("linmean") or the class feature alone ("lincls").
    """

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks)
        encoder, n_cls = self.text_encoder, len(self.classnames)
        embedding, tokenizer = encoder.token_embedding, encoder.tokenizer
        self.pg_type = options.PG_TYPE
        self.per_class = options.CSC
        self.cls_sample_rate = options.CLS_SAMPLE_RATE

        def learner(n_ctx, specific, init, position, names):
            """A learned context, its own for each name if `specific`, and the prompts that use it."""
            context = LearnedContext(n_ctx, embedding, len(names) if specific else None, init, tokenizer)
            context_of = range(len(names)) if specific else [0] * len(names)
            return context, build_prompts(names, context.n_ctx, position, context_of, tokenizer=tokenizer)

        self.task_prompt_learner, self.task_prompts = learner(
            options.TASK_N_CTX, options.TASK_CSC, options.TASK_CTX_INIT, options.TASK_TOKEN_POSITION,
            [task.name for task in tasks])
        if self.per_class:
            self.class_prompt_learner, self.class_prompts = learner(
                options.CLASS_N_CTX, options.CLASS_CSC, options.CLASS_CTX_INIT, options.CLASS_TOKEN_POSITION,
                self.classnames)
            self.class_prompt_learner.requires_grad_(not options.FREEZE_CLS_PROMPT)
        n_ctx = len(init_context(options.CTX_INIT, embedding, tokenizer)) if options.CTX_INIT else options.N_CTX
        in_dim = encoder.output_dim * (2 if self.per_class and self.pg_type == "lin" else 1)
        self.prompt_gen = MetaNetwork(in_dim, n_ctx, encoder.width)
        # The final prompts learn nothing of their own; the part is saved all the same, as in published checkpoints.
        self.prompt_learner = build_prompts(
            self.classnames, n_ctx, options.TOKEN_POSITION,
            range(n_cls) if self.per_class else self.task_of_class.tolist(), tokenizer=tokenizer)

    def contexts(self):
        """The meta network's contexts of all tasks; with `CSC` the mean of each task's classes.

        The meta network being linear, that mean is the context it makes from the mean of its inputs.
        """
        made = self.made_contexts()
        if self.per_class:
            made = torch.stack([own.mean(dim=0) for own in made.split([len(task.classnames) for task in self.tasks])])
        return "task", made

    def made_contexts(self, classes=None):
        """The meta network's contexts: (n_tasks, n_ctx, dim), or with `CSC` (n, n_ctx, dim) for n classes."""
        if not self.per_class:
            return self.prompt_gen(self.task_features())
        prompts = self.class_prompts if classes is None else self.class_prompts.select(classes)
        class_features = self.text_encoder(prompts, self.class_prompt_learner())  # (n, embed_dim)
        if self.pg_type == "lincls":
            # The task context has no say, but a gradient of 0 instead of none, so that weight decay and momentum move
            # it as in the published code.
            return self.prompt_gen(class_features + 0 * self.task_prompt_learner.ctx.sum())
        task_of_class = self.task_of_class if classes is None else self.task_of_class[classes]
        task_features = self.task_features()[task_of_class]  # (n, embed_dim)
        if self.pg_type == "lin":
            return self.prompt_gen(torch.cat([class_features, task_features], dim=1))
        return self.prompt_gen((class_features + task_features) / 2)

    def task_features(self):
        """Text features of the tasks' names (n_tasks, embed_dim)."""
        return self.text_encoder(self.task_prompts, self.task_prompt_learner())

    def class_features(self, classes=None):
        prompts = self.prompt_learner
        if classes is not None:
            own = torch.arange(len(classes), device=classes.device) if self.per_class else None
            prompts = prompts.select(classes, own)
        return self.text_encoder(prompts, self.made_contexts(classes))

    def forward(self, image_features, labels):
        if not (self.per_class and self.cls_sample_rate > 0):
            return super().forward(image_features, labels)
        classes = sample_classes(labels, self.task_of_class, self.cls_sample_rate)  # (k,)
        logits = self.score(image_features, self.class_features(classes))  # (B, k)
        return self.mask_other_tasks(logits, labels, classes), torch.searchsorted(classes, labels)


def sample_classes(labels, task_of_class, rate):
    """The classes of a training step under class sampling.

    Per task, the batch's positive classes and ceil(rate x rest) of the others at random; a task without a sample in
    the batch gives none, since no sample is scored against it.

    Args:
        labels: (B,) classes of the batch.
        task_of_class: (n_cls,) task of every class.
        rate: share of the other classes, above 0 and at most 1.

    Returns:
        Sorted class indices (k,).
    """
    device = task_of_class.device
    labels, task_of_class = labels.cpu(), task_of_class.cpu()
    kept = []
    for task in task_of_class[labels].unique():
        classes = (task_of_class == task).nonzero()[:, 0]
        is_positive = torch.isin(classes, labels)
        rest = classes[~is_positive]
        kept += [classes[is_positive], rest[torch.randperm(len(rest))[:math.ceil(rate * len(rest))]]]
    return torch.cat(kept).sort().values.to(device)


def softcpt(label, place, **tells):
    """The row of a variant. With a context per class General-10 is trained on a sample of the negative classes."""
    options = {"CLASS_N_CTX": 4 if tells["CSC"] else 0, "CLASS_CSC": False, "TASK_N_CTX": 4, "N_CTX": 16,
               "PG_TYPE": "lin", "PG_RATIO": 1, **tells}
    sampled = {"general10": {"CLS_SAMPLE_RATE": 0.1}} if tells["CSC"] else {}
    return Row(label, place, options, tuple(tells), sampled, by_default=not tells["CSC"], quick=not tells["CSC"])


@register
class MTCoOp(MultiTaskTrainer):
    """SoftCPT-NATA, -NATS (`TASK_CSC`) and, with `CSC`, -CATA, -CSTA, -CATS, -CSTS (`CLASS_CSC`, `TASK_CSC`)."""

    node = "MTCOOP"
    keys = {
        "PREC": PREC,
        # class prompts: contexts for class features
        "CLASS_N_CTX": Key(16, "context vectors of class prompts (read with CSC)", Natural),
        "CLASS_CSC": Key(False, "class prompts: a context of its own for every class", bool),
        "CLASS_CTX_INIT": Key("", "class prompts: words to start from", str),
        "CLASS_TOKEN_POSITION": POSITION,
        "FREEZE_CLS_PROMPT": Key(False, "keep the context of class prompts as it starts", bool),
        # task prompts: contexts for task features
        "TASK_N_CTX": Key(16, "context vectors of task prompts", Natural),
        "TASK_CSC": Key(False, "task prompts: a context of its own for every task", bool),
        "TASK_CTX_INIT": Key("", "task prompts: words to start from", str),
        "TASK_TOKEN_POSITION": POSITION,
        # final prompts: contexts made by the meta network, one per task or, with CSC, per class
        "N_CTX": Key(16, "context vectors that the meta network makes", Count),
        "CTX_INIT": Key("", "only the number of its tokens counts, as the context length", str),
        "CSC": Key(False, "the meta network makes a context per class", bool),
        "TOKEN_POSITION": POSITION,
        "PG_TYPE": Key("lin", "what the meta network reads with CSC: both features, their mean, the class's alone",
                       Literal["lin", "linmean", "lincls"]),
        "PG_RATIO": Key(1.0, "accepted as in the published commands; no PG_TYPE reads it", Positive),
        "CLS_SAMPLE_RATE": Key(0.0, "share of the negative classes in a training step; 0: all", Share),
    }
    rows = (
        softcpt("SoftCPT-NATS", 120, CSC=False, TASK_CSC=True),
        softcpt("SoftCPT-NATA", 130, CSC=False, TASK_CSC=False),
        softcpt("SoftCPT-CATA", 140, CSC=True, CLASS_CSC=False, TASK_CSC=False),
        softcpt("SoftCPT-CSTA", 150, CSC=True, CLASS_CSC=True, TASK_CSC=False),
        softcpt("SoftCPT-CATS", 160, CSC=True, CLASS_CSC=False, TASK_CSC=True),
        softcpt("SoftCPT-CSTS", 170, CSC=True, CLASS_CSC=True, TASK_CSC=True),
    )
    config = "MTCoOp/{CFG}"
    fixed_steps = property(lambda self: not self.options.CLS_SAMPLE_RATE)  # sampling draws classes
    arguments = ("CLASS_N_CTX", "CLASS_CSC", "TASK_N_CTX", "TASK_CSC", "N_CTX", "CSC", "PG_TYPE", "PG_RATIO")
    folder_name = ("MTCoOp/{CFG}_{SHOTS}shots/cls{CLASS_N_CTX}_csc{CLASS_CSC}_task{TASK_N_CTX}_tsc{TASK_CSC}_"
                   "nctx{N_CTX}_csc{CSC}_{PG_TYPE}_{PG_RATIO}[_sample{CLS_SAMPLE_RATE}]/seed{SEED}")

    def check_cfg(self, cfg):
        super().check_cfg(cfg)
        if cfg.TRAINER.MTCOOP.CLS_SAMPLE_RATE > 0 and not cfg.TRAINER.MTCOOP.CSC:
            raise refusal(cfg, "TRAINER.MTCOOP.CLS_SAMPLE_RATE", "it samples the contexts of classes, so it needs "
                          "TRAINER.MTCOOP.CSC True")
        if cfg.TRAINER.MTCOOP.PG_TYPE == "lincls" and not cfg.TRAINER.MTCOOP.CSC:
            raise refusal(cfg, "TRAINER.MTCOOP.PG_TYPE", "it reads class features alone, which only "
                          "TRAINER.MTCOOP.CSC True makes")

    @staticmethod
    def parts(options):
        trains_classes = options.CSC and not options.FREEZE_CLS_PROMPT
        return ["prompt_learner", *["class_prompt_learner"] * trains_classes, "task_prompt_learner", "prompt_gen"]

    @staticmethod
    def frozen_parts(options):
        return ["class_prompt_learner"] if options.CSC and options.FREEZE_CLS_PROMPT else []

    @staticmethod
    def specific(options):
        return {**({"TASK_CSC": "task"} if options.TASK_CSC else {}),
                **({"CLASS_CSC": "class"} if options.CSC and options.CLASS_CSC else {})}

    def build_clip_model(self, clip_model):
        return SoftSharedCLIP(clip_model, self.tasks, self.options)
