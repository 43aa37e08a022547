"""Orders in which a data loader visits the samples (lists of `Datum`)."""

import random
from collections import defaultdict

from torch.utils.data.sampler import RandomSampler, Sampler, SequentialSampler

from common.errors import UserError

from ..utils import check_availability

AVAI_SAMPLERS = ["RandomSampler", "SequentialSampler", "RandomClassSampler"]


class RandomClassSampler(Sampler):
    """Each batch has ``n_ins`` samples of each of ``batch_size / n_ins`` randomly chosen classes.

    A class with fewer than ``n_ins`` samples is drawn with replacement.
    Every epoch has the same length, because trainers tell the last batch of an epoch by it.

    Raises:
        ValueError: ``n_ins`` does not fit ``batch_size``, or there are too few classes to fill a batch.
    """

    def __init__(self, data_source, batch_size, n_ins):
        if not 0 < n_ins <= batch_size:
            raise UserError(f"DATALOADER.TRAIN_X.N_INS is {n_ins}: choose 1 to BATCH_SIZE ({batch_size})")
        self.index_dict = defaultdict(list)  # label -> indices of its samples
        for index, item in enumerate(data_source):
            self.index_dict[item.label].append(index)
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        if self.ncls_per_batch > len(self.index_dict):
            raise UserError(f"A batch of {batch_size} with {n_ins} samples a class needs {self.ncls_per_batch} "
                            f"classes, but there are {len(self.index_dict)}: raise DATALOADER.TRAIN_X.N_INS or lower "
                            "BATCH_SIZE")
        # the least of several, so that few orders are drawn in vain later
        self.length = min(len(self.draw()) for _ in range(10))

    def draw(self):
        """Return a random list of indices; its length varies from call to call."""
        chunks = {}  # label -> lists of n_ins indices each
        for label, indices in self.index_dict.items():
            if len(indices) < self.n_ins:
                indices = random.choices(indices, k=self.n_ins)
            indices = random.sample(indices, len(indices))
            full = len(indices) - len(indices) % self.n_ins
            chunks[label] = [indices[i : i + self.n_ins] for i in range(0, full, self.n_ins)]
        labels, output = list(chunks), []
        while len(labels) >= self.ncls_per_batch:
            for label in random.sample(labels, self.ncls_per_batch):
                output.extend(chunks[label].pop(0))
                if not chunks[label]:
                    labels.remove(label)
        return output

    def __iter__(self):
        indices = self.draw()
        while len(indices) < self.length:
            indices = self.draw()
        return iter(indices[: self.length])

    def __len__(self):
        return self.length


def build_sampler(sampler_type, cfg=None, data_source=None, batch_size=32, n_ins=16):
    """Return the sampler named ``sampler_type`` over a list of `Datum`; ValueError for an unknown name."""
    check_availability(sampler_type, AVAI_SAMPLERS, "the sampler")
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    return RandomClassSampler(data_source, batch_size, n_ins)
