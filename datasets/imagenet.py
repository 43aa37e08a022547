"""ImageNet (Deng et al., CVPR 2009), tested on its validation images, and its shifted test sets."""

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
    class_count = 1000
    repeated_names = True  # CLIP's names of ImageNet's classes have "missile" and "sunglasses" twice

    @staticmethod
    def read_names(folder):
        """Read {WordNet id: class name} in the order of `classnames.txt`, which is that of ImageNet's labels."""
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


class ShiftedTestSet(ImageNetClasses):
    """New test images for ImageNet's classes."""

    test_only = True

    @classmethod
    def read_official(cls, folder):
        images = osp.join(folder, cls.image_dir)
        classes = cls.name_folders(images, cls.read_names(folder))
        return classes.values(), {"test": read_class_folders(images, classes)}

    @classmethod
    def name_folders(cls, images, names):
        """Return {class folder: class name} in the order of labels, from {WordNet id: class name}."""
        return names


class ImageNetSubset(ShiftedTestSet):
    """A shifted test set of some of ImageNet's classes: those that have a folder."""

    class_count = 200

    @classmethod
    def name_folders(cls, images, names):
        classes = find_class_folders(images)
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise UserError(f"{images}/{unknown[0]} is no class of classnames.txt: move it away, or put the complete "
                            "classnames.txt of ImageNet there")
        return {name: names[name] for name in classes}


@DATASET_REGISTRY.register()
class ImageNetV2(ShiftedTestSet):
    """ImageNetV2 (Recht et al., ICML 2019), matched frequency: new test images for ImageNet's 1,000 classes."""

    dataset_dir = "imagenetv2"
    image_dir = "imagenetv2-matched-frequency-format-val"
    sources = (Source("https://github.com/modestyachts/ImageNetV2", folders=(image_dir,),
                      url="https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/"
                          "imagenetv2-matched-frequency.tar.gz",
                      checksum="sha256:f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c"),
               CLASS_NAMES)
    image_count = (10000,)
    images_per_class = (10, 10)

    @classmethod
    def name_folders(cls, images, names):
        return {str(label): name for label, name in enumerate(names.values())}


@DATASET_REGISTRY.register()
class ImageNetSketch(ShiftedTestSet):
    """ImageNet-Sketch (Wang et al., NeurIPS 2019): black-and-white sketches of ImageNet's 1,000 classes."""

    dataset_dir = "imagenet-sketch"
    image_dir = "images"
    sources = (Source("https://github.com/HaohanWang/ImageNet-Sketch", folders=(image_dir,),
                      note="ImageNet-Sketch.zip (Google Drive), whose folder `sketch` becomes `images`"),
               CLASS_NAMES)
    image_count = (50889,)


@DATASET_REGISTRY.register()
class ImageNetA(ImageNetSubset):
    """ImageNet-A (Hendrycks et al., CVPR 2021): natural photos of 200 ImageNet classes that misled a ResNet-50."""

    dataset_dir = "imagenet-adversarial"
    image_dir = "imagenet-a"
    image_count = (7500,)
    sources = (Source("https://github.com/hendrycks/natural-adv-examples", folders=(image_dir,),
                      url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
                      checksum="sha256:3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e"),
               CLASS_NAMES)


@DATASET_REGISTRY.register()
class ImageNetR(ImageNetSubset):
    """ImageNet-R (Hendrycks et al., ICCV 2021): art, cartoons, toys and other renditions of 200 ImageNet classes."""

    dataset_dir = "imagenet-rendition"
    image_dir = "imagenet-r"
    image_count = (30000,)
    sources = (Source("https://github.com/hendrycks/imagenet-r", folders=(image_dir,),
                      url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
                      checksum="sha256:18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52"),
               CLASS_NAMES)
