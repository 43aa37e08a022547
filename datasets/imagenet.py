"""ImageNet (Deng et al., CVPR 2009), tested on its validation images, and what its shifted test sets share."""

import os.path as osp

from common.errors import UserError
from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset
from .files import find_class_folders, parse_lines, read_class_folders, read_many_class_folders
from .sources import COOP, Source

# CLIP's class names; the same file for ImageNet and its shifted test sets.
CLASS_NAMES = Source(COOP, files=("classnames.txt",), note="the file classnames.txt, offered there for ImageNet")


class ImageNetClasses(SingleTaskDataset):
    """The task of ImageNet and its shifted test sets; class names by WordNet id stand in CoOp's `classnames.txt`."""

    task_name = "object recognition"
    template = "a photo of a {}."
    class_count = 1000
    repeated_names = True  # CLIP's names of ImageNet's classes have "missile" and "sunglasses" twice

    @staticmethod
    def read_names(folder):
        """{WordNet id: class name} in the order of `classnames.txt`, which is that of ImageNet's labels."""
        def parse(line):  # "n01440764 tench"
            wordnet_id, name = line.split(" ", 1)
            return wordnet_id, name

        return dict(parse_lines(osp.join(folder, "classnames.txt"), parse))


@DATASET_REGISTRY.register()
class ImageNet(ImageNetClasses):
    dataset_dir = "imagenet"
    image_count = (1331167,)
    image_dir = "images"
    sources = (Source("https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
                      folders=("images/train", "images/val"),
                      note="ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (an account is needed), unpacked to a "
                           "folder n01440764 ... for each class"),
               CLASS_NAMES)

    @classmethod
    def read_official(cls, folder):
        names = cls.read_names(folder)
        images = osp.join(folder, cls.image_dir)
        train, val = read_many_class_folders([(osp.join(images, part), names) for part in ("train", "val")])
        return names.values(), {"train": train, "test": val}


class ImageNetSubset(ImageNetClasses):
    """A shifted test set whose classes are those of ImageNet's that have a folder."""

    class_count = 200
    test_only = True

    @classmethod
    def read_official(cls, folder):
        names = cls.read_names(folder)
        images = osp.join(folder, cls.image_dir)
        classes = find_class_folders(images)
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise UserError(f"{images}/{unknown[0]} is no class of {folder}/classnames.txt: move it away, or put the "
                             "complete classnames.txt of ImageNet there")
        return [names[name] for name in classes], {"test": read_class_folders(images, classes)}
