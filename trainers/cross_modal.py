"""The cross-modal linear probe: a linear map of features at length 1, trained on images and on the classes' texts.

Lin et al., Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models, CVPR 2023. Its
repository chooses rate (1e-3, 1e-4), decay (0, 0.01, 1e-4) and batch (8, 32) on validation images; of these 1e-3, 0.01
and 8 are the defaults here. It takes 12800 batches, here 128 epochs of 100, and validates after each. Image features
are of the image itself and of DATALOADER.VIEWS augmented ones (published: its mirror image). A step has a batch of
every task, and the sum of their losses: a suite learns what single runs learn, but one epoch is chosen for all tasks.
"""

from functools import partial

import torch
from torch.nn import functional as F

from common.keys import Count, Key, Share
from runs.methods import PREC, Row, register

from .multitask import PerClassTrainer
from .multitask_clip import ClassVectors, MultiTaskCLIP

SCALE = 4.60517  # a literal of the published code, where others have the logarithm of the model's logit scale


class HeadCLIP(MultiTaskCLIP):
    """Logits exp(SCALE) x w.f of features f at length 1; a text is a sample as an image is."""

    adds_tasks = True

    def __init__(self, clip_model, tasks):
        super().__init__(clip_model, tasks)
        self.classifier = ClassVectors(len(self.classnames), self.text_encoder.output_dim)

    def class_features(self, classes=slice(None)):
        return self.classifier.weight[classes]

    def score(self, image_features, class_features):
        with torch.autocast(image_features.device.type, enabled=False):
            features = F.normalize(image_features.to(self.learned_dtype), dim=-1)
            return features.new_full((), SCALE).exp() * features @ class_features.t()


class Passes:
    """Shuffled passes over features (n, dim), labels (n,), in whole batches of `size`, or of all if these are fewer.

    `generator(k)` is what pass k is drawn by.
    """

    def __init__(self, features, labels, size, generator):
        self.features, self.labels, self.size, self.generator = features, labels, min(size, len(labels)), generator
        self.number = None  # of the pass whose `order` is known

    def batch(self, step):
        """Features and labels of the batch of a step, which is counted over all epochs."""
        number, place = divmod(step, len(self.labels) // self.size)
        if number != self.number:
            self.number = number
            self.order = torch.randperm(len(self.labels), generator=self.generator(number)).to(self.labels.device)
        index = self.order[place * self.size:(place + 1) * self.size]
        return self.features[index], self.labels[index]


class StepLoader:
    """`n` batches, of each of `passes` one; `epoch()` is the epoch's number."""

    def __init__(self, passes, n, epoch):
        self.passes, self.n, self.epoch = passes, n, epoch

    def __len__(self):
        return self.n

    def __iter__(self):
        for step in range(self.epoch() * self.n, (self.epoch() + 1) * self.n):
            yield tuple(torch.cat(parts) for parts in zip(*(each.batch(step) for each in self.passes)))


@register
class CrossModal(PerClassTrainer):
    """The cross-modal linear probe; batches follow from (seed, task). With TEXTS False a batch is images alone."""

    node = "CROSSMODAL"
    keys = {
        "PREC": PREC,
        "TEXTS": Key(True, "half of a batch are texts, of every class in every template", bool),
        "STEPS": Key(100, "batches of an epoch", Count),
        "WISEFT": Key(0.0, "share of the zero-shot weights in the tested ones (published besides: 0.5)", Share),
    }
    rows = (Row("Cross-modal LP", 37, by_default=False),)
    optim = {"OPTIM.NAME": "adamw", "OPTIM.LR": 0.001, "OPTIM.WEIGHT_DECAY": 0.01, "OPTIM.MAX_EPOCH": 128,
             "OPTIM.LR_SCHEDULER": "cosine", "OPTIM.WARMUP_EPOCH": 50, "OPTIM.WARMUP_TYPE": "linear",
             "OPTIM.WARMUP_MIN_LR": 1e-5, "DATALOADER.TRAIN_X.BATCH_SIZE": 8, "DATALOADER.VIEWS": 1,
             "TEST.FINAL_MODEL": "best_val"}
    rate_by_batch = True

    def build_clip_model(self, clip_model):
        return HeadCLIP(clip_model, self.tasks)

    def prepare(self):
        self.model.classifier.weight.data.copy_(F.normalize(self.model.mean_text_features, dim=-1))

    def make_train_loader(self):
        options, model, passes = self.cfg.DATALOADER, self.model, []
        found = [self.features("train"), *(self.features("train", view) for view in range(options.VIEWS))]
        images, labels = (torch.cat(parts) for parts in zip(*found))
        self.need_images_of_tasks()
        for number, (task, texts) in enumerate(zip(self.tasks, model.text_features)):
            own = model.task_of_class[labels] == number
            sources = {"images": (images[own].to(texts), labels[own])}
            if self.options.TEXTS:
                classes = (model.task_of_class == number).nonzero()[:, 0]
                sources["texts"] = texts.flatten(0, 1), classes.repeat_interleave(texts.shape[1])
            size = max(options.TRAIN_X.BATCH_SIZE // len(sources), 1)
            passes += [Passes(*own, size, partial(self.generator, task.name, kind)) for kind, own in sources.items()]
        return StepLoader(passes, self.options.STEPS, lambda: self.epoch)

    @torch.no_grad()
    def calibrate(self):
        zero_shot = F.normalize(self.model.mean_text_features, dim=-1)
        self.model.classifier.weight.lerp_(zero_shot, self.options.WISEFT)
