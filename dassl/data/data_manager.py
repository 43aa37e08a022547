import torch
from tabulate import tabulate
from torch.utils.data import Dataset as TorchDataset

from common.errors import UserError
from common.images import read_image

from .datasets import build_dataset
from .samplers import build_sampler


def build_data_loader(cfg, sampler_type, data_source, batch_size, n_ins=2, tfm=None, is_train=True,
                      dataset_wrapper=None):
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
    data_loader = torch.utils.data.DataLoader(
        (dataset_wrapper or DatasetWrapper)(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=build_sampler(sampler_type, cfg=cfg, data_source=data_source, batch_size=batch_size, n_ins=n_ins),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )
    if len(data_loader) == 0:
        raise UserError(f"{sampler_type} makes no batch of {batch_size} from {len(data_source)} samples of "
                        f"{cfg.DATASET.NAME}: lower the batch size")
    return data_loader


class DataManager:
    """Builds the dataset that ``cfg`` names, with its transforms and data loaders.

    Args:
        custom_tfm_train, custom_tfm_test: used instead of the transforms that ``cfg.INPUT`` describes.
        dataset_wrapper: used instead of `DatasetWrapper`.

    Attributes:
        dataset, tfm_train, tfm_test, test_loader.
        train_loader_x, val_loader: None where the dataset has no such split.
        num_classes, lab2cname: those of the dataset.
    """

    def __init__(self, cfg, custom_tfm_train=None, custom_tfm_test=None, dataset_wrapper=None):
        from .transforms import build_transform  # torchvision is slow to import

        self.dataset = dataset = build_dataset(cfg)
        self.num_classes, self.lab2cname = dataset.num_classes, dataset.lab2cname
        self.tfm_train = custom_tfm_train or build_transform(cfg, is_train=True)
        self.tfm_test = custom_tfm_test or build_transform(cfg, is_train=False)
        train, test = cfg.DATALOADER.TRAIN_X, cfg.DATALOADER.TEST

        def test_loader(samples):
            return build_data_loader(cfg, test.SAMPLER, samples, test.BATCH_SIZE, tfm=self.tfm_test, is_train=False,
                                     dataset_wrapper=dataset_wrapper)

        self.train_loader_x = build_data_loader(
            cfg, train.SAMPLER, dataset.train_x, train.BATCH_SIZE, train.N_INS, self.tfm_train,
            dataset_wrapper=dataset_wrapper) if dataset.train_x else None
        self.val_loader = test_loader(dataset.val) if dataset.val else None
        self.test_loader = test_loader(dataset.test)
        if cfg.VERBOSE:
            counts = {split: getattr(dataset, split) for split in ("train_x", "val", "test")}
            print(tabulate([["Dataset", cfg.DATASET.NAME], ["# classes", f"{self.num_classes:,}"],
                            *([f"# {split}", f"{len(samples):,}"] for split, samples in counts.items() if samples)]))


class DatasetWrapper(TorchDataset):
    """A torch dataset over a list of `Datum`.

    An item is a dict with ``label``, ``domain``, ``impath``, ``index`` and ``img``: the transformed image, or
    without a transform the PIL image, or in training DATALOADER.K_TRANSFORMS images, if that is above 1.
    With a list of transforms the others' images are ``img2``, ``img3`` ...
    With DATALOADER.RETURN_IMG0, ``img0`` is the image resized and normalised only.
    """

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor  # slow to import

        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform  # one transform, or a list or tuple of them
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise UserError(f"Cannot transform the image {self.k_tfm} times because there is no transform: "
                            "set DATALOADER.K_TRANSFORMS to 1 or give INPUT.TRANSFORMS")
        to_tensor = [Resize(cfg.INPUT.SIZE, InterpolationMode(cfg.INPUT.INTERPOLATION)), ToTensor()]
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
                images = [tfm(img0) for _ in range(self.k_tfm)]
                output["img" if i == 0 else f"img{i + 1}"] = images[0] if len(images) == 1 else images
        if self.return_img0:
            output["img0"] = self.to_tensor(img0)
        return output
