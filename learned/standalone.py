"""Classify images with the model beside this file, as a CSV table or a line of JSON for each image and task.

    python classifier.py IMAGE ... [--task NAME] [--topk 5] [--json] [--min-probability P] [--torch]

`classifier.onnx` needs onnxruntime, Pillow and numpy alone; with --torch, `classifier.pt2` needs PyTorch, Pillow and
numpy alone, and computes on a GPU where there is one.
"""

import argparse
import contextlib
import csv
import itertools
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

LAYOUT = 1  # version of the metadata's layout
ABOUT = "classifier"  # name of the metadata in a model
BATCH = 32  # images that are classified at once


def load_onnx(path):
    """What maps pixels (n, 3, size, size) to logits (n, n_cls), both float32 arrays, and the metadata as JSON."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return (lambda pixels: session.run(None, {"pixels": pixels})[0],
            session.get_modelmeta().custom_metadata_map.get(ABOUT, "{}"))


def load_torch(path):
    """As `load_onnx`, by PyTorch, on a GPU where there is one."""
    import torch
    from torch.export.passes import move_to_device_pass

    about, device = {ABOUT: ""}, "cuda" if torch.cuda.is_available() else "cpu"
    model = move_to_device_pass(torch.export.load(path, extra_files=about), device).module()

    def logits(pixels):
        # TF32, which convolutions have by default, would keep three digits.
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return model(torch.from_numpy(pixels).to(device)).cpu().numpy()

    return logits, about[ABOUT]


class Classifier:
    """An exported classifier: a softmax over the classes of each task for every image.

    Attributes:
        logits: maps pixels (n, 3, size, size) to logits (n, n_cls), both float32 arrays. They are already divided by
            the temperatures.
        about: {"layout", "method", "backbone", "calibrated", "tasks", "preprocessing"}. Each task is {"name",
            "classes", "first", "end", "temperature"}, where logits[:, first:end] belong to its classes. `calibrated`
            says whether temperatures were fitted; else they are 1.

    Args:
        folder: the one that holds `classifier.onnx` or, with `torch`, `classifier.pt2`.

    Raises:
        ValueError: the model is not there, or has another layout of the metadata than this file reads.
    """

    def __init__(self, folder, torch=False):
        path = Path(folder) / ("classifier.pt2" if torch else "classifier.onnx")
        if not path.exists():
            raise ValueError(f"{path} is not there" + ": export the run with --torch" * torch)
        self.logits, about = (load_torch if torch else load_onnx)(path)
        self.about = json.loads(about)
        if self.about.get("layout") != LAYOUT:
            raise ValueError(f"{path} has metadata of layout {self.about.get('layout')}, and this classifier.py reads "
                             f"layout {LAYOUT}: take both files of the same export")

    def pixels(self, image):
        """Turn a path, PIL image or array (H, W, 3), uint8, into what the model takes: (3, size, size), float32.

        Raises:
            ValueError: the image can't be read, is a raw photograph, has more than 8 bits a value, or is another array.
        """
        reading = self.about["preprocessing"]
        size, mode = reading["size"], reading["resize_mode"]
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise ValueError(f"an array must be (H, W, 3), uint8, not {image.shape}, {image.dtype}")
            image = Image.fromarray(image)
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
            images: list of paths, PIL images or arrays (H, W, 3), uint8, of any sizes.
            task: name of one task; None: all. topk: most classes of each.

        Raises:
            ValueError: there is no such task, or an image can't be read.
        """
        found = list(self.stream(images, self.tasks_named(task), topk))
        for result in found:
            if isinstance(result, ValueError):
                raise result
        return found

    def tasks_named(self, name):
        """The tasks of `about` that are called `name`, or with None all of them.

        Raises:
            ValueError: there is none.
        """
        found = [task for task in self.about["tasks"] if name in (None, task["name"])]
        if not found:
            raise ValueError(f"there is no task {name!r}, but {', '.join(t['name'] for t in self.about['tasks'])}")
        return found

    def stream(self, images, tasks, topk):
        """Yield for each image what `predict` returns, or the ValueError that says why it can't be read."""
        def read(image):
            try:
                return self.pixels(image)
            except ValueError as error:
                return error

        images = iter(images)
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
            while batch := list(pool.map(read, itertools.islice(images, BATCH))):
                pixels = [found for found in batch if not isinstance(found, ValueError)]
                rows = iter(self.logits(np.stack(pixels)) if pixels else ())
                for found in batch:
                    yield found if isinstance(found, ValueError) else {
                        task["name"]: ranked(row[task["first"]:task["end"]], task["classes"], topk)
                        for row in [next(rows)] for task in tasks}


def ranked(logits, classes, topk):
    """The `topk` most probable classes with their probabilities, best first; `logits` (n,) are those of `classes`."""
    weights = np.exp(logits.astype(np.float64) - logits.max())
    best = np.argsort(-weights, kind="stable")[:topk]
    return [(classes[c], float(weights[c] / weights.sum())) for c in best]


def guard(text):
    """A text with an apostrophe in front if a spreadsheet would take it for a formula."""
    return f"'{text}" if re.match(r"'*[=+\-@\t\r\n].", text, re.DOTALL) else text


def main(argv=None):
    parser = argparse.ArgumentParser(description="Classify images: writes CSV, a line for each image, task and class.")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--task", help="name of the task (default: all)")
    parser.add_argument("--topk", type=int, default=5, help="classes for each image and task (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="write a line of JSON for each image and task instead")
    parser.add_argument("--min-probability", type=float, default=0, metavar="P",
                        help="the prediction is `unknown` where the best class has a lower probability")
    parser.add_argument("--torch", action="store_true", help="use classifier.pt2 by PyTorch, on a GPU if there is one")
    args = parser.parse_args(argv)
    if args.topk < 1 or not 0 <= args.min_probability <= 1:
        parser.error("--topk must be 1 or more, --min-probability from 0 to 1")
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # file names may be any bytes
    table, broken = csv.writer(sys.stdout, lineterminator="\n"), 0
    try:
        classifier = Classifier(Path(__file__).parent, args.torch)
        found = classifier.stream(args.images, classifier.tasks_named(args.task), args.topk)
        if not args.json:
            table.writerow(["image", "task", "prediction", "rank", "class", "probability"])
        for image, result in zip(args.images, found):
            if isinstance(result, ValueError):
                broken += 1
                print(f"error: {result}", file=sys.stderr)
                continue
            for task, classes in result.items():
                best, probability = classes[0]
                best = best if probability >= args.min_probability else "unknown"
                if args.json:
                    print(json.dumps({"image": image, "task": task, "prediction": best, "classes": [
                        {"class": name, "probability": value} for name, value in classes]}))
                else:
                    table.writerows([*map(guard, (image, task, best)), rank, guard(name), value]
                                    for rank, (name, value) in enumerate(classes, 1))
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
