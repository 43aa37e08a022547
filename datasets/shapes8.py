"""Shapes8: eight related few-shot tasks on rendered scenes. It makes itself, so the repository runs offline."""

import glob
import json
import os
import os.path as osp
import shutil
import tempfile
from zlib import crc32

import numpy as np
from filelock import FileLock
from PIL import Image

from dassl.data.datasets import DATASET_REGISTRY
from dassl.errors import UserError
from shapes.render import render
from shapes.scenes import Style, pick, random_scene

from .base import MultiTaskDataset, Task, TaskData
from .files import list_images

VERSION = 2  # raise it whenever an image changes: folders made by another version are refused
IMAGES_PER_CLASS = {"train": 24, "val": 6, "test": 40}
INCOMPLETE = "images.incomplete-"  # how the names of folders begin that are being written
FEW = (1, 2)  # objects where a single one must be seen well

# Few-shot training, validation and test images all look different from what the encoder `tiny` was trained on: darker,
# paler, warmer, noisier and blurred, lit from one corner. Test images are a little further off, with smaller objects.
TRAIN_STYLE = Style(size=(0.1, 0.9), gain=(0.8, 1.0), gamma=(1.0, 1.3), cast=(1.04, 1.0, 0.90),
                    saturation=(0.6, 0.85), noise=(0.02, 0.06), blur=(0.1, 0.2), shadow=(0.1, 0.35))
TEST_STYLE = Style(size=(0.0, 0.8), gain=(0.8, 1.0), gamma=(1.0, 1.3), cast=(1.04, 1.0, 0.90),
                   saturation=(0.6, 0.85), noise=(0.02, 0.07), blur=(0.1, 0.22), shadow=(0.15, 0.4))
STYLES = {"train": TRAIN_STYLE, "val": TRAIN_STYLE, "test": TEST_STYLE}

# (task name, template, the scene's attribute, {class name: its value}, counts of objects or None for any).
# About half of the class names are words that captions seldom use for the value.
DECLARATIONS = (
    ("object shape recognition", "a photo of a {}.", "shape",
     {"disc": "circle", "square": "square", "wedge": "triangle", "pentagram": "star", "cross": "cross",
      "hoop": "ring", "valentine": "heart", "crescent": "crescent"}, FEW),
    ("object colour recognition", "a photo of a {}.", "colour",
     {"crimson": "red", "orange": "orange", "lemon": "yellow", "green": "green", "azure": "blue", "purple": "purple",
      "rose": "pink", "ivory": "white"}, None),
    ("object counting", "a photo of a {}.", "count",
     {"single": 1, "two": 2, "trio": 3, "four": 4, "quintet": 5}, None),
    ("background recognition", "a photo of a {}.", "background",
     {"meadow": "grass", "sand": "sand", "ocean": "water", "masonry": "bricks", "stars": "stars at night",
      "ice": "snow", "timber": "wood", "clouds": "clouds"}, None),
    ("surface pattern recognition", "a photo of a {}.", "pattern",
     {"solid": "plain", "striped": "striped", "spotted": "dotted", "checkered": "checkered", "gradient": "shaded",
      "hatched": "hatched"}, FEW),
    ("object position recognition", "a photo of a {}.", "position",
     {"top": "top", "lower": "bottom", "middle": "centre", "edge": "side", "corner": "corner"}, None),
    ("weather recognition", "a photo of a {}.", "weather",
     {"sunny": "clear", "mist": "fog", "rain": "rain", "blizzard": "snowfall", "dusk": "dusk"}, None),
    ("object arrangement recognition", "a photo of a {}.", "arrangement",
     {"line": "row", "stack": "column", "diagonal": "diagonal", "ring": "ring", "pile": "cluster"}, None),
)
TASKS = tuple(Task(name, tuple(classes), template) for name, template, _, classes, _ in DECLARATIONS)


def scene_of(task, part, label, number):
    """The scene of one image: task and class by index, `part` of train, val, test, and the image's number.

    A class fixes its attribute; the others are drawn independently.
    """
    _, _, attribute, classes, counts = DECLARATIONS[task]
    code = crc32(f"shapes8/{VERSION}/{task}/{part}/{label}/{number}".encode())
    rng = np.random.RandomState((code, 8))
    fixed = {attribute: tuple(classes.values())[label]}
    if counts:
        fixed["count"] = pick(rng, counts)
    # seeds from 2**31 on are never used for the encoder's training scenes
    return random_scene(rng, 2**31 + code % 2**31, STYLES[part], **fixed)


def image_folder(images, task, part, label):
    name = TASKS[task].name.replace(" ", "_")
    return osp.join(images, name, part, TASKS[task].classnames[label].replace(" ", "_"))


def generate(images):
    """Make the folder `images` with all images of the suite, unless it is there.

    Everything is written to a folder `images.incomplete-*` beside it that is renamed when it is complete, so an
    interrupted run leaves no `images`. Of two runs at once one writes and the other waits; the one that writes first
    removes what killed runs left.

    Raises:
        UserError: the folder was made by another version of this generator.
    """
    stamp = {"generator": "shapes8", "version": VERSION, "images_per_class": IMAGES_PER_CLASS}
    if not osp.isdir(images):
        parent = osp.dirname(images)
        os.makedirs(parent, exist_ok=True)
        with FileLock(osp.join(parent, ".images.lock")):  # its holder is the only one at work here
            for leftover in glob.glob(osp.join(glob.escape(parent), f"{INCOMPLETE}*")):
                shutil.rmtree(leftover, ignore_errors=True)
            if not osp.isdir(images):
                print(f"Shapes8: generating images in {images}")
                temporary = tempfile.mkdtemp(prefix=INCOMPLETE, dir=parent)
                try:
                    write_images(temporary)
                    with open(osp.join(temporary, "stamp.json"), "w", encoding="utf-8") as f:
                        json.dump(stamp, f)
                    os.chmod(temporary, 0o755)
                    os.rename(temporary, images)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    path = osp.join(images, "stamp.json")
    found = None
    if osp.isfile(path):
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
    if found != stamp:
        raise UserError(f"{images} was not made by version {VERSION} of Shapes8: delete the folder "
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
class Shapes8(MultiTaskDataset):
    """Eight tasks on rendered scenes of 64x64 pixels; 50 classes of 24 training, 6 validation and 40 test images.

    The images are generated under `<root>/shapes8/images` when they are first asked for (seconds), and the root
    folder is made if need be. Every image shows all attributes, each drawn independently, so only the task says which
    one counts. All images look different from those `tiny` was trained on: darker, paler, warmer, noisier, blurred,
    lit from one corner (`TRAIN_STYLE`); test images are a little further off, with smaller objects (`TEST_STYLE`).
    No class changes when an image is flipped left to right.
    """

    dataset_dir = "shapes8"

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
