"""One HTML page of a folder of runs: their tables, and which classes they confused.

The page is `PAGE` with `report.css` and `report.js` beside this file, which draws all of it from one JSON object.
"""

import base64
import datetime
import heapq
import html
import io
import json
import os.path as osp
from collections import defaultdict
from pathlib import Path

import numpy as np

from common.errors import MissingFile, UserError
from common.files import atomic_path, swap_prefix
from common.images import BrokenImage, read_image
from runs.experiments import find_runs
from runs.outcome import distinct, read_confusion, read_metrics, read_predictions
from runs.results import flatten
from runs.show import best, spread_of_several
from runs.tables import accuracies, counts, find_tables

from .verdict import MOST_PAIRS, chance_of, compare_rows, most_shots, rank, verdict

MOST_BYTES, MOST_THUMBNAIL_BYTES = 5_000_000, 4_000_000  # limits for the page without thumbnails, and for these
WORST, IMAGES = 10, 4  # number of confusions of a task, and of images of a confusion
SUREST = 24  # number of a run's wrong predictions with the highest probability
SIDE = 128  # pixels of a thumbnail
PLACE_KEYS = "DATASET.ROOT", "DATALOADER.OLD_DATA_PATH", "DATALOADER.NEW_DATA_PATH"
CALIBRATION = ("total", "accuracy", "expected_calibration_error", "error_of_true_probabilities", "uncalibrated_error",
               "temperature", "reliability", "coverage")  # keys of a task in metrics.json
PLACES = "DATASET.ROOT", "MODEL.BACKBONE.NAME"  # an identity has digests instead of them
OF_A_RUN = {"OUTPUT_DIR", "SEED", "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_TASKS"}  # they differ within a method

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
    """Write the page of all runs below `root`, with at most `n_thumbnails` images, to `path`.

    Returns:
        ([(folder, why it is left out)], [sentences about what else the page lacks]).

    Raises:
        UserError: there is no such folder, or no finished run in it.
    """
    if not osp.isdir(root):
        raise UserError(f"the folder {root} does not exist")
    runs, left_out = find_runs(root)
    tables = find_tables(runs, left_out)
    if not tables:
        reasons = "; ".join(f"{folder} is left out ({why})" for folder, why in left_out[-3:])
        raise UserError(f"{root} holds no finished run for a table{f': {reasons}' if reasons else ''}")
    data = {"folder": osp.abspath(root), "made": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
            "tables": [describe_table(table) for table in tables], "thumbnails": {}, "notes": [],
            "left_out": left_out}
    parts = {name: Path(__file__).with_name(f"report.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    if any(len(table["compared"]) == MOST_PAIRS for table in data["tables"]):
        data["notes"].append(f"McNemar's test is made of {MOST_PAIRS:,} pairs, those with the most shots first.")
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
    """Encode as UTF-8; bytes of file names that are not UTF-8 (surrogates) become JSON's escapes."""
    return text.encode("utf-8", "backslashreplace")


def describe_table(table):
    """A `Table` as the page reads it; accuracies are pairs (mean, std), and std is None for a single run."""
    rows, runs, settings, contexts = [], [], [], []
    for k, row in enumerate(table.rows):
        *cells, average = accuracies(row, table, False)
        params, minutes = counts(row)
        per_task = [[spread_of_several(percents) for percents in zip(*(run.percents for run in row.at(n).values()))]
                    if row.at(n) else None for n in table.shots or [None]]
        rows.append({"name": row.name, "params": params, "minutes": minutes, "cells": cells, "average": average,
                     "zero_shot": row.zero_shot, "per_task": per_task})
        values = defaultdict(set)
        for run in row.all_runs:
            about = {"row": k, "shots": run.shots, "seed": run.seed, "path": run.path, "train": run.seconds}
            runs.append(about | {name: run.results.get(key) for name, key in (
                ("test", "test_seconds"), ("memory", "peak_memory_mb"), ("device", "device"))})
            for key, value in settings_of(run).items():
                values[key].add(value)
        settings.append({key: " | ".join(sorted(found)) for key, found in values.items() if key not in OF_A_RUN})
        first = next(run for run in row.all_runs if run.shots == row.all_runs[-1].shots)
        if matrix := first.results.get("context_similarity"):
            contexts.append({"name": row.name, "shots": first.shots, "seed": first.seed, "matrix": matrix})
    columns = zip(*([pair and pair[0] for pair in (*row["cells"], row["average"])] for row in rows))
    keys = dict.fromkeys(key for own in settings for key in own)
    lines = [(key, [own.get(key) for own in settings]) for key in keys]
    chance, compared, ranked = chance_of(table), compare_rows(table), [row for row, _ in rank(table)]
    opened = next(iter(ranked[0].at(most_shots(table)).values()))  # by the page
    return {"title": table.title, "tasks": table.tasks, "shots": table.shots, "rows": rows, "chance": chance,
            "compared": compared, "verdict": verdict(table, chance, compared),
            "ranked": [table.rows.index(row) for row in ranked],
            "opens": [about["path"] for about in runs].index(opened.path),
            "best": [best(column) for column in columns], "runs": runs,
            "differ": [line for line in lines if len(set(line[1]) - {None}) > 1],
            "same": [(key, *{*texts} - {None}, [k for k, text in enumerate(texts) if text is not None])
                     for key, texts in lines if len(set(texts) - {None}) == 1], "contexts": contexts}


def settings_of(run):
    """{key: text} of the settings on which the result of a `Run` depends, which are those that its method reads."""
    config = dict(flatten(run.results.get("config", {})))
    found = {key: value for key, value in run.results["identity"].items() if key in config or key == "precision"}
    return {key: str(value) for key, value in (found | {key: config[key] for key in PLACES if key in config}).items()}


def add_details(data, tables, n_bytes):
    """Add to the runs in `data` which classes each confused, as long as all of the data takes at most `n_bytes`.

    The first seeds and most shots come first, so that there is something of each method.

    Returns:
        The images that are named: a list of ((values of `PLACE_KEYS`), path below the data).
    """
    images, classes = {}, {}  # image or names of classes -> its number in the page
    runs = [(run, about) for table, described in zip(tables, data["tables"])
            for run, about in zip((run for row in table.rows for run in row.all_runs), described["runs"])]
    left, missing = n_bytes - len(encode(to_json(data))), 0
    for run, about in sorted(runs, key=lambda pair: (pair[0].seed or 0, -(pair[0].shots or 0))):
        all_images, all_classes = dict(images), dict(classes)
        details = describe_details(run, all_images, all_classes)
        new = [[image for _, image in list(all_images)[len(images):]], list(all_classes)[len(classes):]]
        size = len(encode(to_json([details, *new])))
        if size > left:
            missing += 1
            continue
        images, classes, left = all_images, all_classes, left - size
        about |= details
    if left < 0:
        data["notes"].append(f"Tables and settings alone take more than the {MOST_BYTES / 1e6:.0f} MB of a page.")
    if missing:
        data["notes"].append(f"The confusions of {missing:,} of {len(runs):,} runs are left out, to keep the page "
                             f"below {MOST_BYTES / 1e6:.0f} MB.")
    data["images"], data["classes"] = [image for _, image in images], list(classes)
    return list(images)


def describe_details(run, images, classes):
    """What a `Run` got wrong and how sure it was, a JSON object.

    Args:
        images, classes: {image or names of classes: number}; new ones are added, for each confusion the surest images.

    Returns:
        {"details": [for each task {"classes": number, "cells": [place, count, ...], "worst": [(true, predicted, count,
        [(image, probability)])], "calibration": what metrics.json has of `CALIBRATION`}], "surest": [(task, true class,
        predicted one, image, probability)] of all tasks, "no_images": reason, if the images are not known}. Places
        count row by row; zeros are left out. A task without a matrix has {"error": reason, "calibration": ...}.
    """
    config = dict(flatten(run.results.get("config", {})))
    place = tuple(str(config.get(key, "")) for key in PLACE_KEYS)
    tasks = distinct(name for name, _ in run.tasks)
    wrong, unknown = defaultdict(list), {}  # (task, true class, predicted one) -> [(probability, image)]

    def entry(image, probability):
        return images.setdefault((place, image), len(images)), round(probability, 4)

    try:
        for found in read_predictions(run.path):
            if not found.right:
                wrong[found.task, found.label, found.prediction].append((found.probability, found.image))
    except MissingFile as error:
        unknown = {"no_images": f"{error}."}
    try:
        figures = read_metrics(run.path)
    except MissingFile:
        figures = [{}] * len(tasks)
    details = []
    for t, (task, own) in enumerate(zip(tasks, figures)):
        details.append({"calibration": {key: own[key] for key in CALIBRATION if key in own}})
        try:
            names, matrix = read_confusion(run.path, t)
        except MissingFile as error:
            details[-1]["error"] = f"{error}."
            continue
        cells, wrongly = np.flatnonzero(matrix), matrix * (1 - np.eye(len(names), dtype=np.int64))
        worst = []
        for cell in np.argsort(-wrongly, axis=None, kind="stable")[:WORST]:
            i, j = divmod(int(cell), len(names))
            if wrongly[i, j]:
                surest = sorted(wrong[task, names[i], names[j]], reverse=True)[:IMAGES]
                worst.append((i, j, int(matrix[i, j]), [entry(image, probability) for probability, image in surest]))
        details[-1] |= {"classes": classes.setdefault(tuple(names), len(classes)), "worst": worst,
                        "cells": np.stack([cells, matrix.flat[cells]], axis=1).flatten().tolist()}
    surest = heapq.nlargest(SUREST, ((p, image, key) for key, own in wrong.items() for p, image in own))
    return {"details": details, **unknown,
            "surest": [(tasks.index(task), label, prediction, *entry(image, p))
                       for p, image, (task, label, prediction) in surest]}


def add_thumbnails(data, images, most):
    """Add up to `most` thumbnails of `images`, which `add_details` returned.

    The surest errors of the run on which the page opens come first, then the first ones of each run and confusion.
    `data["thumbnails"]` becomes {number of the image: data URI}; the URI of an image that can't be read is "".
    """
    thumbnails, broken, n_bytes = data["thumbnails"], [], 0
    wanted = []
    for table in data["tables"]:
        for n, run in enumerate(table["runs"]):
            wanted += [(k, place, i) for task in run.get("details", ())
                       for place, (*_, own) in enumerate(task.get("worst", ())) for k, (i, _) in enumerate(own)]
            wanted += [(0 if n != table["opens"] else -1, place, i)
                       for place, (*_, i, _) in enumerate(run.get("surest", ()))]
    for i in dict.fromkeys(i for *_, i in sorted(wanted)):
        if len(thumbnails) - len(broken) >= most or n_bytes > MOST_THUMBNAIL_BYTES:
            data["notes"].append(f"Of {len(images):,} images that are named here {len(thumbnails) - len(broken):,} are "
                                 "shown, the surest errors first.")
            break
        (root, *swap), image = images[i]
        path = swap_prefix(osp.join(root, image), *swap)
        try:
            thumbnails[i] = thumbnail(path)
        except BrokenImage as error:
            thumbnails[i] = ""
            broken.append(error)
        n_bytes += len(thumbnails[i])
    if broken:
        data["notes"].append(f"{len(broken):,} image{'s' * (len(broken) > 1)} can't be shown: {broken[0]}"
                             + f", and {len(broken) - 1:,} more." * (len(broken) > 1))


def thumbnail(path):
    """Make the data URI of a JPEG of at most 128 x 128 pixels from an image file."""
    image = read_image(path, upright=True)
    image.thumbnail((SIDE, SIDE))
    with io.BytesIO() as buffer:
        image.save(buffer, "JPEG", quality=75)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
