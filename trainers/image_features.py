"""Images and their features. The image tower is frozen, so no image is encoded twice.

Augmentation is drawn from (seed, epoch, image) alone. So the features of an epoch's images depend on nothing that is
learned, nor on the method, the number of workers or the order of batches: they are made before the epoch, in the order
of the dataset, and kept on disk (`DATALOADER.FEATURE_CACHE`), where every later run finds them.

Local features (`LocalImageEncoder`: one per position) take some 50 times as much. Of these only the test and validation
images' are kept; training images are encoded anew in each epoch, batch by batch.
"""

import contextlib
import hashlib
import itertools
import os
import os.path as osp
import random
import zlib

import numpy as np
import PIL
import torch
import torchvision
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from dassl.data.data_manager import DatasetWrapper

from .feature_cache import FeatureCache, default_folder, key_of, megabytes
from .local_features import LocalImageEncoder

PACK = 16384  # images after which a pack is written, so that a crash loses little


class Images(DatasetWrapper):
    """Dassl's wrapper with augmentation drawn from (seed, epoch, image) alone; `epoch` is set by the trainer."""

    epoch = 0

    def draw(self, idx):
        """What the augmentation of an image is drawn from, as text; "" for test transforms, which draw nothing."""
        if not self.is_train:
            return ""
        path = osp.relpath(self.data_source[idx].impath, self.cfg.DATASET.ROOT or ".")
        return f"{self.cfg.SEED}/{self.epoch}/{path}"

    @property
    def view(self):
        """Name of the cache's folder for what is drawn now."""
        return f"train-seed{self.cfg.SEED}-epoch{self.epoch:03d}" if self.is_train else "test"

    def key(self, idx):
        """Key of an image's feature: its file, as it is now, and the draw of its augmentation."""
        path = osp.abspath(self.data_source[idx].impath)
        state = os.stat(path)
        return key_of(path, state.st_size, state.st_mtime_ns, self.draw(idx))

    def __getitem__(self, idx):
        if not self.is_train:
            return super().__getitem__(idx)
        with seeded(self.draw(idx)):
            return super().__getitem__(idx)


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


class ImageFeatures:
    """Encodes `Images`, or finds their features on disk.

    Args:
        cfg: `DATALOADER.{FEATURE_CACHE, FEATURE_CACHE_DIR, NUM_WORKERS}` and `DATALOADER.TEST.BATCH_SIZE` are read.
        encoder: frozen module from images (B, 3, H, W) to features (B, dim) or, a `LocalImageEncoder`,
            (B, positions, dim), on its device, in eval mode.
        dtype: of the images it takes.
        autocast: whether it runs under `torch.autocast`.
    """

    def __init__(self, cfg, encoder, device, dtype=torch.float32, autocast=False):
        self.cfg, self.encoder, self.device, self.dtype, self.autocast = cfg, encoder, device, dtype, autocast
        self.local = isinstance(encoder, LocalImageEncoder)
        self.batch_size = cfg.DATALOADER.TEST.BATCH_SIZE
        self.folder = cfg.DATALOADER.FEATURE_CACHE_DIR or default_folder()
        self.caches = {}  # description of the transforms -> FeatureCache
        self.told = False  # how much the training images' features take
        if cfg.DATALOADER.FEATURE_CACHE:
            self.fingerprint = fingerprint(encoder)
            print(f"Image features are kept in {self.folder} (DATALOADER.FEATURE_CACHE False keeps none)")

    def cache_for(self, images):
        """The `FeatureCache` of these images' transforms, or None if nothing is to be kept."""
        if not self.cfg.DATALOADER.FEATURE_CACHE or self.local and images.is_train:
            return None
        transforms = describe(images.transform)
        if transforms not in self.caches:
            # All that can change a feature's last bit. Batches are always filled up to batch_size, since kernels
            # are chosen by size.
            self.caches[transforms] = FeatureCache(self.folder, {
                "backbone": self.cfg.MODEL.BACKBONE.NAME, "fingerprint": self.fingerprint, "transforms": transforms,
                "precision": "amp" if self.autocast else str(self.dtype).removeprefix("torch."),
                "device": self.device.type, "batch": self.batch_size,
                "versions": [torch.__version__, torchvision.__version__, PIL.__version__],
                **({"features": "local"} if self.local else {})})
        return self.caches[transforms]

    def __call__(self, images):
        """Features (n, ...) of all `images` in their order, not normalised, on the CPU (perhaps memory-mapped)."""
        cache = self.cache_for(images)
        if cache is None:
            return torch.cat(list(self.encode(images, range(len(images)))))
        keys = [images.key(i) for i in range(len(images))]
        features, known = cache.load(images.view, keys)
        missing = np.flatnonzero(~known)
        if not len(missing):
            return features
        for chunk in np.split(missing, range(PACK, len(missing), PACK)):
            made = torch.cat(list(self.encode(images, chunk.tolist())))
            cache.store(images.view, [keys[i] for i in chunk], made)
            if features is None:
                features = made.new_empty(len(images), *made.shape[1:])
            features[torch.from_numpy(chunk)] = made
        size = len(missing) * features[0].nbytes
        if not images.is_train:
            print(f"{len(missing):,} images encoded and kept: {megabytes(size)}")
        elif not self.told:
            self.told = True
            epochs = self.cfg.OPTIM.MAX_EPOCH
            print(f"{len(missing):,} images encoded and kept: {megabytes(size)} an epoch, "
                  f"{megabytes(epochs * size)} in {epochs} epochs")
        return features

    def batches(self, images, batch_sampler):
        """Yield (index (B,), features (B, ...)) on the device for the lists of indices in `batch_sampler`."""
        if self.local and images.is_train:
            yield from self.stream(images, list(batch_sampler))
            return
        features = self(images)
        if not self.local:  # small: moved at once
            features = features.to(self.device)
        for index in batch_sampler:
            index = torch.tensor(index)
            batch = features[index.to(features.device, non_blocking=True)]
            yield index.to(self.device, non_blocking=True), batch.to(self.device, non_blocking=True)

    def stream(self, images, batches):
        """`batches` of images that are encoded when their turn comes, never more at once than the encoder takes."""
        rows = itertools.chain.from_iterable(self.encode(images, [i for index in batches for i in index], bar=False))
        for index in batches:
            features = torch.stack(list(itertools.islice(rows, len(index))))
            if not self.told:
                self.told = True
                print(f"Local features of {len(images):,} training images take "
                      f"{megabytes(len(images) * features[0].nbytes)} an epoch: they are encoded anew in each epoch "
                      "and not kept on disk")
            yield torch.tensor(index).to(self.device), features.to(self.device)

    @torch.no_grad()
    def encode(self, images, index, bar=True):
        """Yield features (b, ...) on the CPU of the images at `index`, batch by batch."""
        options = self.cfg.DATALOADER
        cuda = self.device.type == "cuda"
        # A generator of its own: whether images are encoded or found must not change the order of the batches.
        loader = DataLoader(Subset(images, index), self.batch_size, num_workers=options.NUM_WORKERS, pin_memory=cuda,
                            generator=torch.Generator())
        for batch in tqdm(loader, desc="encoding images", disable=not bar or len(loader) < 20):
            pixels = batch["img"].to(self.device, self.dtype, non_blocking=True)  # (b, 3, H, W)
            n = len(pixels)
            pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self.batch_size - n))  # (batch_size, 3, H, W)
            if cuda:
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, enabled=self.autocast):
                yield self.encoder(pixels)[:n].cpu()


class FeatureLoader:
    """Stands in for a `DataLoader` of `Images`: the same batches, of features instead of images.

    Yields {"features": (B, ...), "label": (B,)} on the device.

    Args:
        batches: function like `ImageFeatures.batches`.
    """

    def __init__(self, loader, batches, device):
        self.dataset, self.batch_sampler = loader.dataset, loader.batch_sampler
        self.batches, self.device = batches, device

    def __len__(self):
        return len(self.batch_sampler)

    def __iter__(self):
        labels = torch.tensor([datum.label for datum in self.dataset.data_source], device=self.device)  # (n,)
        for index, features in self.batches(self.dataset, self.batch_sampler):
            yield {"features": features, "label": labels[index]}


def fingerprint(module):
    """Hex digest of a module's weights: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def describe(transform):
    """A transform as text: torchvision's by their own description, others by class and attributes."""
    if isinstance(transform, torchvision.transforms.Compose):
        return ", ".join(describe(stage) for stage in transform.transforms)
    if type(transform).__repr__ is not object.__repr__:
        return repr(transform)
    return f"{type(transform).__name__}({vars(transform)})"
