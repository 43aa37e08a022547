"""ImageNet-A (Hendrycks et al., CVPR 2021): natural photos of 200 ImageNet classes that misled a ResNet-50."""

from dassl.data.datasets import DATASET_REGISTRY

from .imagenet import ImageNetSubset


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetSubset):
    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
