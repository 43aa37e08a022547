"""Oxford-IIIT Pets (Parkhi et al., CVPR 2012): breeds of cats and dogs, with the official trainval and test lists."""

import os.path as osp

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset
from .files import parse_lines, read_list
from .sources import Source

VGG = "https://www.robots.ox.ac.uk/~vgg/data/pets/"


@DATASET_REGISTRY.register()
class OxfordPets(SingleTaskDataset):
    dataset_dir = "oxford_pets"
    image_dir = "images"
    sources = (Source(VGG, folders=(image_dir,), url=f"{VGG}data/images.tar.gz",
                      checksum="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c"),
               Source(VGG, files=("annotations/trainval.txt", "annotations/test.txt"),
                      url=f"{VGG}data/annotations.tar.gz", checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f"))
    split_zhou = True
    class_count = 37
    image_count = (7349,)
    task_name = "pet breed recognition"
    template = "a photo of a {}, a type of pet."
    metric = "mean_acc"

    @classmethod
    def read_official(cls, folder):
        def parse(line):  # "american_bulldog_100 2 2 1": image, number of the breed, species, number within it
            image, number = line.split()[:2]
            breed = image.rsplit("_", 1)[0].replace("_", " ").lower()
            return osp.join(folder, cls.image_dir, f"{image}.jpg"), (int(number), breed)

        trainval, test = (osp.join(folder, "annotations", name) for name in ("trainval.txt", "test.txt"))
        breeds = sorted({breed for _, breed in parse_lines(trainval, parse)})
        return [name for _, name in breeds], {"train": read_list(trainval, parse, breeds),
                                              "test": read_list(test, parse, breeds)}
