"""Prototypical networks: a class is the mean of its training images' embeddings, the nearest one is predicted.

Snell et al., Prototypical Networks for Few-shot Learning, NIPS 2017. Embeddings are CLIP's frozen image features or,
with `DIM` > 0, a linear map of them that is learned on episodes. The texts are not read.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.errors import UserError
from common.keys import Count, Key, Natural
from runs.keys import refusal
from runs.methods import PREC, Row, register

from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP


class Support(nn.Module):
    """`features` (n, embed_dim) and `labels` (n,) of the n training images, of which prototypes are made."""

    def __init__(self):
        super().__init__()
        self.register_buffer("features", torch.empty(0))
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))


class PrototypeCLIP(MultiTaskCLIP):
    """CLIP's image tower and, with `DIM` > 0, a linear map without bias, which distances would not see."""

    reads_names = False

    def __init__(self, clip_model, tasks, dim):
        super().__init__(clip_model, tasks)
        self.support = Support()
        self.embedding = nn.Identity()
        if dim > 0:
            self.embedding = nn.Linear(self.text_encoder.output_dim, dim, bias=False)
            nn.init.orthogonal_(self.embedding.weight)  # starts from the features' own distances, or nearly so

    def embed(self, features):
        """Features (..., embed_dim) -> embeddings (..., dim) of the features at length 1, float32 (fp64: float64)."""
        return self.embedding(F.normalize(features.to(self.learned_dtype), dim=-1)).to(self.learned_dtype)

    def class_features(self):
        """Prototypes (n_cls, dim): means of the support images' embeddings."""
        embedded, labels = self.embed(self.support.features), self.support.labels
        sums = embedded.new_zeros(len(self.classnames), embedded.shape[1]).index_add(0, labels, embedded)
        return sums / labels.bincount(minlength=len(sums))[:, None]

    def score(self, image_features, class_features):
        """Logits (B, n): negative squared Euclidean distances of features (B, embed_dim) to prototypes (n, dim)."""
        embedded = self.embed(image_features)
        return 2 * embedded @ class_features.t() - embedded.square().sum(1)[:, None] - class_features.square().sum(1)

    def forward(self, support, query):
        """An episode: features (way, s, embed_dim) and (way, q, embed_dim) -> logits (way * q, way), targets."""
        logits = self.score(query.flatten(0, 1), self.embed(support).mean(dim=1))
        return logits, torch.arange(len(query), device=query.device).repeat_interleave(query.shape[1])


class EpisodeLoader:
    """Episodes of training: an epoch is its share of `EPISODES`, each drawn inside one task.

    Yields features (way, shot, embed_dim) of the support images and (way, query, embed_dim) of the queries.

    An episode has `WAY` classes of a task that is drawn uniformly, and of each `SHOT` support and `QUERY` query images,
    as they are augmented in this epoch. Where a task has less, `shapes` says what its episodes have: all its classes;
    support images before query images, but at least one of these. A class with a single image is its own query: the
    image as it is supports, and the augmented one is asked.

    Args:
        images, plain: training `Images`, with augmentation and without.
        features_of: function from `Images` to features (n, dim).
        tasks: list of `Task`.
        options: cfg.TRAINER.PROTONET.
        n_epochs: of the run. device: of what is yielded.

    Raises:
        UserError: no task has two classes.
    """

    def __init__(self, images, plain, features_of, tasks, options, n_epochs, device="cpu"):
        self.dataset, self.plain, self.features_of, self.device = images, plain, features_of, device
        self.n_episodes, self.n_epochs = options.EPISODES, n_epochs
        sizes = [len(task.classnames) for task in tasks]
        labels = torch.tensor([datum.label for datum in images.data_source])
        self.rows = [(labels == c).nonzero()[:, 0] for c in range(sum(sizes))]
        self.shapes = []  # (classes, way, shot, query, images drawn of a class) of each task that has episodes
        for task, classes in zip(tasks, torch.arange(sum(sizes)).split(sizes)):
            fewest = min(len(self.rows[c]) for c in classes)
            shot = min(options.SHOT, max(fewest - 1, 1))
            way, query = min(options.WAY, len(classes)), min(options.QUERY, max(fewest - shot, 1))
            if way == 1:
                print(f"Task {task.name} has one class: it has no episodes")
                continue
            self.shapes.append((classes, way, shot, query, min(fewest, shot + query)))
            if (way, shot, query) != (options.WAY, options.SHOT, options.QUERY):
                print(f"Episodes of task {task.name} have {way} classes with {shot} support and {query} query images "
                      "each" + ", which are two views of the same image" * (fewest == 1))
        if not self.shapes:
            raise UserError("no task has two classes or more to learn an embedding from: set TRAINER.PROTONET.DIM 0")

    def __len__(self):
        epoch = self.dataset.epoch
        return self.n_episodes * (epoch + 1) // self.n_epochs - self.n_episodes * epoch // self.n_epochs

    def __iter__(self):
        augmented, plain = self.features_of(self.dataset), self.features_of(self.plain)  # (n, dim)
        for _ in range(len(self)):
            classes, way, shot, _, n = self.shapes[torch.randint(len(self.shapes), ())]
            classes = classes[torch.randperm(len(classes))[:way]]
            drawn = torch.stack([self.rows[c][torch.randperm(len(self.rows[c]))[:n]] for c in classes])  # (way, n)
            if n == 1:
                yield plain[drawn].to(self.device), augmented[drawn].to(self.device)
            else:
                yield augmented[drawn[:, :shot]].to(self.device), augmented[drawn[:, shot:]].to(self.device)


@register
class ProtoNet(MultiTaskTrainer):
    """Nearest class mean; the features of the training images, without augmentation, are saved."""

    node = "PROTONET"
    keys = {
        "PREC": PREC,
        "DIM": Key(0, "of the embedding; 0: the image features themselves, nothing is learned", Natural),
        # Of the episodes that the embedding is learned on. A task that has less gives smaller ones.
        "EPISODES": Key(1000, "episodes of the whole run", Count),
        "WAY": Key(5, "classes of an episode", Annotated[int, Field(ge=2)]),
        "SHOT": Key(5, "support images per class of an episode", Count),
        "QUERY": Key(15, "query images per class of an episode", Count),
    }
    rows = (Row("ProtoNet", 30),)

    @classmethod
    def steps(cls, cfg):
        return cfg.TRAINER.PROTONET.DIM > 0

    @staticmethod
    def parts(options):
        return ["embedding"] if options.DIM > 0 else []

    @staticmethod
    def frozen_parts(options):
        return ["support"]

    @staticmethod
    def specific(options):
        return {"": "class"}

    def check_cfg(self, cfg):
        super().check_cfg(cfg)
        if self.steps(cfg) and cfg.TRAINER.PROTONET.EPISODES < cfg.OPTIM.MAX_EPOCH:
            raise refusal(cfg, "TRAINER.PROTONET.EPISODES", f"must be {cfg.OPTIM.MAX_EPOCH} or more (an episode in "
                          "each of OPTIM.MAX_EPOCH epochs)")

    def build_clip_model(self, clip_model):
        return PrototypeCLIP(clip_model, self.tasks, self.options.DIM)

    def prepare(self):
        features, labels = self.features("train")
        names, known = self.dataset.lab2cname, set(labels.tolist())
        missing = set(names) - known
        if missing:
            raise UserError(f"ProtoNet needs training images of every class, but {self.cfg.DATASET.NAME} has none of "
                            f"{len(missing)} classes, such as {names[min(missing)]!r}")
        support = self.model.support
        support.features, support.labels = features.to(self.model.learned_dtype), labels

    def make_train_loader(self):
        return EpisodeLoader(self.train_images, self.plain_images["train"], self.encode, self.tasks, self.options,
                             self.max_epoch, self.device)
