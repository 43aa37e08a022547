"""Images as training and testing see them: read, and augmented by what (seed, view, image) alone decide."""

import contextlib
import random
import zlib
from copy import copy

import numpy as np
import torch
from torch.utils.data import Dataset

from common.file_digests import digest_files
from common.images import BrokenImage, read_image

from .store import KEY_BYTES, key_of


class Images(Dataset):
    """A torch dataset over a list of `Datum`: each image as the transform makes it, (3, H, W).

    Augmentation is drawn from (seed, view, image) alone; `epoch`, which decides the view, is set by the trainer.
    """

    def __init__(self, cfg, data_source, transform, is_train=False):
        self.cfg, self.data_source, self.transform, self.is_train = cfg, data_source, transform, is_train
        self.epoch = 0
        self.last = None, None  # path and pixels of the image that was read last: its next view needs no reading

    def __len__(self):
        return len(self.data_source)

    def view_of(self, epoch):
        """Number of the augmented view that an epoch sees; 0 for test transforms, which draw nothing."""
        views = self.cfg.DATALOADER.VIEWS
        return (epoch % views if views else epoch) if self.is_train else 0

    def seed_of(self, idx, view=None):
        """The text from which an image's augmentation is drawn; "" for test transforms."""
        view = self.view_of(self.epoch) if view is None else view
        return f"{self.cfg.SEED}/{view}/{self.data_source[idx].name}" if self.is_train else ""

    @property
    def group(self):
        """Name of the cache's subfolder for these images: one for each seed of augmentation, and "test"."""
        return f"train-seed{self.cfg.SEED}" if self.is_train else "test"

    def keys(self, views):
        """Keys (views * n,) of the features of all images in each view.

        A key is made of the file's content, of the seed of the augmentation, and of whether the image is turned. A file
        that can't be read has a key of its path.
        """
        digests = digest_files([datum.impath for datum in self.data_source])
        return np.array([key_of(digests[datum.impath] or datum.impath, self.seed_of(i, view),
                                *["upright"] * datum.upright)
                         for view in views for i, datum in enumerate(self.data_source)], dtype=f"S{KEY_BYTES}")

    def read(self, idx):
        datum = self.data_source[idx]
        if self.last[0] != datum.impath:
            self.last = datum.impath, read_image(datum.impath, datum.upright)
        return self.last[1]

    def __getitem__(self, idx):
        image = self.read(idx)
        if not self.is_train:
            return self.transform(image)
        with seeded(self.seed_of(idx)):
            return self.transform(image)


class Pass(Dataset):
    """Some images in some views, as `Images` makes them.

    An item is (pixels, "", ""), or, for an image that can't be read, (zeros, its path, the reason).

    Args:
        images: `Images`, n of them.
        items: array; `v * n + i` stands for image i in the view `views[v]`.
        views: numbers of the augmented views.
    """

    def __init__(self, images, items, views):
        self.images, self.items, self.views = copy(images), items, views
        self.images.last = None, None

    def __len__(self):
        return len(self.items)

    def __getitem__(self, idx):
        view, image = divmod(int(self.items[idx]), len(self.images))
        self.images.epoch = self.views[view]
        try:
            return self.images[image], "", ""
        except BrokenImage as error:  # returned, not raised: the others are encoded, and all broken ones are named
            return torch.zeros(3, *self.images.cfg.INPUT.SIZE), error.path, error.reason


@contextlib.contextmanager
def seeded(key):
    """Seed all random numbers of the CPU by the text `key`, and put the generators back at the end."""
    seed = zlib.crc32(key.encode())
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
