import torch
from torchvision import transforms as T
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode

from common.errors import UserError

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "random_crop",
    "center_crop",  # part of every test transform; has no effect in training
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]


def build_transform(cfg, is_train=True, choices=None):
    """Make the image transform (PIL image -> float tensor (3, H, W)) that ``cfg.INPUT`` describes.

    Args:
        is_train: augment; otherwise resize as INPUT.RESIZE_MODE says: by default the shorter side to max(SIZE), and
            crop SIZE from the middle.
        choices: transform names to use instead of ``cfg.INPUT.TRANSFORMS``.

    Returns:
        The transform, or None with ``cfg.INPUT.NO_TRANSFORM``.

    Raises:
        ValueError: an unknown transform or interpolation.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        if choice not in AVAI_CHOICES:
            raise UserError(f'INPUT.TRANSFORMS has the unknown "{choice}": choose from {AVAI_CHOICES}')
    if cfg.INPUT.INTERPOLATION not in INTERPOLATION_MODES:
        raise UserError(
            f'INPUT.INTERPOLATION is "{cfg.INPUT.INTERPOLATION}": choose from {list(INTERPOLATION_MODES)}'
        )
    stages = _train_stages(cfg.INPUT, choices) if is_train else _test_stages(cfg.INPUT, choices)
    if cfg.VERBOSE:
        print(f"Building transform_{'train' if is_train else 'test'}")
        for stage in stages:
            print(f"+ {stage if isinstance(stage, torch.nn.Module) else type(stage).__name__}")
    return T.Compose(stages)


def _train_stages(options, choices):
    """Upstream's order: geometry, colours, tensor, normalisation."""
    height, width = options.SIZE
    interpolation = INTERPOLATION_MODES[options.INTERPOLATION]
    stages = []
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        stages.append(T.Resize((height, width), interpolation=interpolation))
    # name -> transform of PIL images, in the order in which they are applied
    augmentations = {
        "random_crop": lambda: T.RandomCrop((height, width), padding=options.CROP_PADDING),
        "random_resized_crop": lambda: T.RandomResizedCrop(
            (height, width), scale=options.RRCROP_SCALE, interpolation=interpolation
        ),
        "random_flip": lambda: T.RandomHorizontalFlip(),
        "imagenet_policy": lambda: T.AutoAugment(AutoAugmentPolicy.IMAGENET),
        "cifar10_policy": lambda: T.AutoAugment(AutoAugmentPolicy.CIFAR10),
        "svhn_policy": lambda: T.AutoAugment(AutoAugmentPolicy.SVHN),
        "randaugment": lambda: T.RandAugment(options.RANDAUGMENT_N, options.RANDAUGMENT_M),
        "colorjitter": lambda: T.ColorJitter(
            options.COLORJITTER_B, options.COLORJITTER_C, options.COLORJITTER_S, options.COLORJITTER_H
        ),
        "randomgrayscale": lambda: T.RandomGrayscale(p=options.RGS_P),
        "gaussian_blur": lambda: T.RandomApply([T.GaussianBlur(options.GB_K)], p=options.GB_P),
    }
    stages += [make() for name, make in augmentations.items() if name in choices]
    stages.append(T.ToTensor())
    if "normalize" in choices:
        stages.append(T.Normalize(mean=options.PIXEL_MEAN, std=options.PIXEL_STD))
    return stages


def _test_stages(options, choices):
    interpolation = INTERPOLATION_MODES[options.INTERPOLATION]
    if options.RESIZE_MODE == "squash":
        stages = [T.Resize(options.SIZE, interpolation)]
    elif options.RESIZE_MODE == "longest":  # torchvision's rounds the shorter side in another way
        from open_clip.transform import CenterCropOrPad, ResizeKeepRatio

        stages = [ResizeKeepRatio(options.SIZE, longest=1, interpolation=interpolation), CenterCropOrPad(options.SIZE)]
    else:
        stages = [T.Resize(max(options.SIZE), interpolation), T.CenterCrop(options.SIZE)]
    stages.append(T.ToTensor())
    if "normalize" in choices:
        stages.append(T.Normalize(mean=options.PIXEL_MEAN, std=options.PIXEL_STD))
    return stages
