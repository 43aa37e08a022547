"""Food-101 (Bossard et al., ECCV 2014): photos of dishes."""

from dassl.data.datasets import DATASET_REGISTRY

from .class_folders import ClassFolders
from .sources import Source


@DATASET_REGISTRY.register()
class Food101(ClassFolders):
    dataset_dir = "food-101"
    image_dir = "images"
    sources = (Source("https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/", folders=(image_dir,),
                      url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                      checksum="md5:85eeb15f3717b99a5da872d97d918f87"),)
    split_zhou = True
    class_count = 101
    image_count = (101000,)
    images_per_class = (1000, 1000)
    task_name = "food recognition"
    template = "a photo of {}, a type of food."
