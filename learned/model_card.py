"""The README.md of an exported classifier, a model card as the Hugging Face Hub reads it."""

import datetime
import json
import os.path as osp
import re
from pathlib import Path

import onnx
import torch
from tabulate import tabulate

from clip import available_models
from common.files import read_json
from runs.outcome import METRICS_FILE
from runs.show import plural

from .standalone import ABOUT, BATCH

CARD = """\
---
library_name: onnx
pipeline_tag: image-classification
license: {licence}
tags: {tags}
metrics: [accuracy, f1]
---

# {label}: a classifier of images

It classifies images for {tasks}. {calibrated}

## Use

onnxruntime, Pillow and numpy are all that it needs. In this folder:

```python
from classifier import Classifier

print(Classifier(".").predict(["photo.jpg"], topk=3))
```

`predict` takes a list of paths, PIL images or arrays (H, W, 3), uint8, and computes {batch} at once. As a command:

```bash
python classifier.py photo.jpg --topk 3
python classifier.py photo.jpg --json --min-probability 0.5
```

The first writes CSV, the second a line of JSON for each image and task; the prediction is `unknown` where the best
class has a lower probability.
{torch_form}
`classifier.onnx` takes `pixels` (n, 3, {size}, {size}) and gives `logits` (n, {n_cls}), float32. Its metadata
`{about_key}` is JSON, of layout {layout}: how images are read, and of each task the columns of its logits, the
temperature by which they are already divided, and the classes:

{classes}

## Model

{model}

## Data

{data}

## Results

{results}

## Licence

{licence_note}
"""
TORCH_FORM = """
`classifier.pt2` is the same for PyTorch, on a GPU where there is one: `Classifier(".", torch=True)`, or
`python classifier.py --torch IMAGE ...`. It needs PyTorch, Pillow and numpy.
"""


def licence_of(backbone):
    """The licence of a backbone's weights as the Hub names it, "unknown" where its name does not say.

    OpenAI's weights, those that LAION publishes of LAION-2B and DataComp, and `tiny` are under MIT's.
    """
    published = re.fullmatch(r"open_clip:[^/]+/(openai|(laion2b|datacomp)_\w+)", backbone)
    return "mit" if published or backbone in ("tiny", *available_models()) else "unknown"


def model_card(run, results, about, tested, with_torch):
    """The text of a classifier's README.md.

    Args:
        run: folder of the run. results: its `results.json`. about: as `describe` returns it.
        tested: the model is the one that the run tested; else its figures are left out.
        with_torch: there is a `classifier.pt2`.
    """
    tasks, licence = about["tasks"], licence_of(about["backbone"])
    return CARD.format(
        licence=licence, tags=json.dumps(["image-classification", "few-shot", "clip", about["method"]]),
        label=results["label"], tasks=text(", ".join(task["name"] for task in tasks)), batch=BATCH,
        calibrated="Its probabilities are calibrated: temperatures were fitted on validation images."
        if about["calibrated"] else "Its probabilities are not calibrated: no temperature was fitted.",
        torch_form=TORCH_FORM if with_torch else "", size=about["preprocessing"]["size"], n_cls=tasks[-1]["end"],
        about_key=ABOUT, layout=about["layout"],
        model=model_of(run, results, about),
        data=data_of(results),
        classes=table(["task", "columns", "temperature", "classes"], [
            [task["name"], f"{task['first']}:{task['end']}", f"{task['temperature']:.3g}", ", ".join(task["classes"])]
            for task in tasks]),
        results=results_of(run, results, about) if tested else
        "The run did not test this epoch, so nothing is known of its accuracy.",
        licence_note=f"The licence `{licence}` is that of the backbone's weights. It says nothing about the images of "
        "training.")


def model_of(run, results, about):
    """A table of what a model is and how it reads images."""
    size, mean, std, interpolation, mode, turned = about["preprocessing"].values()
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    return table(["", ""], [
        ["method", f"{about['method']} ({results['label']})"], ["backbone", about["backbone"]],
        ["images", f"{size}x{size}, {interpolation}, resize mode {mode}" + ", turned by EXIF" * turned],
        ["mean, std", f"{mean}, {std}"], ["learned values", f"{results['n_params']:,}"],
        ["run", Path(run).resolve().name], ["exported", today],
        ["versions", f"torch {torch.__version__}, onnx {onnx.__version__}"]])


def data_of(results):
    """A sentence on the images of a run."""
    shots, counts = plural(results["shots"]), (results[key] for key in ("n_train", "n_val", "n_test"))
    other = " Another run trained the model, perhaps on other data." * bool(results["model_dir"])
    return "Dataset {}, {} a class, seed {}: {:,} images of training, {:,} of validation, {:,} of the test.{}".format(
        text(results["dataset"]), shots, results["seed"], *counts, other)


def results_of(run, results, about):
    """A table of the test: accuracy, macro F1 and calibration errors per task, in percent, "-" where one is lacking."""
    path = osp.join(run, METRICS_FILE)
    if not results["tasks"]:
        return "The run tested nothing."
    figures = read_json(path)["tasks"] if osp.isfile(path) else [{}] * len(results["tasks"])
    rows = []
    for task, own, exported in zip(results["tasks"], figures, about["tasks"]):
        error = own.get("expected_calibration_error")
        before, after = (own.get("uncalibrated_error"), error) if about["calibrated"] else (error, None)
        rows.append([exported["name"], f"{task['total']:,}", *("-" if value is None else f"{value:.2f}" for value in (
            task["metric"], own.get("macro_f1"), before, after))])
    mean = f"{results['overall_metric']:.2f}"
    by_class = ", ".join(task["name"] for task in results["tasks"] if task["metric_name"] == "mean_acc")
    note = ("Of test images, in percent. The calibration error is the expected one, before and after the division by "
            "the temperature." + f" The accuracy of {text(by_class)} is the mean over the classes." * bool(by_class))
    return f"{note}\n\n" + table(
        ["task", "images", "accuracy", "macro F1", "calibration error before", "after"],
        [*rows, ["mean", "", mean, "", "", ""]])


def table(headers, rows):
    """A Markdown table of texts."""
    return tabulate([[text(cell) for cell in row] for row in rows], headers, tablefmt="github", disable_numparse=True)


def text(name):
    """A name as Markdown shows it."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", name)
