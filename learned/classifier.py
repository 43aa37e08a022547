"""A run's classifier of images, whether they are files or lie in memory."""

import contextlib
import os
import os.path as osp

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from common.errors import MissingFile, NotFinite, UserError
from common.images import list_broken, to_rgb
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.transforms import build_transform
from dassl.utils import check_availability
from datasets.base import NamedDatum
from features.images import Images
from runs.outcome import distinct

UNKNOWN = "unknown"  # the class of an image whose probability is too small
PATIENCE = 3  # seconds without a progress bar


class Classifier:
    """A run's classifier of images: a softmax over the classes of each task.

    Attributes:
        trainer: as `load_run` returns it. tasks, cfg: those of the run.
        encode, transform: `ImageFeatures` and the transform of images, as in testing.
        batch_size: most images encoded at once.
        upright: images are turned as their EXIF orientation says.
        calibrated: the run fitted temperatures. temperatures: (n_cls,), by which logits are divided, else 1.
        usual_scores: of each task the score that 95% of the validation images exceed, or None if the run has none.
    """

    @torch.no_grad()
    def __init__(self, trainer):
        self.trainer, self.cfg, self.tasks, self.encode = trainer, trainer.cfg, trainer.tasks, trainer.encode
        self.batch_size, dataset = trainer.encode.batch_size, self.cfg.DATASET.NAME
        self.upright = dataset in DATASET_REGISTRY.registered_names() and getattr(
            DATASET_REGISTRY.get(dataset), "upright", False)
        self.transform = build_transform(self.cfg, is_train=False)
        with trainer.autocast():
            self.class_features = trainer.model.class_features()
        self.sizes = [len(task.classnames) for task in self.tasks]
        fitted = trainer.validation or {}
        self.calibrated = "temperatures" in fitted
        temperatures = fitted.get("temperatures", [1.0] * len(self.tasks))
        self.temperatures = torch.tensor(temperatures).repeat_interleave(torch.tensor(self.sizes))  # (n_cls,)
        self.usual_scores = fitted.get("usual_scores")

    @torch.no_grad()
    def logits(self, images):
        """Logits (B, n_cls) of images for the classes of all tasks, divided by its temperature if the run has some.

        Args:
            images: features as `encode` makes them, or pixels (B, 3, H, W) if the image tower has learned.

        Returns:
            A tensor on the CPU, float32 or float64.
        """
        with self.trainer.autocast():
            logits = self.trainer.model.logits_of_all_tasks(images.to(self.trainer.device), self.class_features).cpu()
        return logits / self.temperatures.to(logits)

    def probabilities_and_scores(self, images):
        """Each task's softmax over its classes (B, n), and the log-sum-exp (B,) of its logits without temperature.

        Args:
            images: as in `logits`.

        Returns:
            Two lists of float64 tensors.

        Raises:
            NotFinite: a logit is NaN.
        """
        logits = self.logits(images).double()
        if logits.isnan().any():
            raise NotFinite("logits are NaN: check the weights, or use another PREC")
        undivided = logits * self.temperatures
        return ([own.softmax(dim=1) for own in logits.split(self.sizes, dim=1)],
                [own.logsumexp(dim=1) for own in undivided.split(self.sizes, dim=1)])

    def probabilities(self, images):
        """Softmax over the classes of each task, a list of (B, n), float64; as in `probabilities_and_scores`."""
        return self.probabilities_and_scores(images)[0]

    def rows(self, images, numbers, topk, least=0.0, progress=False):
        """Yield {"image", "task", "classes": [{"class", "probability"}], "score"} for every image and task.

        Rows come image by image. They have "unusual", too, if the run has `usual_scores`: whether the score is below.
        Images are read, transformed and encoded as in testing. `encode.broken` gets those that can't be read, with the
        reason. If two tasks, or two classes of a task, have the same name, the second is `crane (2)`.

        Args:
            images: list of paths, PIL images or arrays (H, W, 3) of uint8. numbers: those of the tasks.
            topk: most classes of each task.
            least: an image with a smaller probability has the single class "unknown", with its largest probability.
            progress: show it on stderr, if that is a terminal and the work takes a while.
        """
        names = distinct(task.name for task in self.tasks)
        classnames = [distinct(task.classnames) for task in self.tasks]
        given, done = GivenImages(self, images), 0
        self.encode.batch_size = min(self.batch_size, len(images))  # batches are filled up
        with tqdm(total=len(images), desc="predicting", unit=" images", delay=PATIENCE,
                  disable=None if progress else True) as bar:  # None: where stderr is no terminal
            for batch in self.encode.inputs(given):
                probabilities, scores = self.probabilities_and_scores(batch)
                # (B, n) each, best first; the first of equal ones comes first, as with argmax in testing
                ranked = [probabilities[t].sort(dim=1, descending=True, stable=True) for t in numbers]
                for i, datum in enumerate(given.data_source[done:done + len(batch)]):
                    if datum.impath in self.encode.broken:
                        continue
                    for t, (values, classes) in zip(numbers, ranked):
                        found = [{"class": classnames[t][c], "probability": p}
                                 for c, p in zip(classes[i, :topk].tolist(), values[i, :topk].tolist())]
                        if found[0]["probability"] < least:
                            found = [{"class": UNKNOWN, "probability": found[0]["probability"]}]
                        row = {"image": datum.impath, "task": names[t], "classes": found, "score": scores[t][i].item()}
                        yield row | ({"unusual": row["score"] < self.usual_scores[t]} if self.usual_scores else {})
                done += len(batch)
                bar.update(len(batch))

    def predict(self, images, task=None, topk=5):
        """Predict images: [{task: [(class, probability), ...]}], best class first, as an exported classifier does.

        Args:
            images: list of paths, PIL images or arrays (H, W, 3) of uint8. task: name of one task; None: all.
            topk: most classes of each task.

        Raises:
            MissingFile, UserError: there is no such task, or an image can't be read.
        """
        numbers = choose_tasks(self.tasks, task or "")
        for image in images:
            if isinstance(image, (str, os.PathLike)) and not osp.lexists(image):
                raise MissingFile(f"there is no image {image}")
        self.encode.broken = {}
        rows = list(self.rows(images, numbers, topk)) if len(images) else []
        if self.encode.broken:
            raise UserError(list_broken(self.encode.broken))
        return [{row["task"]: [(found["class"], found["probability"]) for found in row["classes"]] for row in own}
                for own in by_image(rows, len(numbers))]


class GivenImages(Images):
    """The `Images` that a caller gives: files by their paths, or PIL images and arrays, which lie in memory."""

    def __init__(self, classifier, images):
        self.pictures = [None if isinstance(image, (str, os.PathLike)) else picture_of(image, classifier.upright)
                         for image in images]
        paths = [os.fspath(image) if picture is None else f"image {i}"
                 for i, (image, picture) in enumerate(zip(images, self.pictures))]
        super().__init__(classifier.cfg, [NamedDatum(path, classifier.upright, impath=path) for path in paths],
                         classifier.transform)

    def read(self, idx):
        return super().read(idx) if self.pictures[idx] is None else self.pictures[idx]


def picture_of(image, upright):
    """A PIL image or an array (H, W, 3) of uint8 as a PIL image in RGB; `upright`: turned as its EXIF data says.

    Raises:
        UserError: it is neither.
    """
    if isinstance(image, Image.Image):
        image.load()
        with contextlib.suppress(Exception):  # an orientation that can't be read is ignored
            image = ImageOps.exif_transpose(image) if upright else image
        return to_rgb(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return Image.fromarray(image)
    kind = f"{image.dtype} array {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UserError(f"an image must be a path, a PIL image or a uint8 array (H, W, 3), but one is a {kind}")


def choose_tasks(tasks, name):
    """Numbers of the tasks (list of `Task`) called `name`, with or without the number of a repeated name; "": all.

    Raises:
        UserError: there is no such task.
    """
    own = distinct(task.name for task in tasks)
    numbers = [t for t, task in enumerate(tasks) if name in ("", task.name, own[t])]
    if not numbers:
        check_availability(name, own, "the task")
    return numbers


def by_image(rows, n_tasks):
    """Split rows (list) of `Classifier.rows` into those of each image."""
    return [rows[i:i + n_tasks] for i in range(0, len(rows), n_tasks)]
