"""Writes what `Classifier.rows` yields: a table, CSV, JSON, JSON lines, and copies of the images by their classes."""

import filecmp
import itertools
import json
import os.path as osp
import re
import shutil

from tabulate import tabulate

from common.csv_files import write_csv
from common.files import atomic_path
from runs.outcome import distinct

from .classifier import by_image


def show(rows, names, long=False):
    """Print rows of the tasks `names` as a table, with a line for each image, or if `long` for each image and task."""
    if long:
        more = ["score", "unusual"][:1 + ("unusual" in rows[0])]
        most = max(len(row["classes"]) for row in rows)
        headers = ["image", "task", *more, *map(str, range(1, most + 1))]
        lines = [[row["image"], row["task"], f"{row['score']:.3f}", *map(row.get, more[1:]),
                  *(f"{found['class']} {found['probability']:.3f}" for found in row["classes"])] for row in rows]
    else:
        headers, lines = ["image", *(cell for name in names for cell in (name, "p"))], lines_of(rows, names, 3)
    print(tabulate(lines, headers=headers, disable_numparse=True))


def lines_of(rows, names, digits):
    """A line for each image: its path, and of each task the likeliest class and its probability."""
    return [[own[0]["image"], *(cell for row in own for found in row["classes"][:1]
                                for cell in (found["class"], f"{found['probability']:.{digits}f}"))]
            for own in by_image(rows, len(names))]


def write(rows, names, path, long=False, mark=False):
    """Write rows of the tasks `names` as JSON, or as CSV; `mark`: as in `write_csv`.

    The CSV has a line for each image, or if `long` for each class. Its headers are distinct: image, a task, p, another
    task, p (2) ...
    """
    if path.endswith(".json"):
        # File names may be any bytes: those that are not UTF-8 become JSON's escapes.
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as f:
            json.dump(rows, f, indent=1, ensure_ascii=False)
            f.write("\n")
    elif long:
        more = ["unusual"] * ("unusual" in next(iter(rows), ()))
        write_csv(path, ["image", "task", "rank", "class", "probability", "score", *more],
                  ([row["image"], row["task"], rank, found["class"], f"{found['probability']:.6f}",
                    f"{row['score']:.6f}", *map(row.get, more)]
                   for row in rows for rank, found in enumerate(row["classes"], 1)), mark)
    else:
        write_csv(path, distinct(["image", *(cell for name in names for cell in (name, "p"))]),
                  lines_of(rows, names, 6), mark)


def print_lines(rows, names):
    """Print a JSON object a line for each image: {"image", "tasks": {task: what its row says}}, in ASCII."""
    for own in by_image(rows, len(names)):
        print(json.dumps({"image": own[0]["image"], "tasks": {
            row["task"]: {key: row[key] for key in row if key not in ("image", "task")} for row in own}}))


def copy_images(rows, names, folder):
    """Copy images into `<folder>/<task>/<class>/`, or, of a single task, into `<folder>/<class>/`.

    Nothing is overwritten: where another image has the name, the copy is called `photo (2).jpg`. A copy that is there
    already is not made again.

    Returns:
        The number of files that were made.
    """
    made = 0
    for row in rows:
        parts = [row["task"]] * (len(names) > 1) + [row["classes"][0]["class"]]
        place = osp.join(folder, *(re.sub(r"[/\\\0]|^\.", "_", part) for part in parts))
        stem, suffix = osp.splitext(osp.basename(row["image"]))
        for n in itertools.count(1):
            copy = osp.join(place, stem + f" ({n})" * (n > 1) + suffix)
            if not osp.lexists(copy):
                with atomic_path(copy) as temporary:
                    shutil.copy2(row["image"], temporary)
                made += 1
                break
            if osp.isfile(copy) and filecmp.cmp(row["image"], copy, shallow=False):
                break
    return made
