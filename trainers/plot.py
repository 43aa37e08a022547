"""PLOT: several prompts per class, matched with the places of an image by optimal transport.

Chen et al., PLOT: Prompt Learning with Optimal Transport for Vision-Language Models, ICLR 2023. On a suite every task
has its own prompts, all learned together in mixed batches.
"""

import torch
from torch.nn import functional as F

from common.errors import NotFinite
from common.keys import Count, Key, Positive
from features.local_features import LocalImageEncoder
from runs.methods import PREC, Row, register

from .multitask import PerTaskTrainer
from .multitask_clip import MultiTaskCLIP
from .prompts import TaskContexts, build_prompts

THRESHOLD = 1e-2  # mean change of the rows' scaling below which Sinkhorn's iteration stops (published code)


class NoPlan(NotFinite):
    """A transport plan holds NaN."""


@torch.no_grad()
def sinkhorn(kernel, max_iter):
    """Entropic optimal transport between uniform marginals, for P problems at once (Cuturi, NIPS 2013; PLOT, alg. A1).

    Args:
        kernel: exp(-cost / eps), (P, M, N), float32 or float64.
        max_iter: most iterations; they end earlier where the rows' scaling, on the mean over all P problems, changes by
            less than `THRESHOLD`.

    Returns:
        Plans T (P, M, N); their columns sum to 1 / N, their rows to about 1 / M.

    Raises:
        NoPlan: a plan holds NaN.
    """
    _, m, n = kernel.shape
    u, v = torch.ones_like(kernel[:, :, 0]), torch.ones_like(kernel[:, 0])  # (P, M), (P, N)
    for _ in range(max_iter):
        before = u
        u = 1 / m / (kernel @ v[:, :, None])[:, :, 0]
        v = 1 / n / (u[:, None] @ kernel)[:, 0]
        if (u - before).abs().mean() < THRESHOLD:
            break
    plan = u[:, :, None] * kernel * v[:, None]
    if plan.isnan().any():
        raise NoPlan("an optimal transport plan of PLOT holds NaN: use TRAINER.PLOT.PREC fp32 or a larger "
                        "TRAINER.PLOT.EPS")
    return plan


class TransportCLIP(MultiTaskCLIP):
    """CLIP with `N` learned contexts per task, whose prompts are transported to the image's local features."""

    def __init__(self, clip_model, tasks, options, backbone):
        super().__init__(clip_model, tasks)
        self.n, self.eps, self.max_iter = options.N, options.EPS, options.MAX_ITER
        self.image_encoder = LocalImageEncoder(clip_model.visual, backbone)
        encoder = self.text_encoder
        self.prompt_learner = TaskContexts(len(tasks), options.N_CTX, encoder.token_embedding, count=self.n)
        names = [name for name in self.classnames for _ in range(self.n)]
        context_of = [self.n * t + i for t in self.task_of_class.tolist() for i in range(self.n)]
        self.prompts = build_prompts(names, options.N_CTX, context_of=context_of, tokenizer=encoder.tokenizer)

    def contexts(self):
        return "task", self.prompt_learner()

    def class_features(self):
        """Features of all prompts (n_cls, N, embed_dim)."""
        return self.text_encoder(self.prompts, self.prompt_learner()).unflatten(0, (-1, self.n))

    def logits(self, image_features, labels, class_features):
        """Logits (B, n_cls): exp(logit_scale) x sum(T * sim), -inf outside the sample's own task.

        They are float32, under fp64 float64.

        Args:
            image_features: (B, M, embed_dim), of M places.
            labels: (B,), of which only the tasks are used.
            class_features: (n_cls, N, embed_dim).
        """
        images, texts = (F.normalize(f.to(self.learned_dtype), dim=-1) for f in (image_features, class_features))
        task_of_image = self.task_of_class[labels]  # (B,)
        sims, image_of, class_of = [], [], []
        with torch.autocast(images.device.type, enabled=False):  # exp(-20) is 0 in fp16
            for task in task_of_image.unique():
                rows, columns = ((of == task).nonzero()[:, 0] for of in (task_of_image, self.task_of_class))
                sims.append(torch.einsum("bmd,cnd->bcmn", images[rows], texts[columns]).flatten(0, 1))
                image_of.append(rows.repeat_interleave(len(columns)))
                class_of.append(columns.repeat(len(rows)))
            sim = torch.cat(sims)  # (P, M, N) of the P pairs of an image and a class of its task
            plan = sinkhorn(torch.exp((sim.detach() - 1) / self.eps), self.max_iter)
            values = self.logit_scale.exp() * (plan * sim).sum(dim=(1, 2))  # (P,)
        logits = values.new_full((len(images), len(texts)), float("-inf"))
        return logits.index_put((torch.cat(image_of), torch.cat(class_of)), values)


@register
class PLOT(PerTaskTrainer):
    """Prompt learning with optimal transport."""

    node = "PLOT"
    keys = {
        "PREC": PREC,
        "N": Key(4, "prompts per class", Count),
        "N_CTX": Key(16, "number of context vectors", Count),
        "EPS": Key(0.1, "weight of the plan's entropy", Positive),
        "MAX_ITER": Key(100, "most of Sinkhorn's iterations", Count),
    }
    fixed_steps = False  # how often it iterates depends on the batch
    not_neutral = ("DATALOADER.TEST.BATCH_SIZE",)  # Sinkhorn's iteration stops by the mean over a batch
    rows = (Row("PLOT", 110, on={"general10": {"N": 2}}),)

    def build_clip_model(self, clip_model):
        return TransportCLIP(clip_model, self.tasks, self.options, self.cfg.MODEL.BACKBONE.NAME)

    def step(self, features, labels, repeats):
        try:
            return super().step(features, labels, repeats)
        except NoPlan as error:  # before anything was stepped
            print(f"A batch of epoch {self.epoch + 1} is skipped: {error}")
            return {}
