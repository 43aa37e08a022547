"""Oxford Flowers 102 (Nilsback and Zisserman, ICVGIP 2008): flowers that are common in the United Kingdom."""

import os.path as osp

from common.errors import UserError
from common.files import read_json
from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset
from .files import read_mat
from .sources import COOP, Source

VGG = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"


@DATASET_REGISTRY.register()
class OxfordFlowers(SingleTaskDataset):
    dataset_dir = "oxford_flowers"
    image_dir = "jpg"
    sources = (Source(VGG, folders=(image_dir,), url=f"{VGG}102flowers.tgz",
                      checksum="md5:52808999861908f626f3c1f4e79d11fa"),
               Source(VGG, files=("imagelabels.mat",), url=f"{VGG}imagelabels.mat",
                      checksum="md5:e0620be6f572b9609742df49c70aed4d"),
               Source(COOP, files=("cat_to_name.json",), note="the file cat_to_name.json"))
    split_zhou = True
    class_count = 102
    image_count = (8189,)
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
            raise UserError(f"{names_path} does not name all {max(numbers)} classes of imagelabels.mat: fetch both "
                             "files again") from None
        return classnames, {"all": [(osp.join(folder, cls.image_dir, f"image_{i:05d}.jpg"), number - 1)
                                    for i, number in enumerate(numbers, 1)]}
