"""ImageNet (Deng et al., CVPR 2009), tested on its validation images, and what its shifted test sets share."""

import os.path as osp

from dassl.data.datasets import DATASET_REGISTRY

from .base import SingleTaskDataset, find_class_folders, parse_lines, read_class_folders


class ImageNetClasses(SingleTaskDataset):
    """The task of ImageNet and its shifted test sets; class names by WordNet id stand in CoOp's `classnames.txt`."""

    task_name = "object recognition"
    template = "a photo of a {}."
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
    image_dir = "images"

    @classmethod
    def read_official(cls, folder):
        names = cls.read_names(folder)
        images = osp.join(folder, cls.image_dir)
        return names.values(), {"train": read_class_folders(osp.join(images, "train"), names),
                                "test": read_class_folders(osp.join(images, "val"), names)}


class ImageNetSubset(ImageNetClasses):
    """A shifted test set whose classes are those of ImageNet's that have a folder."""

    test_only = True

    @classmethod
    def read_official(cls, folder):
        names = cls.read_names(folder)
        images = osp.join(folder, cls.image_dir)
        classes = find_class_folders(images)
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise ValueError(f"{images}/{unknown[0]} is no class of {folder}/classnames.txt: move it away, or put the "
                             "complete classnames.txt of ImageNet there")
        return [names[name] for name in classes], {"test": read_class_folders(images, classes)}
