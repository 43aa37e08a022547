"""Food-101 (Bossard et al., ECCV 2014): photos of dishes."""

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset


@DATASET_REGISTRY.register()
class Food101(SingleTaskDataset):
    dataset_dir = "food-101"
    image_dir = "images"
    task_name = "food recognition"
    template = "a photo of {}, a type of food."
