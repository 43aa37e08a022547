"""This project's config keys, besides Dassl's and those that each method declares."""

import functools
from dataclasses import replace
from operator import getitem
from typing import Annotated, Literal

from pydantic import Field

from common.errors import UserError
from common.keys import Key, Natural, build_cfg
from dassl.config import KEYS as DASSL_KEYS

from .methods import TRAINERS

OWN_KEYS = {
    # The defaults are those of OpenAI's models.
    **{key: replace(DASSL_KEYS[key], default=default,
                    meaning=f"{DASSL_KEYS[key].meaning}; not set: the backbone's own") for key, default in {
           "INPUT.SIZE": (224, 224), "INPUT.INTERPOLATION": "bicubic", "INPUT.RESIZE_MODE": "shortest",
           "INPUT.PIXEL_MEAN": [0.48145466, 0.4578275, 0.40821073],
           "INPUT.PIXEL_STD": [0.26862954, 0.26130258, 0.27577711]}.items()},
    "DATASET.SUBSAMPLE_CLASSES": Key("all", "classes of every task: all, the first half (base), the others (new)",
                                     Literal["all", "base", "new"]),
    "DATASET.SUBSAMPLE_TASKS": Key("all", "all, base (the first half), new (the others), task<i>, or task<i>,task<j>",
                                   str),
    "DATASET.SPLIT_DIR": Key("", "where splits and few-shot draws are stored; empty: split_fewshot in the dataset's "
                             "folder", str),
    "DATASET.FEWSHOT_DRAW": Key("auto", "how few shots are drawn: as CoOp's code from its split file, nested (k shots "
                                "are among k + 1), auto: coop where split_zhou_*.json is there, else nested",
                                Literal["auto", "coop", "nested"]),
    "DATASET.SKIP_BROKEN": Key(False, "leave out images that can't be read, else they are listed and the run ends; all "
                               "images of the dataset are decoded once to know them", bool),
    "DATALOADER.OLD_DATA_PATH": Key("", "a prefix of image paths ...", str),
    "DATALOADER.NEW_DATA_PATH": Key("", "... and what to put in its place", str),
    "DATALOADER.VIEWS": Key(0, "augmented views of each training image: epoch e takes view e mod VIEWS, so fewer are "
                            "encoded; 0: as many as epochs", Natural),
    "DATALOADER.FEATURE_CACHE": Key(True, "keep image features on disk", bool),
    "DATALOADER.FEATURE_CACHE_DIR": Key("", "where; empty: ~/.cache/softcpt/features", str),
    "MODEL.BACKBONE.QUICK_GELU": Key("auto", "whether its activation is QuickGELU or GELU; auto: what its config or "
                                     "the published weights of ARCH say, and QuickGELU for a file without either",
                                     Literal["auto", True, False]),
    "MODEL.CHECKPOINT_TEXT": Key(False, "recompute the text encoder's activations: less memory, a third more time",
                                 bool),
    "MODEL.CHECKPOINT_IMAGE": Key(False, "recompute the activations of a vision transformer's blocks, where a method "
                                  "learns inside it: less memory, more time", bool),
    "MODEL.TEXT_CHUNK": Key(0, "most prompts encoded at once, and again in the backward pass: less memory, up to half "
                            "as much time again; 0: as many as the memory asks for, -1: all",
                            Annotated[int, Field(ge=-1)]),
    "MODEL.COMPILE": Key(False, "torch.compile the text encoder's blocks: the first step takes half a minute", bool),
    "MODEL.CUDA_GRAPH": Key("auto", "a training step on a GPU as one CUDA graph; auto: where the method's steps can be "
                            "one, True: or the run ends", Literal["auto", True, False]),
    "OPTIM.STEP_PER_PART": Key(True, "step optimizer and scheduler once per trained part, as the published code, or "
                               "once", bool),
    "TRAIN.RESUME_SECONDS": Key(30, "least time between two resume files", Natural),
    "TEST.EVALUATOR": Key("ClassificationMT", "the metric; Classification is Dassl's name for it, with a single task",
                          Literal["ClassificationMT", "Classification"]),
    "TEST.PER_TASK_RESULT": Key(True, "print the accuracy of every task", bool),
    "TEST.CALIBRATE": Key(False, "fit a temperature for each task on its validation images, for its probabilities; "
                          "accuracies stay", bool),
    "TEST.SAVE_PREDICTIONS": Key(False, "write the prediction of every test image to predictions.csv", bool),
}


def method_keys(trainer):
    """{name: `Key`} of a trainer class's own options, under their node."""
    return {f"TRAINER.{trainer.node}.{name}": key for name, key in trainer.keys.items()}


def all_keys():
    """{name: `Key`} of every key, in the order of the docs."""
    keys = {**DASSL_KEYS, **OWN_KEYS}
    for trainer in TRAINERS.values():
        keys.update(method_keys(trainer))
    return keys


def default_cfg():
    """A config with every key's default."""
    return build_cfg(all_keys())


def source_of(cfg, key):
    """Say where a key was set, as " (set in FILE:LINE)"; "" if it has its default."""
    source = getattr(cfg, "sources", {}).get(key)
    return f" (set {source})" if source else ""


def value_of(cfg, key):
    """Return the value of a key such as "A.B" in a config."""
    return functools.reduce(getitem, key.split("."), cfg)


def refusal(cfg, key, accepted):
    """A `UserError` that names a key, its value, its source and `accepted`, such as "must be ..."."""
    return UserError(f"{key} is {value_of(cfg, key)!r}{source_of(cfg, key)}, but {accepted}")


def markdown():
    """The table of all keys, for the docs."""
    lines = ["| key | default | meaning | accepts |", "| --- | --- | --- | --- |"]
    for name, key in all_keys().items():
        cells = f"`{name}`", f"`{key.default!r}`", key.meaning, key.describe()
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
