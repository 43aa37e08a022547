"""A probe per task, and maps of image features that tasks share: soft sharing without prompts.

This project's own. With u(x) an image's feature at length 1, t_k the text feature of class k of task t, s the logit
scale and P_t (dim, dim) the task's map:

    logit_k(x) = SCALE u(x).w_k + b_k + BLEND s cos(u(x) P_t, t_k)
    loss = mean over tasks of (mean cross-entropy + LAMBDA mean_k |w_k|^2 + DECAY |P_t - I|^2)

w and b start at 0, P_t at I. SHARE says what P_t is: one P for all tasks (all), I + sum_r a_tr D_r, a_t the softmax of
cosines of the tasks' names / TEMPERATURE (names), each task's own (none), I (off). With RANK P - I is U V, U from 0, V
from directions in which the classes' texts differ most. Adam takes 150 steps on all images, not augmented; nothing is
drawn. One LAMBDA for all tasks is chosen by validation images.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from common.keys import Key, Natural, NotNegative, Positive
from dassl.optim import build_lr_scheduler, build_optimizer
from runs.methods import PREC, Row, register

from .multitask import PerClassTrainer
from .multitask_clip import ClassVectors, MultiTaskCLIP

LABELS = {"all": "Shared map", "names": "Maps by names", "none": "Map per task", "off": "Probe and texts"}  # of SHARE


class SharedMapCLIP(MultiTaskCLIP):
    """CLIP with a probe, whose LAMBDA is `strength`, in `classifier`, and n maps of image features in `maps`.

    A map adds `left` (dim, dim) to I or, with RANK, `left` (dim, rank) x `right` (rank, dim). `names` (n, dim) are the
    text features of the names of the tasks of training, if the maps are mixed by them.
    """

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks)
        self.options, n_cls = options, len(self.classnames)
        self.classifier, self.maps = ClassVectors(n_cls, self.text_encoder.output_dim), nn.Module()
        self.classifier.bias = nn.Parameter(torch.zeros(n_cls))
        self.classifier.register_buffer("strength", torch.zeros(()))
        self.maps.left, self.maps.right = (nn.Parameter(torch.empty(0)) for _ in range(2))  # `start` makes them
        self.maps.register_buffer("names", torch.empty(0))

    def start(self, strength):
        """Make probe and maps as they are before training with this LAMBDA."""
        texts, maps, rank, share = self.zero_shot_features, self.maps, self.options.RANK, self.options.SHARE
        count, dim = {"all": 1, "off": 0}.get(share, len(self.tasks)), texts.shape[1]
        maps.left.data = texts.new_zeros(count, dim, min(rank, dim) or dim)
        if rank:
            maps.right.data = torch.linalg.svd(texts - texts.mean(0)).Vh[:rank].repeat(count, 1, 1)
        maps.names = self.name_features if share == "names" else maps.names
        for value in self.classifier.state_dict().values():
            value.zero_()
        self.classifier.strength.fill_(strength)

    def changes(self):
        """P - I of each task, (n_tasks, dim, dim), or (1, dim, dim) where all tasks have the same."""
        maps = self.maps.left @ self.maps.right if self.options.RANK else self.maps.left
        if self.options.SHARE != "names":
            return maps
        mix = (self.name_features.to(maps) @ self.maps.names.t() / self.options.TEMPERATURE).softmax(dim=1)
        return torch.einsum("tr,rij->tij", mix, maps)  # what a task takes of each map

    def class_features(self):
        if self.options.SHARE == "names":
            self.name_features  # made once, before a trace
        return self.zero_shot_features

    def logits(self, image_features, labels, class_features):
        probe, options, tasks = self.classifier, self.options, self.task_of_class[labels]
        with torch.autocast(image_features.device.type, enabled=False):
            mapped = features = F.normalize(image_features.to(self.learned_dtype), dim=-1)
            changes = self.changes().unbind()
            for number, change in enumerate(changes):
                rows = (tasks % len(changes) == number).nonzero()[:, 0]
                mapped = mapped.index_add(0, rows, features[rows] @ change)
            by_probe = options.SCALE * features @ probe.weight.t() + probe.bias
            by_texts = options.BLEND * self.cosine_scale * F.normalize(mapped, dim=-1) @ class_features.t()
            return self.mask_other_tasks(by_probe + by_texts, labels)

    def losses(self, images, labels):
        with torch.autocast(images.device.type, enabled=False):
            (logits, targets), norms = self(images, labels), self.classifier.weight.square().sum(dim=1)
            xe_loss = self.sum_over_tasks(F.cross_entropy(logits, targets, reduction="none"), targets)
            far = self.classifier.strength * self.sum_over_tasks(norms, torch.arange(len(norms)).to(labels))
            moved = self.changes().square().sum() / max(1, len(self.changes()))
        return {"loss": (xe_loss + far) / len(self.tasks) + self.options.DECAY * moved}, logits, targets


@register
class SharedMap(PerClassTrainer):
    """Maps that tasks share read other tasks, too, by their classes' names."""

    node = "SHAREDMAP"
    keys = {
        "PREC": PREC,
        "SHARE": Key("all", "maps: one for all tasks, mixed by the tasks' names, one per task, or the identity",
                     Literal["all", "names", "none", "off"]),
        "TEMPERATURE": Key(0.3, "of the softmax over cosines of names", Positive),
        "RANK": Key(0, "of what a map adds to the identity; 0: any", Natural),
        "BLEND": Key(0.3, "what scores by texts are multiplied by", NotNegative),
        "SCALE": Key(10.0, "what scores by the probe are multiplied by", Positive),
        "LAMBDA": Key((0.001, 0.01, 0.1, 1.0), "weights of the probe's squares, one is chosen by validation images",
                      Annotated[tuple[NotNegative, ...], Field(min_length=1)]),
        "DECAY": Key(1e-3, "weight of the maps' squared distance from the identity", NotNegative),
    }
    rows = tuple(Row(label, 116 + place, {"SHARE": share}, ("SHARE",), by_default=False, quick=share == "all")
                 for place, (share, label) in enumerate(LABELS.items()))
    folder_name = "{TRAINER}/{CFG}_{SHOTS}shots/[{SHARE}/]seed{SEED}"
    optim = {"OPTIM.NAME": "adam", "OPTIM.LR": 0.004, "OPTIM.WEIGHT_DECAY": 0.0, "OPTIM.MAX_EPOCH": 150,
             "OPTIM.LR_SCHEDULER": "cosine", "OPTIM.WARMUP_EPOCH": -1, "OPTIM.STEP_PER_PART": False}
    reads_templates, fixed_steps = True, False  # each task has images of its own
    reads_validation_images = property(lambda self: len(self.options.LAMBDA) > 1)
    parts = staticmethod(lambda options: ["classifier", "maps"])
    shared_parts = staticmethod(lambda options: ["maps"] if options.SHARE in ("all", "names") else [])

    def build_clip_model(self, clip_model):
        return SharedMapCLIP(clip_model, self.tasks, self.options)

    def prepare(self):
        (images, labels), tried = self.features("train"), self.options.LAMBDA
        self.need_images_of_tasks()
        found = [self.accuracy_with(value, images, labels) for value in tried] if len(tried) > 1 else [0.0]
        self.model.start(tried[found.index(max(found))])  # the first of equals

    def accuracy_with(self, strength, images, labels):
        """Sum of the tasks' validation accuracies, each up to 1, after the training that follows with this LAMBDA."""
        self.model.start(strength)
        optimizer = build_optimizer([p for p in self.model.parameters() if p.requires_grad], self.cfg.OPTIM)
        scheduler = build_lr_scheduler(optimizer, self.cfg.OPTIM)
        for _ in range(self.max_epoch):
            optimizer.zero_grad()
            self.model.losses(images, labels)[0]["loss"].backward()
            optimizer.step()
            scheduler.step()
        logits, targets = self.model(*self.features("val"))
        return float(self.model.sum_over_tasks((logits.argmax(dim=1) == targets).double(), targets))

    def make_features(self, epochs):
        if len(epochs):
            self.encode.make(self.plain_images["train"], [0])
        super().make_features(epochs[:0])  # no augmented ones

    def make_train_loader(self):
        return [self.features("train")]
