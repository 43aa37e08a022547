"""Images as training and testing see them: read, and augmented by what (seed, view, image) alone decide."""

import contextlib
import os
import os.path as osp
import random
import zlib
from copy import copy

import numpy as np
import torch
from torch.utils.data import Dataset

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
        """Number of what is drawn in an epoch; 0 for test transforms, which draw nothing."""
        views = self.cfg.DATALOADER.VIEWS
        return (epoch % views if views else epoch) if self.is_train else 0

    def draw(self, idx, view=None):
        """What the augmentation of an image is drawn from, as text; "" for test transforms."""
        view = self.view_of(self.epoch) if view is None else view
        return f"{self.cfg.SEED}/{view}/{self.data_source[idx].name}" if self.is_train else ""

    @property
    def folder(self):
        """Name of the cache's folder for what is drawn."""
        return f"train-seed{self.cfg.SEED}" if self.is_train else "test"

    def keys(self, views):
        """Keys (views * n,) of the features of all images in each view.

        Of each the file, as it is now, the draw of its augmentation, and whether it is turned.
        """
        paths = [osp.abspath(datum.impath) for datum in self.data_source]
        files = [(path, *state_of(path)) for path in paths]
        return np.array([key_of(*files[i], self.draw(i, view), *["upright"] * datum.upright)
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
        with seeded(self.draw(idx)):
            return self.transform(image)


class Pass(Dataset):
    """Some images in some views, as `Images` makes them: item `view * n + image`, where views count by their place.

    Of an image there are its pixels, "" and ""; of one that can't be read zeros, its path and the reason.

    Args:
        images: `Images`. items: array of items. views: their numbers.
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


def state_of(path):
    """Size and time of a file; of none zeros, since reading it will say so better."""
    try:
        state = os.stat(path)
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns


@contextlib.contextmanager
def seeded(key):
    """Draw all CPU random numbers inside from `key`; outside nothing changes."""
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
