"""Images and their features. The image tower is frozen, so no image is encoded twice.

Augmentation is drawn from (seed, epoch, image) alone. So the features of an epoch's images depend on nothing that is
learned, nor on the method, the number of workers or the order of batches: they are made before the epoch, in the order
of the dataset, and kept on disk (`DATALOADER.FEATURE_CACHE`), where every later run finds them.

Local features (`LocalImageEncoder`: one per position) take some 50 times as much. Of these only the test and validation
images' are kept; training images are encoded anew in each epoch, batch by batch.
"""

import contextlib
import itertools
import os
import os.path as osp
import random
import zlib

import numpy as np
import PIL
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dassl.utils import BrokenImage, NotFinite, UserError, list_broken, read_image
from runs.identity import digest_of_tensors

from .feature_store import FeatureCache, default_folder, key_of, megabytes
from .local_features import LocalImageEncoder

PACK = 16384  # images after which a pack is written, so that a crash loses little


class Images(Dataset):
    """A torch dataset over a list of `Datum`: each image as the transform makes it, (3, H, W).

    Augmentation is drawn from (seed, epoch, image) alone; `epoch` is set by the trainer.
    """

    def __init__(self, cfg, data_source, transform, is_train=False):
        self.cfg, self.data_source, self.transform, self.is_train = cfg, data_source, transform, is_train
        self.epoch = 0

    def __len__(self):
        return len(self.data_source)

    def draw(self, idx):
        """What the augmentation of an image is drawn from, as text; "" for test transforms, which draw nothing."""
        return f"{self.cfg.SEED}/{self.epoch}/{self.data_source[idx].name}" if self.is_train else ""

    @property
    def view(self):
        """Name of the cache's folder for what is drawn now."""
        return f"train-seed{self.cfg.SEED}-epoch{self.epoch:03d}" if self.is_train else "test"

    def key(self, idx):
        """Key of an image's feature: its file, as it is now, the draw of its augmentation, whether it is turned."""
        datum = self.data_source[idx]
        path = osp.abspath(datum.impath)
        state = os.stat(path)
        return key_of(path, state.st_size, state.st_mtime_ns, self.draw(idx), *["upright"] * datum.upright)

    def __getitem__(self, idx):
        datum = self.data_source[idx]
        image = read_image(datum.impath, datum.upright)
        if not self.is_train:
            return self.transform(image)
        with seeded(self.draw(idx)):
            return self.transform(image)


class OrBroken(Dataset):
    """`Images` at `index`: (image, path, reason); of one that can't be read, zeros and the reason, else "" for both."""

    def __init__(self, images, index):
        self.images, self.index = images, index

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        try:
            return self.images[self.index[i]], "", ""
        except BrokenImage as error:  # returned, not raised: the others are encoded, and all broken ones are named
            return torch.zeros(3, *self.images.cfg.INPUT.SIZE), error.path, error.reason


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
        autocast: whether it runs under `torch.autocast`, in fp16.
    """

    def __init__(self, cfg, encoder, device, dtype=torch.float32, autocast=False):
        self.cfg, self.encoder, self.device, self.dtype, self.autocast = cfg, encoder, device, dtype, autocast
        self.local = isinstance(encoder, LocalImageEncoder)
        self.batch_size = cfg.DATALOADER.TEST.BATCH_SIZE
        self.folder = cfg.DATALOADER.FEATURE_CACHE_DIR or default_folder()
        self.caches = {}  # description of the transforms -> FeatureCache
        self.told = False  # how much the training images' features take
        self.broken = {}  # path of an image that can't be read -> why
        if cfg.DATALOADER.FEATURE_CACHE:
            self.fingerprint = digest_of_tensors(encoder.state_dict())
            print(f"Image features are kept in {self.folder} (DATALOADER.FEATURE_CACHE False keeps none)")

    def cache_for(self, images):
        """The `FeatureCache` of these images' transforms, or None if nothing is to be kept."""
        if not self.cfg.DATALOADER.FEATURE_CACHE or self.local and images.is_train:
            return None
        import torchvision  # slow to import

        transforms = describe(images.transform)
        if transforms not in self.caches:
            # All that can change a feature's last bit. Batches are always filled up to batch_size, since kernels
            # are chosen by size.
            self.caches[transforms] = FeatureCache(self.folder, {
                "backbone": self.cfg.MODEL.BACKBONE.NAME, "fingerprint": self.fingerprint, "transforms": transforms,
                "precision": "amp" if self.autocast else str(self.dtype).removeprefix("torch."),
                "device": self.device.type, "batch": self.batch_size, "kernels": kernels(self.device),
                "versions": [torch.__version__, torchvision.__version__, PIL.__version__],
                **({"features": "local"} if self.local else {})})
        return self.caches[transforms]

    def __call__(self, images):
        """Features (n, ...) of all `images` in their order, not normalised, on the CPU (perhaps memory-mapped).

        Raises:
            UserError: images can't be read; all that were met are named, and the features of the others are kept.
        """
        features = self.find_or_make(images)
        self.refuse_broken()
        return features

    def look_at(self, images):
        """Meet the broken ones of images that are needed later: the next call names them, too. None is read twice."""
        if len(images) and self.cache_for(images) is not None:
            self.find_or_make(images)

    def find_or_make(self, images):
        """As a call, but the features of images that can't be read, which are in `broken`, are without meaning."""
        cache = self.cache_for(images)
        if cache is None:
            return torch.cat(list(self.encode(images, range(len(images)))))
        keys = [images.key(i) for i in range(len(images))]
        features, known = cache.load(images.view, keys)
        if known.any():
            self.check_finite(features[known], images, np.flatnonzero(known))
        missing = np.flatnonzero(~known)
        if not len(missing):
            return features
        for chunk in np.split(missing, range(PACK, len(missing), PACK)):
            made = torch.cat(list(self.encode(images, chunk.tolist())))
            whole = [images.data_source[i].impath not in self.broken for i in chunk]
            cache.store(images.view, [keys[i] for i in chunk[whole]], made[torch.tensor(whole)])
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
            self.refuse_broken()
            if not self.told:
                self.told = True
                print(f"Local features of {len(images):,} training images take "
                      f"{megabytes(len(images) * features[0].nbytes)} an epoch: they are encoded anew in each epoch "
                      "and not kept on disk")
            yield torch.tensor(index).to(self.device), features.to(self.device)

    @torch.no_grad()
    def encode(self, images, index, bar=True):
        """Yield features (b, ...) on the CPU of the images at `index`, batch by batch.

        Those of images that can't be read are without meaning; why they can't is added to `broken`.
        """
        options = self.cfg.DATALOADER
        cuda = self.device.type == "cuda"
        # A generator of its own: whether images are encoded or found must not change the order of the batches.
        loader = DataLoader(OrBroken(images, index), self.batch_size, num_workers=options.NUM_WORKERS, pin_memory=cuda,
                            generator=torch.Generator())
        done = 0
        for pixels, paths, reasons in tqdm(loader, desc="encoding images", disable=not bar or len(loader) < 20):
            self.broken.update((path, reason) for path, reason in zip(paths, reasons) if reason)
            pixels = pixels.to(self.device, self.dtype, non_blocking=True)  # (b, 3, H, W)
            n = len(pixels)
            pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self.batch_size - n))  # (batch_size, 3, H, W)
            if cuda:
                pixels = pixels.contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.float16, enabled=self.autocast):
                features = self.encoder(pixels)[:n].cpu()
            self.check_finite(features, images, index[done:done + n])
            done += n
            yield features

    def refuse_broken(self):
        """Stop where images can't be read.

        Raises:
            UserError: naming those that were met.
        """
        if self.broken:
            raise UserError(f"{list_broken(self.broken)}\nput whole files in their places, or set DATASET.SKIP_BROKEN "
                            "True, which leaves them out")

    def check_finite(self, features, images, index):
        """Stop where features (n, ...) of the images at `index` are NaN or infinite: they have no accuracy.

        Raises:
            NotFinite: naming the first such image.
        """
        bad = (~features.flatten(1).isfinite().all(dim=1)).nonzero()
        if len(bad):
            raise NotFinite(f"the features of {images.data_source[index[int(bad[0])]].impath} are NaN or infinite: "
                            f"check the weights of {self.cfg.MODEL.BACKBONE.NAME}, or use another PREC than "
                            f"{'amp' if self.autocast else str(self.dtype).removeprefix('torch.')}")


class FeatureLoader:
    """Batches of features instead of images: yields features (B, ...) and labels (B,), on the device.

    Args:
        images: `Images`. batch_sampler: lists of their indices. encode: an `ImageFeatures`.
    """

    def __init__(self, images, batch_sampler, encode, device):
        self.images, self.batch_sampler, self.encode, self.device = images, batch_sampler, encode, device
        self.labels = torch.tensor([datum.label for datum in images.data_source], device=device)  # (n,)

    def __len__(self):
        return len(self.batch_sampler)

    def __iter__(self):
        for index, features in self.encode.batches(self.images, self.batch_sampler):
            yield features, self.labels[index]


def kernels(device):
    """What else than the device's kind decides how a feature is rounded, as a list of JSON values."""
    if device.type == "cpu":
        return [torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()]
    return [torch.cuda.get_device_name(device), torch.version.cuda, torch.backends.cudnn.version(),
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]


def describe(transform):
    """A transform as text: torchvision's by their own description, others by class and attributes."""
    from torchvision.transforms import Compose  # slow to import

    if isinstance(transform, Compose):
        return ", ".join(describe(stage) for stage in transform.transforms)
    if type(transform).__repr__ is not object.__repr__:
        return repr(transform)
    return f"{type(transform).__name__}({vars(transform)})"
