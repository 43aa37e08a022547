"""Classify images with the `classifier.onnx` beside this file. Needs onnxruntime, Pillow and numpy alone.

    python classifier.py IMAGE ... [--task NAME] [--topk 5]
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class Classifier:
    """An exported classifier: a softmax over the classes of each task for every image.

    Attributes:
        about: {"method", "backbone", "tasks", "preprocessing"}. Each task is {"name", "classes", "first", "end"}, where
            logits[first:end] belong to its classes.

    Args:
        folder: the one that holds `classifier.onnx`.
    """

    def __init__(self, folder):
        path = Path(folder) / "classifier.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["classifier"])

    def pixels(self, image):
        """Turn a path, PIL image or array (H, W, 3) of uint8 into what the model takes: (3, size, size), float32.

        Raises:
            ValueError: the image can't be read, is a raw photograph, or has more than 8 bits a value.
        """
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"an array must be uint8 (H, W, 3), but one is {image.dtype} {image.shape}")
            image = Image.fromarray(image)
        reading = self.about["preprocessing"]
        size, mode = reading["size"], reading["resize_mode"]
        try:
            opened = image if isinstance(image, Image.Image) else Image.open(image)
            # Pillow opens raw photographs as their thumbnail, and reduces 16-bit colours to 8 bits
            tags = getattr(opened, "tag_v2", {})
            is_raw = 50706 in tags or tags.get(254, 0) & 1 or str(image).lower().endswith(".cr2")
            is_deep = any(";16" in str(tile[3]) for tile in getattr(opened, "tile", ()))
            opened.load()
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"{image} can't be read: {error}") from error
        if reading["turned_by_exif"]:
            with contextlib.suppress(Exception):  # ignore an orientation that can't be read
                opened = ImageOps.exif_transpose(opened)
        if is_raw:
            raise ValueError(f"{image} holds a larger picture, as raw photographs do: convert it to JPEG or PNG")
        if is_deep or opened.mode.startswith(("I", "F")):
            raise ValueError(f"{image} has more than 8 bits a value: convert it to 8 bits")
        opened = opened.convert("RGB")
        if mode == "shortest":
            new = [int(size * side / min(opened.size)) for side in opened.size]
        else:
            new = [size if mode == "squash" else round(side / (max(opened.size) / size)) for side in opened.size]
        opened = opened.resize(new, Image.Resampling[reading["interpolation"].upper()])
        # Cut out the middle, or put black around it; halves are rounded as in training.
        left, top = (round(more / 2) if more > 0 else int(more / 2) for more in (new[0] - size, new[1] - size))
        values = np.asarray(opened.crop((left, top, left + size, top + size)), np.float32) / 255
        mean, std = (np.array(reading[name], np.float32) for name in ("mean", "std"))
        return ((values - mean) / std).transpose(2, 0, 1)

    def predict(self, images, task=None, topk=5):
        """Predict images: [{task: [(class, probability), ...]}], best class first.

        Args:
            images: list of paths, PIL images or arrays (H, W, 3) of uint8. task: name of one task; None: all.
            topk: most classes of each task.

        Raises:
            ValueError: there is no such task, or an image can't be read.
        """
        tasks = [about for about in self.about["tasks"] if task in (None, about["name"])]
        if not tasks:
            raise ValueError(f"there is no task {task!r}, but {', '.join(t['name'] for t in self.about['tasks'])}")
        found = []
        for image in images:
            (logits,), = self.session.run(None, {"pixels": self.pixels(image)[None]})
            found.append({})
            for about in tasks:
                own = logits[about["first"]:about["end"]].astype(np.float64)
                weights = np.exp(own - own.max())
                best = np.argsort(-weights, kind="stable")[:topk]
                found[-1][about["name"]] = [(about["classes"][c], float(weights[c] / weights.sum())) for c in best]
        return found


def main(argv=None):
    parser = argparse.ArgumentParser(description="Classify images.")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--task", help="name of the task (default: all)")
    parser.add_argument("--topk", type=int, default=5, help="classes for each image and task (default: %(default)s)")
    args = parser.parse_args(argv)
    classifier = Classifier(Path(__file__).parent)
    for image in args.images:
        try:
            found, = classifier.predict([image], args.task, args.topk)
        except ValueError as error:
            sys.exit(f"error: {error}")
        for task, classes in found.items():
            print(f"{image}\t{task}\t" + ", ".join(f"{name} {probability:.3f}" for name, probability in classes))


if __name__ == "__main__":
    main()
