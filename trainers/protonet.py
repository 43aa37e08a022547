"""Prototypical networks: a class is the mean of its training images' embeddings, the nearest one is predicted.

Snell et al., Prototypical Networks for Few-shot Learning, NIPS 2017. Embeddings are CLIP's frozen image features or,
with `DIM` > 0, a linear map of them that is learned on episodes. The texts are not read.
"""

import torch
from torch import nn
from torch.nn import functional as F

from dassl.engine import TRAINER_REGISTRY

from .image_features import Images
from .multitask import MultiTaskTrainer
from .multitask_clip import MultiTaskCLIP


class PrototypeCLIP(MultiTaskCLIP):
    """CLIP's image tower and, with `DIM` > 0, a linear map without bias, which distances would not see.

    `support`, set before testing, holds features (n, embed_dim) and labels (n,) of what makes the prototypes.
    """

    def __init__(self, clip_model, tasks, dim):
        super().__init__(clip_model, tasks)
        self.support = None
        self.embedding = nn.Identity()
        if dim > 0:
            self.embedding = nn.Linear(self.text_encoder.output_dim, dim, bias=False)
            nn.init.orthogonal_(self.embedding.weight)  # starts from the features' own distances, or nearly so

    def embed(self, features):
        """Features (..., embed_dim) -> embeddings (..., dim) of the features at length 1, float32 (fp64: float64)."""
        return self.embedding(F.normalize(features.to(self.learned_dtype), dim=-1)).to(self.learned_dtype)

    def class_features(self):
        """Prototypes (n_cls, dim): means of the support images' embeddings."""
        embedded, labels = self.embed(self.support[0]), self.support[1]
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
    """Stands in for the loader of training images: an epoch is its share of `EPISODES`, each drawn inside one task.

    An episode has `WAY` classes of a task that is drawn uniformly, and of each `SHOT` support and `QUERY` query images,
    as they are augmented in this epoch. Where a task has less, `shapes` says what its episodes have: all its classes;
    support images before query images, but at least one of these. A class with a single image is its own query: the
    image as it is supports, and the augmented one is asked.

    Args:
        images, plain: training `Images`, with augmentation and without.
        features_of: function from `Images` to features (n, dim).
        tasks: list of `Task`.
        options: cfg.TRAINER.PROTONET.
        n_epochs: of the run.

    Raises:
        ValueError: an option is too small, or no task has two classes.
    """

    def __init__(self, images, plain, features_of, tasks, options, n_epochs):
        for key, least in dict(WAY=2, SHOT=1, QUERY=1, EPISODES=n_epochs).items():
            if options[key] < least:
                raise ValueError(f"TRAINER.PROTONET.{key} is {options[key]}, but must be {least} or more"
                                 + " (an episode in each of OPTIM.MAX_EPOCH epochs)" * (key == "EPISODES"))
        self.dataset, self.plain, self.features_of = images, plain, features_of
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
            raise ValueError("no task has two classes or more to learn an embedding from: set TRAINER.PROTONET.DIM 0")

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
                yield {"support": plain[drawn], "query": augmented[drawn]}
            else:
                yield {"support": augmented[drawn[:, :shot]], "query": augmented[drawn[:, shot:]]}


@TRAINER_REGISTRY.register()
class ProtoNet(MultiTaskTrainer):
    """Nearest class mean; prototypes are made of the run's training images, without augmentation, at every test."""

    options = "PROTONET"

    def build_data_loader(self):
        super().build_data_loader()
        missing = set(self.lab2cname) - {datum.label for datum in self.dm.dataset.train_x}
        if missing:
            raise ValueError(f"ProtoNet needs training images of every class, but {self.cfg.DATASET.NAME} has none of "
                             f"{len(missing)} classes, such as {self.lab2cname[min(missing)]!r}")
        self.plain = Images(self.cfg, self.dm.dataset.train_x, self.dm.tfm_test, is_train=False)

    def build_clip_model(self, clip_model):
        return PrototypeCLIP(clip_model, self.tasks, self.cfg.TRAINER.PROTONET.DIM)

    def build_model(self):
        super().build_model()
        if not self.trained:
            self.max_epoch = 0  # training is over before it begins

    def parts(self):
        return ["embedding"] if self.cfg.TRAINER.PROTONET.DIM > 0 else []

    def parse_batch_train(self, batch):
        return batch["support"].to(self.device), batch["query"].to(self.device)

    def train(self):
        if self.trained:
            self.train_loader_x = EpisodeLoader(self.train_loader_x.dataset, self.plain, self.features_of, self.tasks,
                                                self.cfg.TRAINER.PROTONET, self.max_epoch)
        super().train()

    def test(self, split=None):
        labels = torch.tensor([datum.label for datum in self.plain.data_source], device=self.device)
        self.model.support = self.features_of(self.plain).to(self.device), labels
        return super().test(split)
