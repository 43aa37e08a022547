"""ImageNet-Sketch (Wang et al., NeurIPS 2019): black-and-white sketches of ImageNet's 1,000 classes."""

import os.path as osp

from dassl.data.datasets import DATASET_REGISTRY

from .files import read_class_folders
from .imagenet import CLASS_NAMES, ImageNetClasses
from .sources import Source


@DATASET_REGISTRY.register()
class ImageNetSketch(ImageNetClasses):
    dataset_dir = "imagenet-sketch"
    image_dir = "images"
    sources = (Source("https://github.com/HaohanWang/ImageNet-Sketch", folders=(image_dir,),
                      note="ImageNet-Sketch.zip (Google Drive), whose folder `sketch` becomes `images`"),
               CLASS_NAMES)
    test_only = True
    image_count = (50889,)

    @classmethod
    def read_official(cls, folder):
        names = cls.read_names(folder)
        return names.values(), {"test": read_class_folders(osp.join(folder, cls.image_dir), names)}
