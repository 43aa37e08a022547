"""ImageNetV2 (Recht et al., ICML 2019), matched frequency: new test images for ImageNet's 1,000 classes."""

import os.path as osp

from dassl.data.datasets import DATASET_REGISTRY

from .files import read_class_folders
from .imagenet import CLASS_NAMES, ImageNetClasses
from .sources import Source


@DATASET_REGISTRY.register()
class ImageNetV2(ImageNetClasses):
    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    sources = (Source("https://github.com/modestyachts/ImageNetV2", folders=(image_dir,),
                      url="https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/"
                          "imagenetv2-matched-frequency.tar.gz",
                      checksum="sha256:f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c"),
               CLASS_NAMES)
    test_only = True
    image_count = (10000,)
    images_per_class = (10, 10)

    @classmethod
    def read_official(cls, folder):
        names = cls.read_names(folder)
        labels = [str(label) for label in range(len(names))]  # its class folders are named 0, 1, 2 ...
        return names.values(), {"test": read_class_folders(osp.join(folder, cls.image_dir), labels)}
