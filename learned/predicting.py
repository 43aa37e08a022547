"""Predicts the most likely classes of images, as a table, CSV or JSON."""

import contextlib
import itertools
import json
import os
import os.path as osp
import sys

from tabulate import tabulate

from common.csv_files import write_csv
from common.errors import UserError
from common.files import atomic_path
from common.images import list_broken
from dassl.data.transforms import build_transform
from datasets.base import NamedDatum
from datasets.files import IMAGE_SUFFIXES, describe_unread, is_unread
from features.images import Images
from runs.outcome import distinct

from .loading import load_classifier, task_of_names


def find_images(places):
    """Paths of images: files as given, image files below folders by name; "-" stands for the lines of stdin.

    Links to folders are followed, as in training. Files below folders that may be images of kinds that are not read are
    counted and named in a line.

    Raises:
        UserError: there is no image, no such file, or a folder can't be read.
    """
    found = []
    for place in itertools.chain.from_iterable(stdin_lines() if place == "-" else [place] for place in places):
        if osp.isdir(place):
            files = [path for path in files_below(place) if not osp.basename(path).startswith(".")]
            images = [path for path in files if path.lower().endswith(IMAGE_SUFFIXES)]
            unread = describe_unread([path for path in files if is_unread(path)
                                      and f"{os.sep}." not in path.removeprefix(place)])  # a folder such as .git
            if not images:
                raise UserError(f"the folder {place} holds no image ({', '.join(IMAGE_SUFFIXES)})"
                                + f"; {unread}" * bool(unread))
            if unread:
                print(f"Warning: {unread}")
            found += sorted(images)
        elif osp.lexists(place):
            found.append(place)
        else:
            raise UserError(f"there is no image and no folder {place}")
    if not found:
        raise UserError("there is no image to predict: stdin gave no path")
    return found


def files_below(place):
    """Yield the paths of files below a folder."""
    def fail(error):
        raise UserError(f"the folder {error.filename} can't be read ({error.strerror}): change its permissions")

    seen = set()  # a link may lead to a folder above it
    for folder, below, names in os.walk(place, onerror=fail, followlinks=True):
        if osp.realpath(folder) in seen:
            below.clear()
            continue
        seen.add(osp.realpath(folder))
        yield from (osp.join(folder, name) for name in names)


def stdin_lines():
    """The lines of stdin that are not blank. File names may hold any bytes but a newline."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")
    return [line.removesuffix("\r") for line in sys.stdin.read().split("\n") if line.strip()]


def choose_tasks(tasks, name):
    """Numbers of the tasks (list of `Task`) called `name`, with or without the number of a repeated name; "": all.

    Raises:
        UserError: there is no such task.
    """
    own = distinct(task.name for task in tasks)
    numbers = [t for t, task in enumerate(tasks) if name in ("", task.name, own[t])]
    if not numbers:
        raise UserError(f"--task {name!r}: the run has no such task, it has {', '.join(own)}")
    return numbers


def predict(classifier, paths, numbers, topk):
    """Yield {"image", "task", "classes": [{"class", "probability"}]} for every image and task, image by image.

    Images are read, transformed and encoded as in testing. `classifier.encode.broken` gets those that can't be read,
    with the reason. If two tasks, or two classes of a task, have the same name, the second is `crane (2)`.

    Args:
        classifier: `Classifier`. paths: list of str. numbers: those of the tasks. topk: most classes of each task.
    """
    encode, names = classifier.encode, distinct(task.name for task in classifier.tasks)
    classnames = [distinct(task.classnames) for task in classifier.tasks]
    encode.batch_size = min(classifier.cfg.DATALOADER.TEST.BATCH_SIZE, len(paths))  # batches are filled up
    images = Images(classifier.cfg, [NamedDatum(path, classifier.upright, impath=path) for path in paths],
                    build_transform(classifier.cfg, is_train=False))
    done = 0
    for batch in encode.inputs(images):
        probabilities = classifier.probabilities(batch)
        # (B, n) each, best first; the first of equal ones comes first, as with argmax in testing
        ranked = [probabilities[t].sort(dim=1, descending=True, stable=True) for t in numbers]
        for i, path in enumerate(paths[done:done + len(batch)]):
            if path in encode.broken:
                continue
            for t, (values, classes) in zip(numbers, ranked):
                yield {"image": path, "task": names[t], "classes": [
                    {"class": classnames[t][c], "probability": p}
                    for c, p in zip(classes[i, :topk].tolist(), values[i, :topk].tolist())]}
        done += len(batch)


def show(rows):
    """Print rows of `predict` as a table."""
    most = max(len(row["classes"]) for row in rows)
    print(tabulate([[row["image"], row["task"], *(f"{found['class']} {found['probability']:.3f}"
                                                  for found in row["classes"])] for row in rows],
                   headers=["image", "task", *map(str, range(1, most + 1))], disable_numparse=True))


def write(rows, path, mark=False):
    """Write rows of `predict` as JSON, or as CSV with a line for each class; `mark`: as in `write_csv`."""
    if path.endswith(".csv"):
        write_csv(path, ["image", "task", "rank", "class", "probability"],
                  ([row["image"], row["task"], rank, found["class"], found["probability"]]
                   for row in rows for rank, found in enumerate(row["classes"], 1)), mark)
        return
    # File names may be any bytes: those that are not UTF-8 become JSON's escapes.
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as f:
        json.dump(rows, f, indent=1, ensure_ascii=False)
        f.write("\n")


def predict_run(args):
    """Do what the options `args` of `predict.py` ask for.

    Returns:
        {path: reason} of the images that can't be read, which are also listed on stderr.
    """
    with contextlib.redirect_stdout(sys.stderr):  # messages of loading are not part of the table
        new_task = task_of_names(args.run, args.new_task, args.class_names, args.template) if args.new_task else None
        paths = find_images(args.images)
        classifier = load_classifier(args.run, args.epoch, args.batch, new_task)
        numbers = choose_tasks(classifier.tasks, args.task)
        for task in (classifier.tasks[t] for t in numbers):
            if len(task.classnames) == 1:
                print(f"Warning: task {task.name!r} has the single class {task.classnames[0]!r}: its probability is 1 "
                      "for any image")
        rows = list(predict(classifier, paths, numbers, args.topk))
    if args.output:  # also without rows, so that no older predictions stay
        write(rows, args.output, args.excel)
        print(f"The predictions of {len(rows) // len(numbers):,} images are in {args.output}")
    elif rows:
        show(rows)
    broken = classifier.encode.broken
    if broken:
        print(list_broken(broken, most=len(broken)), file=sys.stderr)
    return broken
