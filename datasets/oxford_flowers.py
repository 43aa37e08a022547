"""Oxford Flowers 102 (Nilsback and Zisserman, ICVGIP 2008): flowers that are common in the United Kingdom."""

import os.path as osp

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import read_json

from .base import SingleTaskDataset, read_mat


@DATASET_REGISTRY.register()
class OxfordFlowers(SingleTaskDataset):
    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    task_name = "flower species recognition"
    template = "a photo of a {}, a type of flower."
    metric = "mean_acc"

    @classmethod
    def read_official(cls, folder):
        names_path = osp.join(folder, "cat_to_name.json")
        names = read_json(names_path)
        numbers = read_mat(osp.join(folder, "imagelabels.mat"), "labels")  # classes from 1, of images from 1
        try:
            classnames = [names[str(number)] for number in range(1, max(numbers) + 1)]
        except (KeyError, TypeError):
            raise ValueError(f"{names_path} does not name all {max(numbers)} classes of imagelabels.mat: fetch both "
                             "files again") from None
        return classnames, {"all": [(osp.join(folder, cls.image_dir, f"image_{i:05d}.jpg"), number - 1)
                                    for i, number in enumerate(numbers, 1)]}
