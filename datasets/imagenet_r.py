"""ImageNet-R (Hendrycks et al., ICCV 2021): art, cartoons, toys and other renditions of 200 ImageNet classes."""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetSubset


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetSubset):
    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
