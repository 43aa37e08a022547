"""Describable Textures (Cimpoi et al., CVPR 2014): photos by the word that people use for their texture."""

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset


@DATASET_REGISTRY.register()
class DescribableTextures(SingleTaskDataset):
    dataset_dir = "dtd"
    image_dir = "images"
    task_name = "texture recognition"
    template = "{} texture."
