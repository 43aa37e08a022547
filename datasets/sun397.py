"""SUN397 (Xiao et al., CVPR 2010): scenes, with the first of the ten official train and test lists."""

import os.path as osp

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset
from .files import parse_lines, read_list
from .sources import Source

PRINCETON = "https://vision.princeton.edu/projects/2010/SUN/"


@DATASET_REGISTRY.register()
class SUN397(SingleTaskDataset):
    dataset_dir = "sun397"
    image_dir = "SUN397"
    sources = (Source(PRINCETON, folders=(image_dir,), url=f"{PRINCETON}SUN397.tar.gz",
                      checksum="md5:8ca2778205c41d23104230ba66911c7a"),
               Source(PRINCETON, files=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
                      url=f"{PRINCETON}download/Partitions.zip",
                      checksum="sha256:e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9"))
    split_zhou = True
    class_count = 397
    image_count = (39700,)  # of the lists; the archive has more
    images_per_class = (100, 100)
    task_name = "scene recognition"
    template = "a photo of a {}."

    @classmethod
    def read_official(cls, folder):
        def scene(line):  # "/a/apse/indoor" -> "apse/indoor"
            return line.strip("/").split("/", 1)[1]

        def parse(line):  # "/a/apse/indoor/sun_axwbjcmaybnsdgmv.jpg"
            return osp.join(folder, cls.image_dir, line.strip("/")), scene(osp.dirname(line))

        scenes = parse_lines(osp.join(folder, "ClassName.txt"), scene)
        names = [" ".join(reversed(name.split("/"))).replace("_", " ") for name in scenes]  # "indoor apse"
        return names, {"train": read_list(osp.join(folder, "Training_01.txt"), parse, scenes),
                       "test": read_list(osp.join(folder, "Testing_01.txt"), parse, scenes)}
