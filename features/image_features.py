"""Features of images. The image tower is frozen, so no image is encoded twice.

Augmentation is drawn from (seed, view, image) alone, where the view is the epoch, or with `DATALOADER.VIEWS` k the
epoch mod k. So the features of all epochs depend on nothing that is learned, nor on the method, the number of workers
or the order of batches: a run makes all that it needs in one pass before it trains, in full batches across epochs, and
keeps them on disk (`DATALOADER.FEATURE_CACHE`), where every later run finds them, or in a temporary file. What training
and testing read of them is mapped from there, so they never stand in memory together. Where no disk has room for them
they are encoded when their turn comes, in every epoch anew.

Local features (`LocalImageEncoder`: one per position) take some 50 times as much.
"""

import contextlib
import inspect
import itertools
import os
import tempfile
import time
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import PIL
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.digests import digest_of_module
from common.errors import MissingFile, NotFinite, UserError
from common.images import READER, list_broken
from common.program import check_interrupted, end_quietly, starting_processes

from .images import Pass
from .store import FeatureCache, Rows, TemporaryPack, default_folder, has_room, megabytes

# A pack is written when it has so many bytes or took so many seconds: a kill loses no more.
PACK_BYTES, PACK_SECONDS = 2**27, 30
# Images at once on a CPU: larger batches are no faster, and fill more memory first. All epochs of a CoOp schedule (50,
# 100, 200) are whole batches.
CPU_BATCH = 25


class ImageFeatures:
    """Encodes `Images`, or finds their features on disk.

    Args:
        cfg: `DATALOADER.{FEATURE_CACHE, FEATURE_CACHE_DIR, NUM_WORKERS}` and `DATALOADER.TEST.BATCH_SIZE` are read.
        encoder: module from images (B, 3, H, W) to features (B, dim) or, a `LocalImageEncoder`, (B, positions, dim),
            on its device, in eval mode.
        dtype: of the images it takes.
        autocast: whether it runs under `torch.autocast`, in fp16.
        keep: whether features may be kept, since the encoder is frozen; else they are made whenever they are asked for.

    Attributes:
        seconds: that finding and making features took.
    """

    def __init__(self, cfg, encoder, device, dtype=torch.float32, autocast=False, keep=True):
        self.cfg, self.encoder, self.device, self.dtype, self.autocast = cfg, encoder, device, dtype, autocast
        self.keep, self.memory_format = keep, memory_format(encoder, device)
        encoder.to(memory_format=self.memory_format)
        self.kind = getattr(encoder, "kind", "")  # "" of the tower's own features, as CLIP compares them with texts
        self.local = self.kind == "local"
        self.batch_size = cfg.DATALOADER.TEST.BATCH_SIZE
        if device.type == "cpu":
            self.batch_size = min(self.batch_size, CPU_BATCH)
        self.folder = cfg.DATALOADER.FEATURE_CACHE_DIR or default_folder()
        self.caches = {}  # description of the transforms -> FeatureCache
        self.made = WeakKeyDictionary()  # Images -> (views, their `Rows`, or None where nothing is kept)
        self.broken = {}  # path of an image that can't be read -> why
        self.seconds = 0.0
        if keep and cfg.DATALOADER.FEATURE_CACHE:
            self.fingerprint = digest_of_module(encoder)
            print(f"Image features are kept in {self.folder} (DATALOADER.FEATURE_CACHE False keeps none)")

    def cache_for(self, images):
        """The `FeatureCache` of these images' transforms, or None if nothing is to be kept."""
        if not self.cfg.DATALOADER.FEATURE_CACHE:
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
                "memory_format": str(self.memory_format).removeprefix("torch."),
                "versions": [torch.__version__, torchvision.__version__, PIL.__version__, READER],
                **({"features": self.kind} if self.kind else {})},
                {"dataset": self.cfg.DATASET.NAME, "root": self.cfg.DATASET.ROOT.encode("utf-8", "replace").decode()})
            self.caches[transforms].use()
        return self.caches[transforms]

    def make(self, images, epochs):
        """Find the features of all `images` in `epochs`, and make those that are missing, in one pass.

        If another run makes features of the same dataset and seed, this one waits for it. Images that can't be read
        are left out; `refuse_broken` names them.
        """
        if not self.keep:
            return
        began = time.monotonic()
        views = sorted({images.view_of(epoch) for epoch in epochs})
        cache, has_room = self.cache_for(images), True
        # An image may stand in a dataset twice: there is a row for each different key.
        keys, items, row_of = np.unique(images.keys(views), return_index=True, return_inverse=True)
        rows = cache.find(images.group, keys) if cache else Rows(len(keys))
        if len(rows.missing):
            with cache.alone(f"{images.group}-{self.cfg.DATASET.NAME}") if cache else contextlib.nullcontext():
                rows = cache.find(images.group, keys) if cache else rows  # another run may have made them meanwhile
                has_room = not len(rows.missing) or self.fill(rows, images, views, items, keys, cache)
        self.made[images] = views, rows.select(row_of) if has_room else None
        self.seconds += time.monotonic() - began

    def fill(self, rows, images, views, items, keys, cache):
        """Encode the images whose features `rows` lacks, and keep the features, pack by pack.

        Args:
            items, keys: the item of `Pass` and the key of each row.

        Returns:
            True, or False where no disk has room for them: nothing is encoded then.
        """
        # The views of an image follow each other, so that it is read once.
        missing = rows.missing[np.argsort(items[rows.missing] % len(images), kind="stable")]
        where = self.where_to_keep(len(missing), images, views, cache)
        if not where:
            return False
        temporary, pack, began, done = TemporaryPack(self.row), [], time.monotonic(), 0
        # Closed at once when Ctrl-C comes, so that its progress bar and workers end before the message.
        with contextlib.closing(self.encode(images, items[missing], views)) as batches:
            for features in batches:
                pack.append(features)
                n = sum(map(len, pack))
                small = n * self.row.nbytes < PACK_BYTES and time.monotonic() - began < PACK_SECONDS
                if small and done + n < len(missing):
                    continue
                index, made, first = missing[done:done + n], torch.cat(pack), done
                pack, began, done = [], time.monotonic(), done + n
                whole = np.array([images.data_source[i].impath not in self.broken for i in items[index] % len(images)])
                index, made = index[whole], made[torch.from_numpy(whole)]
                if len(index):
                    kept = cache.store(images.group, keys[index], made) if where == "cache" else None
                    rows.put(index, kept or temporary, np.arange(len(index)) if kept else temporary.put(first, made))
        return True

    def where_to_keep(self, n, images, views, cache):
        """Say where n features will be kept: "cache", "temporary", or None where no disk has room for them."""
        size = n * self.row.nbytes
        text = f"{n:,} images{f' in {len(views)} views' * (len(views) > 1)} have features of {megabytes(size)}"
        cached = cache is not None and cache.has_room(size)
        if not cached and not has_room(tempfile.gettempdir(), size):
            print(f"{text}, more than half of what the disk has left: they are encoded when they are needed, in every "
                  "epoch anew" + "; a smaller DATALOADER.VIEWS takes less" * images.is_train)
            return None
        print(f"{text}: they are made now and kept " + ("" if cached else
                                                        f"in a temporary file in {tempfile.gettempdir()}, ")
              + ("on disk" if cached else "as long as this run"))
        return "cache" if cached else "temporary"

    @cached_property
    def row(self):
        """The features (...) of a black image, on the CPU; those of all images have their shape and type."""
        return self.tower(torch.zeros(1, 3, *self.cfg.INPUT.SIZE))[0].cpu()

    def take(self, images, index):
        """Kept features (b, ...) of the images at `index` (b,) in their present epoch, on the CPU, or None.

        If they were deleted meanwhile, they are made again.
        """
        view = images.view_of(images.epoch)
        while self.keep:
            if images not in self.made or view not in self.made[images][0]:
                self.make(images, [images.epoch])
            self.refuse_broken()
            views, rows = self.made[images]
            if rows is None:
                return None
            try:
                features = rows.take(views.index(view) * len(images) + np.asarray(index))
            except MissingFile as error:
                print(f"{error}: they are made again")
                del self.made[images]
                continue
            self.check_finite(features, images, index)
            return features

    def __call__(self, images):
        """Features (n, ...) of all `images` in their order and present epoch, not normalised, on the CPU."""
        if not len(images):
            return self.row.new_empty(0, *self.row.shape)
        features = self.take(images, range(len(images)))
        if features is None:
            features = torch.cat(list(self.encode(images, range(len(images)))))
            self.refuse_broken()
        return features

    def batches(self, images, batch_sampler):
        """Yield (index (B,), features (B, ...)) on the device, for each list of indices of `batch_sampler`."""
        batches = list(batch_sampler)
        # Global features are small: those of an epoch are moved to the device at once.
        first = self.take(images, batches[0][:1] if self.local else range(len(images))) if batches else None
        if first is None:
            yield from self.stream(images, batches)
            return
        features = None if self.local else on_device(first, self.device)
        for own, index in zip(batches, indices_of(batches, self.device)):
            yield index, on_device(self.take(images, own), self.device) if self.local else features[index]

    def stream(self, images, batches):
        """As `batches`, of images that are encoded when their turn comes, as many at once as the encoder takes."""
        with contextlib.closing(self.encode(images, [i for index in batches for i in index])) as encoded:
            rows = itertools.chain.from_iterable(encoded)
            for index in indices_of(batches, self.device):
                features = torch.stack(list(itertools.islice(rows, len(index))))
                self.refuse_broken()
                yield index, on_device(features, self.device)

    def to_device(self, pixels):
        """Images (B, 3, H, W) as the encoder takes them."""
        return pixels.to(self.device, self.dtype, non_blocking=True, memory_format=self.memory_format)

    @torch.no_grad()
    def tower(self, pixels):
        """Images (B, 3, H, W) -> their features (B, ...), on the device."""
        pixels = self.to_device(pixels)
        with torch.autocast(self.device.type, torch.float16, enabled=self.autocast):
            return self.encoder(pixels)

    def encode(self, images, items, views=None, progress=True):
        """Yield features (b, ...) on the CPU, batch by batch.

        Images that can't be read are added to `broken`, with the reason; the features in their place mean nothing.

        Args:
            items: items of `Pass`. views: numbers of the augmented views; None: that of the present epoch.
            progress: whether it is shown on stderr, of more than two batches.
        """
        loader = self.read(images, items, views, batch_size=self.batch_size)
        done = 0

        def begin():
            for pixels, paths, reasons in loader:  # (b, 3, H, W)
                check_interrupted()
                self.note_broken(paths, reasons)
                n = len(pixels)
                if n < self.batch_size:  # kernels are chosen by the size of a batch
                    pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self.batch_size - n))
                yield to_cpu(self.tower(pixels)[:n])

        with tqdm(total=len(items), desc="encoding images", unit=" images",
                  disable=not progress or len(loader) < 3) as bar:
            # A GPU has its next batch before this one is waited for.
            for finish, _ in itertools.pairwise(itertools.chain(begin(), [None])):
                features = finish()
                n = len(features)
                self.check_finite(features, images, np.asarray(items[done:done + n]) % len(images))
                done += n
                bar.update(n)
                yield features

    def inputs(self, images):
        """Yield what a model takes of all `images`, batch by batch: features, or pixels if its image tower learns.

        Images that can't be read are added to `broken`; the values in their place mean nothing. No progress is shown.
        """
        if self.keep:
            yield from self.encode(images, range(len(images)), progress=False)
            return
        for pixels, paths, reasons in self.read(images, range(len(images)), batch_size=self.batch_size):
            self.note_broken(paths, reasons)
            yield self.to_device(pixels)

    def read(self, images, items, views=None, **batches):
        """Iterate over batches of items of `Pass`, read by worker processes; `batches` are those of a `DataLoader`."""
        source = Pass(images, items, views or [images.view_of(images.epoch)])
        count = len(batches["batch_sampler"]) if "batch_sampler" in batches else -(-len(items) // self.batch_size)
        # A generator of its own: whether images are encoded or found must not change the order of the batches.
        loader = DataLoader(source, num_workers=self.workers(count), pin_memory=self.device.type == "cuda",
                            generator=torch.Generator(), worker_init_fn=end_quietly, **batches)
        with starting_processes():
            return iter(loader)

    def workers(self, batches):
        """Processes that read so many batches: not more than this process's cores, and none for a single batch."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return min(self.cfg.DATALOADER.NUM_WORKERS, cores, batches) if batches > 1 else 0

    def note_broken(self, paths, reasons):
        self.broken.update((path, reason) for path, reason in zip(paths, reasons) if reason)

    def refuse_broken(self):
        """Raise a `UserError` that names the images that could not be read, if there are any."""
        if self.broken:
            hint = ("they could be read when the run began: call the same command again, and if it says this again, "
                    "check the disk" if self.cfg.DATASET.SKIP_BROKEN else
                    "put whole files in their places, or set DATASET.SKIP_BROKEN True, which leaves them out")
            raise UserError(f"{list_broken(self.broken)}\n{hint}")

    def check_finite(self, features, images, index):
        """Raise a `NotFinite` that names the first image whose features are not finite.

        Args:
            features: (n, ...). index: of their images.
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


class PixelLoader(FeatureLoader):
    """Batches of the images themselves, for image towers that learn: pixels (B, 3, H, W) and labels (B,)."""

    def __iter__(self):
        batches = list(self.batch_sampler)
        loader = self.encode.read(self.images, range(len(self.images)), batch_sampler=batches)
        for index, (pixels, paths, reasons) in zip(indices_of(batches, self.device), loader):
            self.encode.note_broken(paths, reasons)
            self.encode.refuse_broken()
            yield self.encode.to_device(pixels), self.labels[index]


def memory_format(encoder, device):
    """How images (B, 3, H, W) lie in memory for an encoder: channels last on a GPU, and where convolutions are grouped.

    On a CPU these, such as the depthwise ones of EfficientNet, gain most by it. CLIP's own ResNets, which would gain
    less, stay in the usual order, where they round as in the published code; ViTs have nothing to gain.
    """
    grouped = any(isinstance(module, torch.nn.Conv2d) and module.groups > 1 for module in encoder.modules())
    return torch.channels_last if device.type == "cuda" or grouped else torch.contiguous_format


def on_device(tensor, device):
    """A tensor of the CPU on the device. From memory that the system can't move, the program need not wait for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_cpu(tensor):
    """Begin to copy a tensor to the CPU, and return the function that waits for the copy and returns it."""
    if tensor.device.type != "cuda":
        return lambda: tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return lambda: (copied.synchronize(), copy)[1]


def indices_of(batches, device):
    """Yield lists of indices as tensors on the device, where they all come at once."""
    batches = list(batches)
    index = torch.tensor([i for batch in batches for i in batch], dtype=torch.long)
    yield from on_device(index, device).split([len(batch) for batch in batches])


def kernels(device):
    """JSON values that, besides the kind of device, decide how features are rounded."""
    if device.type == "cpu":
        return [torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()]
    return [torch.cuda.get_device_name(device), torch.version.cuda, torch.backends.cudnn.version(),
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]


def describe(transform):
    """A transform as text: its class and the exact values of its attributes, which torchvision's own texts round."""
    from torchvision.transforms import Compose  # slow to import

    if isinstance(transform, Compose):
        return ", ".join(describe(stage) for stage in transform.transforms)
    if inspect.isroutine(transform):
        return repr(transform)
    values = {name: value.tolist() if hasattr(value, "tolist") else value
              for name, value in sorted(vars(transform).items()) if not name.startswith("_")}
    return f"{type(transform).__name__}({values})"
