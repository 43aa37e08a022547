import torch
from torchvision import transforms as T
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode

from ...utils import check_availability

# Transforms of PIL images by name, in the order in which they are applied (upstream's); `options` is ``cfg.INPUT``.
AUGMENTATIONS = {
    "random_crop": lambda options: T.RandomCrop(tuple(options.SIZE), padding=options.CROP_PADDING),
    "random_resized_crop": lambda options: T.RandomResizedCrop(
        tuple(options.SIZE), scale=options.RRCROP_SCALE, interpolation=InterpolationMode(options.INTERPOLATION)),
    "random_flip": lambda options: T.RandomHorizontalFlip(),
    "imagenet_policy": lambda options: T.AutoAugment(AutoAugmentPolicy.IMAGENET),
    "cifar10_policy": lambda options: T.AutoAugment(AutoAugmentPolicy.CIFAR10),
    "svhn_policy": lambda options: T.AutoAugment(AutoAugmentPolicy.SVHN),
    "randaugment": lambda options: T.RandAugment(options.RANDAUGMENT_N, options.RANDAUGMENT_M),
    "colorjitter": lambda options: T.ColorJitter(
        options.COLORJITTER_B, options.COLORJITTER_C, options.COLORJITTER_S, options.COLORJITTER_H),
    "randomgrayscale": lambda options: T.RandomGrayscale(p=options.RGS_P),
    "gaussian_blur": lambda options: T.RandomApply([T.GaussianBlur(options.GB_K)], p=options.GB_P),
}
# center_crop is part of every test transform and has no effect in training
AVAI_CHOICES = [*AUGMENTATIONS, "normalize", "center_crop"]


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
    options = cfg.INPUT
    if options.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    choices = options.TRANSFORMS if choices is None else choices
    for choice in choices:
        check_availability(choice, AVAI_CHOICES, "a name in INPUT.TRANSFORMS")
    interpolation = InterpolationMode(options.INTERPOLATION)
    if not is_train:
        stages = _resize_for_test(options, interpolation)
    else:
        stages = [make(options) for name, make in AUGMENTATIONS.items() if name in choices]
        if "random_crop" not in choices and "random_resized_crop" not in choices:
            stages.insert(0, T.Resize(tuple(options.SIZE), interpolation=interpolation))
    stages.append(T.ToTensor())
    if "normalize" in choices:
        stages.append(T.Normalize(mean=options.PIXEL_MEAN, std=options.PIXEL_STD))
    if cfg.VERBOSE:
        print(f"Building transform_{'train' if is_train else 'test'}")
        for stage in stages:
            print(f"+ {stage if isinstance(stage, torch.nn.Module) else type(stage).__name__}")
    return T.Compose(stages)


def _resize_for_test(options, interpolation):
    if options.RESIZE_MODE == "squash":
        return [T.Resize(options.SIZE, interpolation)]
    if options.RESIZE_MODE == "longest":  # torchvision's rounds the shorter side in another way
        from open_clip.transform import CenterCropOrPad, ResizeKeepRatio

        return [ResizeKeepRatio(options.SIZE, longest=1, interpolation=interpolation), CenterCropOrPad(options.SIZE)]
    return [T.Resize(max(options.SIZE), interpolation), T.CenterCrop(options.SIZE)]
