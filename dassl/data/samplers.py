"""Orders in which a data loader visits the samples (lists of `Datum`)."""

import random
from collections import defaultdict

from torch.utils.data.sampler import RandomSampler, Sampler, SequentialSampler

from ..utils import check_availability

AVAI_SAMPLERS = ["RandomDomainSampler", "SeqDomainSampler", "RandomSampler", "SequentialSampler"]
AVAI_SAMPLERS += ["RandomClassSampler"]


def _group_indices(data_source, key):
    """Return a dict from each sample's attribute ``key`` to the indices of the samples that have it."""
    groups = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, key)].append(index)
    return groups


class _BalancedSampler(Sampler):
    """Subclasses' ``draw()`` returns a random list of indices, whose length may vary from call to call.

    Every epoch has the same length, though, because trainers tell the last batch of an epoch by it.
    """

    def set_length(self):
        # the least of several, so that few orders are drawn in vain later
        self.length = min(len(self.draw()) for _ in range(10))

    def draw(self):
        raise NotImplementedError

    def __iter__(self):
        indices = self.draw()
        while len(indices) < self.length:
            indices = self.draw()
        return iter(indices[: self.length])

    def __len__(self):
        return self.length


class RandomDomainSampler(_BalancedSampler):
    """Each batch has ``batch_size / n_domain`` samples of each of ``n_domain`` randomly chosen domains.

    An epoch ends when a domain has too few samples left. ``n_domain`` 0 or None stands for all domains.
    """

    def __init__(self, data_source, batch_size, n_domain=0):
        self.domain_dict = _group_indices(data_source, "domain")
        self.domains = list(self.domain_dict)
        self.n_domain = n_domain if n_domain and n_domain > 0 else len(self.domains)
        if self.n_domain > len(self.domains) or batch_size % self.n_domain != 0:
            raise ValueError(
                f"Cannot fill batches of {batch_size} evenly from {self.n_domain} of {len(self.domains)} "
                "domains: change DATALOADER.TRAIN_X.N_DOMAIN or BATCH_SIZE"
            )
        self.n_img_per_domain = batch_size // self.n_domain
        self.set_length()

    def select_domains(self):
        return random.sample(self.domains, self.n_domain)

    def draw(self):
        pool = {domain: random.sample(indices, len(indices)) for domain, indices in self.domain_dict.items()}
        output = []
        while all(len(indices) >= self.n_img_per_domain for indices in pool.values()):
            for domain in self.select_domains():
                output.extend(pool[domain][: self.n_img_per_domain])
                del pool[domain][: self.n_img_per_domain]
        return output


class SeqDomainSampler(RandomDomainSampler):
    """Each batch has as many samples of every domain, the domains in a fixed order."""

    def __init__(self, data_source, batch_size):
        super().__init__(data_source, batch_size)

    def select_domains(self):
        return self.domains


class RandomClassSampler(_BalancedSampler):
    """Each batch has ``n_ins`` samples of each of ``batch_size / n_ins`` randomly chosen classes.

    A class with fewer than ``n_ins`` samples is drawn with replacement.
    """

    def __init__(self, data_source, batch_size, n_ins):
        if not 0 < n_ins <= batch_size:
            raise ValueError(f"DATALOADER.TRAIN_X.N_INS is {n_ins}: choose 1 to BATCH_SIZE ({batch_size})")
        self.index_dict = _group_indices(data_source, "label")
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        if self.ncls_per_batch > len(self.index_dict):
            raise ValueError(
                f"A batch of {batch_size} with {n_ins} samples a class needs {self.ncls_per_batch} classes, "
                f"but there are {len(self.index_dict)}: raise DATALOADER.TRAIN_X.N_INS or lower BATCH_SIZE"
            )
        self.set_length()

    def draw(self):
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


def build_sampler(sampler_type, cfg=None, data_source=None, batch_size=32, n_domain=0, n_ins=16):
    """Return the sampler named ``sampler_type`` over a list of `Datum`; ValueError for an unknown name."""
    check_availability(sampler_type, AVAI_SAMPLERS)
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(data_source, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(data_source, batch_size)
    return RandomClassSampler(data_source, batch_size, n_ins)
