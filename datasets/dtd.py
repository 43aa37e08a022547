"""Describable Textures (Cimpoi et al., CVPR 2014): photos by the word that people use for their texture."""

from dassl.data.datasets import DATASET_REGISTRY

from .class_folders import ClassFolders
from .sources import Source


@DATASET_REGISTRY.register()
class DescribableTextures(ClassFolders):
    dataset_dir = "dtd"
    image_dir = "images"
    sources = (Source("https://www.robots.ox.ac.uk/~vgg/data/dtd/", folders=(image_dir,),
                      url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
                      checksum="md5:fff73e5086ae6bdbea199a49dfb8a4c1"),)
    split_zhou = True
    class_count = 47
    image_count = (5640,)
    images_per_class = (120, 120)
    task_name = "texture recognition"
    template = "{} texture."
