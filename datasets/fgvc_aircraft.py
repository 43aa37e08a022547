"""FGVC-Aircraft (Maji et al., arXiv 1306.5151): aircraft by variant, with the official train, val and test lists."""

import os.path as osp

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset
from .files import PARTS, parse_lines, read_list
from .sources import Source


@DATASET_REGISTRY.register()
class FGVCAircraft(SingleTaskDataset):
    dataset_dir = "fgvc_aircraft"
    image_dir = "images"
    sources = (Source("https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/", folders=(image_dir,),
                      files=("variants.txt", *map("images_variant_{}.txt".format, PARTS)),
                      url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"),)
    class_count = 100
    image_count = (10000,)
    images_per_class = (100, 100)
    task_name = "aircraft model recognition"
    template = "a photo of a {}, a type of aircraft."
    metric = "mean_acc"

    @classmethod
    def read_official(cls, folder):
        def parse(line):
            number, variant = line.split(" ", 1)
            return osp.join(folder, cls.image_dir, f"{number}.jpg"), variant

        variants = parse_lines(osp.join(folder, "variants.txt"), str)
        return variants, {part: read_list(osp.join(folder, f"images_variant_{part}.txt"), parse, variants)
                          for part in PARTS}
