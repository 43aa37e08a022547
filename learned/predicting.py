"""What predict.py does: finds images, predicts them, writes the result, and says on stderr what came of it."""

import contextlib
import sys
from pathlib import Path

from common.images import list_broken
from runs.outcome import distinct

from .classifier import UNKNOWN, choose_tasks
from .finding import find_images
from .loading import load_classifier, read_classes, task_of_names
from .writing import copy_images, print_lines, show, write


def predict_run(args):
    """Do what the options `args` of `predict.py` ask for.

    Returns:
        {path: reason} of the images that can't be read, which are also listed on stderr.
    """
    with contextlib.redirect_stdout(sys.stderr):  # messages of loading are not part of the table
        new_task = args.new_task and task_of_names(args.run, args.new_task, read_classes(args.classes), args.template)
        paths = find_images(args.images)
        classifier = load_classifier(args.run, args.epoch, args.batch, new_task or None)
        numbers = choose_tasks(classifier.tasks, args.task)
        for task in (classifier.tasks[t] for t in numbers):
            if len(task.classnames) == 1:
                print(f"Warning: task {task.name!r} has the single class {task.classnames[0]!r}: its probability is 1 "
                      "for any image")
        rows = list(classifier.rows(paths, numbers, args.topk, args.min_probability, progress=True))
        every = distinct(task.name for task in classifier.tasks)
    names = [every[t] for t in numbers]
    if args.output:  # also without rows, so that no older predictions stay
        write(rows, names, args.output, args.long, args.excel)
        print(f"The predictions of {len(rows) // len(names):,} images are in {args.output}")
    elif not sys.stdout.isatty():
        print_lines(rows, names)
    elif rows:
        show(rows, names, args.long)
    with contextlib.redirect_stdout(sys.stderr):
        if args.copy_to:
            print(f"{copy_images(rows, names, args.copy_to):,} copies of images are new in {args.copy_to}")
        for t in numbers:
            own = [row for row in rows if row["task"] == every[t]]
            say_unknown(own, every[t], args.min_probability)
            say_right(own, every[t], classifier.tasks[t].classnames, every)
        broken = classifier.encode.broken
        if broken:
            print(list_broken(broken, most=len(broken)))
    return broken


def say_unknown(rows, task, least):
    """Print how many of a task's rows have a smaller probability than `least`."""
    if least:
        unknown = sum(row["classes"][0]["probability"] < least for row in rows)
        print(f"Of {len(rows):,} images {unknown:,} are {UNKNOWN} in {task}: their probability is below {least:g}")


def say_right(rows, task, classnames, names):
    """Print how many of a task's rows are right, of images in folders with a class name (underscores are spaces).

    Where folders above name tasks of the run (`names`), as in `<task>/<class>/`, an image counts for those alone:
    several tasks may have the same class names.
    """
    right, plain = [], {name.replace("_", " ") for name in classnames}
    for row in rows:
        *above, folder = (part.replace("_", " ") for part in Path(row["image"]).absolute().parts[:-1])
        if folder in plain and (task in above or not set(names) & set(above)):
            right.append(row["classes"][0]["class"].replace("_", " ") == folder)
    if right:
        print(f"Of {len(right):,} images in folders with class names of {task} {sum(right):,} are right "
              f"({100 * sum(right) / len(right):.1f}%)")
