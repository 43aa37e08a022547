"""One HTML page of a folder of runs: what the tables say, and what was confused with what.

The page is `PAGE` with `report.css` and `report.js` beside this file, which draws all of it from one JSON object.
PyTorch is not loaded.
"""

import base64
import datetime
import functools
import html
import io
import json
import math
import os.path as osp
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.errors import UserError
from common.files import atomic_path, swap_prefix
from runs.experiments import find_runs
from runs.outcome import distinct, read_confusion, read_predictions
from runs.results import flatten, read_results
from runs.show import best, spread_of_several
from runs.tables import accuracies, counts, find_tables

MOST_BYTES = 5_000_000  # of the page without thumbnails
MOST_THUMBNAIL_BYTES = 4_000_000
WORST, IMAGES = 10, 4  # confusions of a task, and images of a confusion
SIDE = 64  # of a thumbnail, in pixels
MOST_LEFT_OUT = 200  # that are listed
PLACE_KEYS = "DATASET.ROOT", "DATALOADER.OLD_DATA_PATH", "DATALOADER.NEW_DATA_PATH"
OF_A_RUN = {"OUTPUT_DIR", "SEED", "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_TASKS"}  # no settings of a method

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<noscript>This page is drawn by JavaScript, which is switched off.</noscript>
<script type="application/json" id="data">{data}</script>
<script>
{js}</script>
</body>
</html>
"""


def write_report(root, path, n_thumbnails):
    """Write the page of all runs below `root` to `path`, whole or not at all.

    Args:
        n_thumbnails: at most so many images are in it.

    Returns:
        ([(folder, why it is left out)], [what else the page lacks, a sentence each]).

    Raises:
        UserError: there is no such folder, no finished run in it, or `path` can't be written.
    """
    if not osp.isdir(root):
        raise UserError(f"the folder {root} does not exist")
    if osp.isdir(path):
        raise UserError(f"{path} is a folder: give the name of the file to write, such as {osp.join(path, 'out.html')}")
    if not osp.isdir(osp.dirname(path) or "."):
        raise UserError(f"the folder {osp.dirname(path)}, in which {osp.basename(path)} is to be written, does not "
                        "exist: make it first")
    runs, left_out = find_runs(root)
    tables = find_tables(runs, left_out)
    if not tables:
        reasons = "; ".join(f"{folder} is left out ({why})" for folder, why in left_out[-3:])
        raise UserError(f"{root} holds no finished run for a table{f': {reasons}' if reasons else ''}")
    data = {"folder": osp.abspath(root), "made": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
            "tables": [describe_table(table) for table in tables], "thumbnails": {}, "notes": [],
            "left_out": left_out[:MOST_LEFT_OUT]}
    if len(left_out) > MOST_LEFT_OUT:
        data["notes"].append(f"Of {len(left_out):,} runs that are left out the first {MOST_LEFT_OUT} are listed.")
    parts = {name: Path(__file__).with_name(f"report.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    images = add_details(data, tables, MOST_BYTES - sum(map(len, parts.values())) - len(PAGE) - 2000)
    if n_thumbnails:
        add_thumbnails(data, images, n_thumbnails)
    text = PAGE.format(title=html.escape(f"Report of {osp.basename(data['folder'])}"), data=to_json(data), **parts)
    with atomic_path(path) as temporary, open(temporary, "wb") as f:
        f.write(encode(text))
    return left_out, data["notes"]


def to_json(value):
    """JSON that may stand in a script element: no `<`, so that nothing in it ends the element."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def encode(text):
    """UTF-8; bytes of file names that are none (surrogates) come as JSON's escapes."""
    return text.encode("utf-8", "backslashreplace")


def describe_table(table):
    """A `Table` as the page reads it; accuracies are pairs (mean, std), std None of a single run."""
    shots = table.shots or [None]
    rows = []
    for row in table.rows:
        *cells, average = accuracies(row, table, False)
        params, minutes = counts(row)
        per_task = [[spread_of_several(percents) for percents in zip(*(run.percents for run in row.at(n).values()))]
                    if row.at(n) else None for n in shots]
        rows.append({"name": row.name, "params": params, "minutes": minutes, "cells": cells, "average": average,
                     "zero_shot": row.zero_shot, "per_task": per_task})
    columns = [[x and x[0] for x in column] for column in zip(*([*row["cells"], row["average"]] for row in rows))]
    runs, settings = [], []
    for k, row in enumerate(table.rows):
        values = defaultdict(set)
        for run in ordered(row):
            about, config = describe_run(run)
            runs.append({"row": k, "shots": run.shots, "seed": run.seed, "path": run.path, **about})
            for key, value in flatten(config):
                values[key].add(str(value))
        settings.append({key: " | ".join(sorted(found)) for key, found in values.items() if key not in OF_A_RUN})
    keys = dict.fromkeys(key for own in settings for key in own)
    lines = [(key, [own.get(key, "") for own in settings]) for key in keys]
    return {"title": table.title, "tasks": table.tasks, "shots": table.shots, "rows": rows,
            "best": [best(column) for column in columns], "runs": runs,
            "differ": [line for line in lines if len(set(line[1])) > 1],
            "same": [(key, texts[0]) for key, texts in lines if len(set(texts)) == 1],
            "contexts": [found for row in table.rows if (found := describe_contexts(row))]}


def ordered(row):
    """The runs of a `Row` by shots, then seeds."""
    return sorted(row.all_runs(), key=lambda run: (run.shots or 0, run.seed or 0))


def describe_run(run):
    """(times in seconds, peak memory in MiB and device of a `Run`, its config).

    None stands for a number that `results.json` does not hold.
    """
    found = read_results(run.path)
    about = {key: value if isinstance(value := found.get(name), (int, float)) and math.isfinite(value) else None
             for key, name in (("train", "train_seconds"), ("test", "test_seconds"), ("memory", "peak_memory_mb"))}
    config = found.get("config")
    return {**about, "device": str(found.get("device", ""))}, config if isinstance(config, dict) else {}


def describe_contexts(row):
    """Cosine similarities of the tasks' contexts that the first run of most shots of a row found; None without such."""
    run = next(run for run in ordered(row) if run.shots == ordered(row)[-1].shots)
    matrix = read_results(run.path).get("context_similarity")
    return matrix and {"name": row.name, "shots": run.shots, "seed": run.seed, "matrix": matrix}


class Numbers(dict):
    """Values that stand once in the page, which names them by their numbers."""

    def of(self, value):
        return self.setdefault(value, len(self))

    def after(self, n):
        """Those from number n on."""
        return list(self)[n:]


def add_details(data, tables, n_bytes):
    """Add to the runs in `data` what each confused with what, as far as `n_bytes` for all of the data suffice.

    The first seeds and most shots come first, so that there is something of each method.

    Returns:
        The `Numbers` of the images (where its data lies, path below it) that are named, as `wrong_ones` has them.
    """
    images, classes = Numbers(), Numbers()
    runs = [(run, about) for table, described in zip(tables, data["tables"])
            for run, about in zip((run for row in table.rows for run in ordered(row)), described["runs"])]
    left, missing = n_bytes - len(encode(to_json(data))), 0
    for run, about in sorted(runs, key=lambda pair: (pair[0].seed or 0, -(pair[0].shots or 0))):
        known = len(images), len(classes)
        details = [describe_task(run, t, images, classes) for t in range(len(run.tasks))]
        new = [[image for _, image in images.after(known[0])], classes.after(known[1])]
        size = len(encode(to_json([details, *new])))
        if size > left:
            missing += 1
            for numbers, n in zip((images, classes), known):
                for value in numbers.after(n):
                    del numbers[value]
            continue
        left -= size
        about["details"] = details
    if left < 0:
        data["notes"].append(f"Tables and settings alone take more than the {MOST_BYTES / 1e6:.0f} MB of a page.")
    if missing:
        data["notes"].append(f"The confusions of {missing:,} of {len(runs):,} runs are left out, to keep the page "
                             f"below {MOST_BYTES / 1e6:.0f} MB.")
    data["images"], data["classes"] = [image for _, image in images], list(classes)
    return images


def describe_task(run, t, images, classes):
    """The confusion matrix of a `Run` on its task t and its worst confusions, as a JSON object.

    Args:
        images: `Numbers` that the images of the confusions get, the surest first. classes: of the class names.

    Returns:
        {"classes": number, "cells": [place, count, ...], "worst": [(true, predicted, count, [(image, probability)])]},
        places counting row by row and zeros left out, or {"error": why there is no matrix}; and, where images can't be
        told, {"no_images": why}.
    """
    name = distinct(name for name, _ in run.tasks)[t]
    try:
        names, matrix = read_confusion(run.path, t)
    except (UserError, OSError) as error:
        return {"error": f"{error}."}
    places = np.flatnonzero(matrix)
    found = {"classes": classes.of(tuple(names)),
             "cells": np.stack([places, matrix.flat[places]], axis=1).flatten().tolist()}
    try:
        place, wrong = wrong_ones(run.path)
    except (UserError, OSError) as error:
        place, wrong = None, {}
        found["no_images"] = f"{error}."
    wrongly = matrix * (1 - np.eye(len(names), dtype=np.int64))
    worst = [divmod(int(place), len(names)) for place in np.argsort(-wrongly, axis=None, kind="stable")[:WORST]]
    found["worst"] = []
    for i, j in worst:
        if wrongly[i, j]:
            own = wrong.get((name, names[i], names[j]), ())[:IMAGES]
            found["worst"].append((i, j, int(matrix[i, j]), [(images.of((place, image)), round(probability, 4))
                                                             for probability, image in own]))
    return found


@functools.lru_cache(maxsize=1)  # a run is asked for task after task
def wrong_ones(folder):
    """(where the data lies, {(task, true class, predicted one): [(probability, image)], the surest first}) of a run.

    The former are the values of `PLACE_KEYS`.

    Raises:
        MissingFile, UserError: as `read_predictions`.
    """
    wrong = defaultdict(list)
    for found in read_predictions(folder):
        if not found.right and math.isfinite(found.probability):
            wrong[found.task, found.label, found.prediction].append((found.probability, found.image))
    config = read_results(folder).get("config")
    found = dict(flatten(config)) if isinstance(config, dict) else {}
    return (tuple(str(found.get(key, "")) for key in PLACE_KEYS),
            {key: sorted(images, reverse=True) for key, images in wrong.items()})


def add_thumbnails(data, images, most):
    """Add up to `most` thumbnails of `images`, as `add_details` returns them, the first ones of each confusion first.

    In `data["thumbnails"]` {number of the image: data URI}, "" of an image that can't be read.
    """
    keys, thumbnails, broken, n_bytes = list(images), data["thumbnails"], [], 0
    tasks = [task for table in data["tables"] for run in table["runs"] for task in run.get("details", ())]
    wanted = sorted((k, place, i) for task in tasks for place, (*_, own) in enumerate(task.get("worst", ()))
                    for k, (i, _) in enumerate(own))
    for i in dict.fromkeys(i for *_, i in wanted):
        if len(thumbnails) - len(broken) >= most or n_bytes > MOST_THUMBNAIL_BYTES:
            data["notes"].append(f"Of {len(keys):,} images that are named here {len(thumbnails) - len(broken):,} are "
                                 "shown, the first ones of each confusion first.")
            break
        (root, *swap), image = keys[i]
        path = swap_prefix(osp.join(root, image), *swap)
        try:
            thumbnails[i] = thumbnail(path)
        except Exception as error:  # Pillow raises many kinds on damaged files
            thumbnails[i] = ""
            broken.append(f"{path} ({getattr(error, 'strerror', None) or error})")
        n_bytes += len(thumbnails[i])
    if broken:
        data["notes"].append(f"{len(broken):,} image{'s' * (len(broken) > 1)} can't be shown, since the file can't be "
                             f"read where the run found it: the first is {broken[0]}.")


def thumbnail(path):
    """An image file as the data URI of a JPEG of at most 64 x 64 pixels, turned as its EXIF orientation says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on odd metadata
        with Image.open(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            if image.mode.startswith(("I", "F")):  # more than 8 bits: Pillow would cut them off
                values = np.asarray(image, dtype=np.float64)
                values = (values - values.min()) / max(np.ptp(values), 1e-9)
                small = Image.fromarray((255 * values).astype(np.uint8))
            else:
                small = ImageOps.exif_transpose(image)
            small = small.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    with io.BytesIO() as buffer:
        small.save(buffer, "JPEG", quality=75)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
