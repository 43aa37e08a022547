"""Outfits16: sixteen related few-shot tasks on figures that are rendered on first use, without a download."""

import os
import os.path as osp
import shutil

from filelock import FileLock
from PIL import Image

from common.errors import UserError
from common.files import read_json, write_json
from dassl.data.datasets import DATASET_REGISTRY
from outfits.render import render
from outfits.scenes import ASPECTS, VALUES
from outfits.suite import STYLES, VERSION, scene_of

from .base import MultiTaskDataset, Task, TaskData
from .files import list_images

IMAGES_PER_CLASS = {"train": 24, "val": 6, "test": 40}

TASKS = tuple(Task(f"{part} {attribute}", VALUES[attribute], "a photo of a {}.") for part, attribute in ASPECTS)


def image_folder(images, task, part, label):
    """Return the folder below `images` of a class's images of a part; task and label are indices."""
    name = TASKS[task].name.replace(" ", "_")
    return osp.join(images, name, part, TASKS[task].classnames[label].replace(" ", "_"))


def generate(images):
    """Make the folder `images` with all images of the suite, unless it exists.

    The images are written to the folder `images.incomplete` beside it, which is renamed when it is complete, so an
    interrupted run leaves no `images`. If two runs start together, one writes and the other waits.

    Raises:
        UserError: another version of this generator made the folder.
    """
    stamp = {"generator": "outfits16", "version": VERSION, "images_per_class": IMAGES_PER_CLASS}
    if not osp.isdir(images):
        os.makedirs(osp.dirname(images), exist_ok=True)
        with FileLock(osp.join(osp.dirname(images), ".images.lock")):
            if not osp.isdir(images):
                print(f"Outfits16: generating images in {images}")
                unfinished = f"{images}.incomplete"
                shutil.rmtree(unfinished, ignore_errors=True)  # a killed run left it
                try:
                    write_images(unfinished)
                    write_json(stamp, osp.join(unfinished, "stamp.json"))
                    os.rename(unfinished, images)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    path = osp.join(images, "stamp.json")
    if not osp.isfile(path) or read_json(path) != stamp:
        raise UserError(f"{images} was not made by version {VERSION} of Outfits16: delete the folder "
                        f"{osp.dirname(images)}, and it is made anew")


def write_images(images):
    """Render every image of the suite below the folder `images`."""
    for task in range(len(TASKS)):
        for part, count in IMAGES_PER_CLASS.items():
            for label in range(len(TASKS[task].classnames)):
                folder = image_folder(images, task, part, label)
                os.makedirs(folder)
                for number in range(count):
                    image = render(scene_of(task, part, label, number), STYLES[part])
                    Image.fromarray(image).save(osp.join(folder, f"{number:03d}.png"), compress_level=1)


@DATASET_REGISTRY.register()
class Outfits16(MultiTaskDataset):
    """Sixteen tasks on rendered figures of 64x64 pixels; 56 classes of 24 training, 6 validation and 40 test images.

    A task asks for the colour, the pattern, the length or the width of one of four garments, and has its class names in
    common with the other three: only its own name says which garment counts. The images are generated under
    `<root>/outfits16/images` when they are first asked for (seconds), and the root folder is made if need be. All of
    them look different from those `tiny` was trained on: darker, paler, warmer, noisier, blurred, lit from one corner
    (`TRAIN_STYLE`, `TEST_STYLE`). No class changes when an image is flipped left to right.
    """

    dataset_dir = "outfits16"

    @classmethod
    def find_folder(cls, root):
        if root:
            folder = osp.join(osp.abspath(osp.expanduser(root)), cls.dataset_dir)
            generate(osp.join(folder, "images"))
        return super().find_folder(root)

    @classmethod
    def read(cls, folder, cfg):
        images = osp.join(folder, "images")

        def part_of(task, part):
            return [(path, label) for label in range(len(TASKS[task].classnames))
                    for path in list_images(image_folder(images, task, part, label))]

        return [TaskData(TASKS[task], *(part_of(task, part) for part in IMAGES_PER_CLASS))
                for task in range(len(TASKS))]
