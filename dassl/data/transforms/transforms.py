import torch
from torchvision import transforms as T
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms import functional as TF

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",  # part of every test transform; has no effect in training
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]


class Random2DTranslation:
    """With probability ``p`` enlarge the image by 1/8 and crop (height, width) at random; else resize."""

    def __init__(self, height, width, p=0.5, interpolation=InterpolationMode.BILINEAR):
        self.height, self.width, self.p, self.interpolation = height, width, p, interpolation

    def __call__(self, img):
        size = (self.height, self.width)
        if torch.rand(()) > self.p:
            return TF.resize(img, size, self.interpolation)
        enlarged = TF.resize(img, [round(s * 1.125) for s in size], self.interpolation)
        return TF.crop(enlarged, *T.RandomCrop.get_params(enlarged, size))


class RandomMagnitudeAugment:
    """Apply ``n`` operations of RandAugment, each with probability ``p`` and a random magnitude."""

    def __init__(self, n=2, p=1.0):
        self.n, self.p = n, p

    def __call__(self, img):
        for _ in range(self.n):
            if torch.rand(()) < self.p:
                magnitude = int(torch.randint(1, 31, ()))
                img = T.RandAugment(num_ops=1, magnitude=magnitude)(img)
        return img


class Cutout:
    """Zero ``n_holes`` squares of side ``length`` pixels, cut at the border, in an image tensor (C, H, W)."""

    def __init__(self, n_holes=1, length=16):
        self.n_holes, self.length = n_holes, length

    def __call__(self, img):
        height, width = img.shape[1:]
        img = img.clone()
        for _ in range(self.n_holes):
            y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
            half = self.length // 2
            img[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
        return img


class GaussianNoise:
    """With probability ``p`` add noise of the given mean and standard deviation to an image tensor."""

    def __init__(self, mean=0.0, std=0.15, p=0.5):
        self.mean, self.std, self.p = mean, std, p

    def __call__(self, img):
        if torch.rand(()) > self.p:
            return img
        return img + torch.randn_like(img) * self.std + self.mean


class InstanceNormalization:
    """Give every channel of an image tensor (C, H, W) mean 0 and variance 1."""

    def __init__(self, eps=1e-8):
        self.eps = eps

    def __call__(self, img):
        mean = img.mean(dim=(1, 2), keepdim=True)
        std = img.std(dim=(1, 2), keepdim=True)
        return (img - mean) / (std + self.eps)


def build_transform(cfg, is_train=True, choices=None):
    """Make the image transform (PIL image -> float tensor (3, H, W)) that ``cfg.INPUT`` describes.

    Args:
        is_train: augment; otherwise resize the shorter side to max(SIZE) and crop SIZE from the middle.
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
            raise ValueError(f'INPUT.TRANSFORMS has the unknown "{choice}": choose from {AVAI_CHOICES}')
    if cfg.INPUT.INTERPOLATION not in INTERPOLATION_MODES:
        raise ValueError(
            f'INPUT.INTERPOLATION is "{cfg.INPUT.INTERPOLATION}": choose from {list(INTERPOLATION_MODES)}'
        )
    stages = _train_stages(cfg.INPUT, choices) if is_train else _test_stages(cfg.INPUT, choices)
    if cfg.VERBOSE:
        print(f"Building transform_{'train' if is_train else 'test'}")
        for stage in stages:
            print(f"+ {stage if isinstance(stage, torch.nn.Module) else type(stage).__name__}")
    return T.Compose(stages)


def _train_stages(options, choices):
    """Upstream's order: geometry, colours, tensor, then what works on tensors."""
    height, width = options.SIZE
    interpolation = INTERPOLATION_MODES[options.INTERPOLATION]
    stages = []
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        stages.append(T.Resize((height, width), interpolation=interpolation))
    # name -> transform of PIL images, in the order in which they are applied
    augmentations = {
        "random_translation": lambda: Random2DTranslation(height, width),
        "random_crop": lambda: T.RandomCrop((height, width), padding=options.CROP_PADDING),
        "random_resized_crop": lambda: T.RandomResizedCrop(
            (height, width), scale=options.RRCROP_SCALE, interpolation=interpolation
        ),
        "random_flip": lambda: T.RandomHorizontalFlip(),
        "imagenet_policy": lambda: T.AutoAugment(AutoAugmentPolicy.IMAGENET),
        "cifar10_policy": lambda: T.AutoAugment(AutoAugmentPolicy.CIFAR10),
        "svhn_policy": lambda: T.AutoAugment(AutoAugmentPolicy.SVHN),
        "randaugment": lambda: T.RandAugment(options.RANDAUGMENT_N, options.RANDAUGMENT_M),
        "randaugment_fixmatch": lambda: RandomMagnitudeAugment(options.RANDAUGMENT_N),
        "randaugment2": lambda: RandomMagnitudeAugment(options.RANDAUGMENT_N, p=0.6),
        "colorjitter": lambda: T.ColorJitter(
            options.COLORJITTER_B, options.COLORJITTER_C, options.COLORJITTER_S, options.COLORJITTER_H
        ),
        "randomgrayscale": lambda: T.RandomGrayscale(p=options.RGS_P),
        "gaussian_blur": lambda: T.RandomApply([T.GaussianBlur(options.GB_K)], p=options.GB_P),
    }
    stages += [make() for name, make in augmentations.items() if name in choices]
    stages.append(T.ToTensor())
    if "cutout" in choices:
        stages.append(Cutout(options.CUTOUT_N, options.CUTOUT_LEN))
    if "normalize" in choices:
        stages.append(T.Normalize(mean=options.PIXEL_MEAN, std=options.PIXEL_STD))
    if "gaussian_noise" in choices:
        stages.append(GaussianNoise(options.GN_MEAN, options.GN_STD))
    if "instance_norm" in choices:
        stages.append(InstanceNormalization())
    return stages


def _test_stages(options, choices):
    interpolation = INTERPOLATION_MODES[options.INTERPOLATION]
    stages = [T.Resize(max(options.SIZE), interpolation), T.CenterCrop(options.SIZE), T.ToTensor()]
    if "normalize" in choices:
        stages.append(T.Normalize(mean=options.PIXEL_MEAN, std=options.PIXEL_STD))
    if "instance_norm" in choices:
        stages.append(InstanceNormalization())
    return stages
