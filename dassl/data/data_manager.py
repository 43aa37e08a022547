import torch
from tabulate import tabulate
from torch.utils.data import Dataset as TorchDataset

from common.errors import UserError

from ..utils import read_image
from .datasets import build_dataset
from .samplers import build_sampler


def build_data_loader(
    cfg,
    sampler_type="SequentialSampler",
    data_source=None,
    batch_size=64,
    n_ins=2,
    tfm=None,
    is_train=True,
    dataset_wrapper=None,
):
    """Make the data loader over a list of `Datum`.

    In training the last, smaller batch is dropped, unless it is the only one.

    Args:
        tfm: transform, or list of transforms, for `DatasetWrapper`.
        dataset_wrapper: class to use instead of `DatasetWrapper`.

    Raises:
        ValueError: there is no sample, or the sampler makes no batch of them.
    """
    if not data_source:
        split = "training" if is_train else "test"
        raise UserError(f"The {split} split of {cfg.DATASET.NAME} is empty: check its files")
    sampler = build_sampler(sampler_type, cfg=cfg, data_source=data_source, batch_size=batch_size, n_ins=n_ins)
    data_loader = torch.utils.data.DataLoader(
        (dataset_wrapper or DatasetWrapper)(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )
    if len(data_loader) == 0:
        raise UserError(
            f"{sampler_type} makes no batch of {batch_size} from {len(data_source)} samples of "
            f"{cfg.DATASET.NAME}: lower the batch size"
        )
    return data_loader


class DataManager:
    """Builds the dataset that ``cfg`` names, with its transforms and data loaders.

    Args:
        custom_tfm_train, custom_tfm_test: used instead of the transforms that ``cfg.INPUT`` describes.
        dataset_wrapper: used instead of `DatasetWrapper`.

    Attributes:
        dataset, tfm_train, tfm_test, test_loader.
        train_loader_x, val_loader: None where the dataset has no such split.
    """

    def __init__(self, cfg, custom_tfm_train=None, custom_tfm_test=None, dataset_wrapper=None):
        from .transforms import build_transform  # torchvision is slow to import

        dataset = build_dataset(cfg)
        if custom_tfm_train is None:
            tfm_train = build_transform(cfg, is_train=True)
        else:
            print("* Using custom transform for training")
            tfm_train = custom_tfm_train
        if custom_tfm_test is None:
            tfm_test = build_transform(cfg, is_train=False)
        else:
            print("* Using custom transform for testing")
            tfm_test = custom_tfm_test

        def test_loader(data_source):
            return build_data_loader(
                cfg,
                sampler_type=cfg.DATALOADER.TEST.SAMPLER,
                data_source=data_source,
                batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
                tfm=tfm_test,
                is_train=False,
                dataset_wrapper=dataset_wrapper,
            )

        self.dataset = dataset
        self.tfm_train, self.tfm_test = tfm_train, tfm_test
        self.train_loader_x = None
        if dataset.train_x:
            self.train_loader_x = build_data_loader(
                cfg,
                sampler_type=cfg.DATALOADER.TRAIN_X.SAMPLER,
                data_source=dataset.train_x,
                batch_size=cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
                n_ins=cfg.DATALOADER.TRAIN_X.N_INS,
                tfm=tfm_train,
                is_train=True,
                dataset_wrapper=dataset_wrapper,
            )
        self.val_loader = test_loader(dataset.val) if dataset.val else None
        self.test_loader = test_loader(dataset.test)
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self):
        return self.dataset.num_classes

    @property
    def lab2cname(self):
        return self.dataset.lab2cname

    def show_dataset_summary(self, cfg):
        """Print the dataset's name and sizes as a table."""
        rows = [["Dataset", cfg.DATASET.NAME]]
        rows.append(["# classes", f"{self.num_classes:,}"])
        for split in ("train_x", "val", "test"):
            if getattr(self.dataset, split):
                rows.append([f"# {split}", f"{len(getattr(self.dataset, split)):,}"])
        print(tabulate(rows))


class DatasetWrapper(TorchDataset):
    """A torch dataset over a list of `Datum`.

    An item is a dict with ``label``, ``domain``, ``impath``, ``index`` and ``img``: the transformed image, or
    without a transform the PIL image, or in training DATALOADER.K_TRANSFORMS images, if that is above 1.
    With a list of transforms the others' images are ``img2``, ``img3`` ...
    With DATALOADER.RETURN_IMG0, ``img0`` is the image resized and normalised only.
    """

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        from torchvision.transforms import Compose, Normalize, Resize, ToTensor  # slow to import

        from .transforms import INTERPOLATION_MODES

        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform  # one transform, or a list or tuple of them
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise UserError(
                f"Cannot transform the image {self.k_tfm} times because there is no transform: "
                "set DATALOADER.K_TRANSFORMS to 1 or give INPUT.TRANSFORMS"
            )
        interpolation = INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]
        to_tensor = [Resize(cfg.INPUT.SIZE, interpolation), ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            to_tensor.append(Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = Compose(to_tensor)

    def __len__(self):
        return len(self.data_source)

    def __getitem__(self, idx):
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        img0 = read_image(item.impath, getattr(item, "upright", False))
        if self.transform is None:
            output["img"] = img0
        else:
            tfms = self.transform if isinstance(self.transform, (list, tuple)) else [self.transform]
            for i, tfm in enumerate(tfms):
                output["img" if i == 0 else f"img{i + 1}"] = self._transform_image(tfm, img0)
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output

    def _transform_image(self, tfm, img0):
        images = [tfm(img0) for _ in range(self.k_tfm)]
        return images[0] if len(images) == 1 else images
