"""The identity of a run: a flat {key: value} of all that can change its result."""

import json

from common.digests import digest
from common.errors import UserError

from .keys import all_keys, method_keys
from .results import flatten

# Keys that change no result: {key: reason}.
NEUTRAL = {
    "VERSION": "of the config's layout",
    "OUTPUT_DIR": "where the run's files lie",
    "RESUME": "where its resume file lies",
    "USE_CUDA": "another device rounds otherwise, as another GPU does; what PREC becomes there is under `precision`",
    "VERBOSE": "prints more",
    "DATASET.ROOT": "where the images lie; which they are stands under data.*",
    "DATASET.SPLIT_DIR": "where splits and draws lie; which images they name stands under data.*",
    "DATALOADER.OLD_DATA_PATH": "where the images lie",
    "DATALOADER.NEW_DATA_PATH": "where the images lie",
    "DATALOADER.NUM_WORKERS": "how fast images are read; augmentation is drawn from (seed, epoch, image)",
    "DATALOADER.FEATURE_CACHE": "whether features are encoded or read",
    "DATALOADER.FEATURE_CACHE_DIR": "where features lie",
    "DATALOADER.TEST.BATCH_SIZE": "how many images are encoded or tested at once",
    "MODEL.BACKBONE.NAME": "the digest of the weights stands for it, under `weights`",
    "MODEL.CHECKPOINT_TEXT": "memory for time",
    "MODEL.TEXT_CHUNK": "how many prompts are encoded at once",
    "MODEL.COMPILE": "how kernels are made",
    "TRAIN.CHECKPOINT_FREQ": "how often the run is saved",
    "TRAIN.RESUME_SECONDS": "how often the run is saved",
    "TRAIN.PRINT_FREQ": "prints more",
    "TEST.EVALUATOR": "prints the same accuracy otherwise",
    "TEST.PER_TASK_RESULT": "prints more",
    "TEST.PER_CLASS_RESULT": "prints more",
    "TEST.COMPUTE_CMAT": "writes more",
    "TEST.SAVE_PREDICTIONS": "writes more",
}
# Keys that were added after people had run folders: with these values, as those runs had, they stand in no identity.
YOUNGER = {"INPUT.RESIZE_MODE": "shortest", "MODEL.BACKBONE.QUICK_GELU": "auto", "OPTIM.ADAM_EPS": 1e-8}
# Dassl's keys that no method here reads.
UNREAD = ("INPUT.NO_TRANSFORM", "INPUT.CUTOUT_", "INPUT.GN_", "DATASET.SOURCE_DOMAINS", "DATASET.TARGET_DOMAINS",
          "DATASET.NUM_LABELED", "DATASET.VAL_PERCENT", "DATASET.STL10_FOLD", "DATASET.CIFAR_C_",
          "DATASET.ALL_AS_UNLABELED", "DATALOADER.K_TRANSFORMS", "DATALOADER.RETURN_IMG0",
          "DATALOADER.TRAIN_X.N_DOMAIN", "DATALOADER.TRAIN_U.", "DATALOADER.TEST.SAMPLER", "MODEL.INIT_WEIGHTS",
          "MODEL.BACKBONE.PRETRAINED", "MODEL.HEAD.", "OPTIM.STAGED_LR", "OPTIM.NEW_LAYERS", "OPTIM.BASE_LR_MULT",
          "TRAIN.COUNT")
# Read only by a method that takes optimizer steps, or that reads training images.
OF_STEPS = ("OPTIM.", "TRAIN.", "DATALOADER.TRAIN_X.", "DATALOADER.VIEWS", "TEST.FINAL_MODEL", "TEST.NO_TEST")
OF_TRAINING_IMAGES = ("SEED", "DATASET.NUM_SHOTS", "DATASET.FEWSHOT_DRAW")
# May differ between the run that trained a model and one that tests it.
OF_TEST = ("DATASET.NAME", "DATASET.SUBSAMPLE_CLASSES", "DATASET.SUBSAMPLE_TASKS", "TEST.SPLIT", "precision", "data.",
           "model")
# May differ too, but are the model's unless they are given: the tested dataset may have no split file of CoOp's.
OF_DRAW = ("DATASET.FEWSHOT_DRAW", "DATASET.SKIP_BROKEN")


def reads(cfg, trainer, key):
    """True if a run of `trainer` (a class) may read `key`. Such a key counts, unless it is in `NEUTRAL`."""
    if key.startswith("TRAINER."):
        return key == "TRAINER.NAME" or key in method_keys(trainer)
    idle = key.startswith(OF_STEPS) and not trainer.steps(cfg) and key not in trainer.not_neutral
    return not (key.startswith(UNREAD) or idle or key in OF_TRAINING_IMAGES and not trainer.reads_training_images)


def settings_of(cfg, trainer):
    """The part of the identity that comes from the config: {key: value} of what `trainer` reads and is not neutral."""
    known = all_keys()
    found = {key: value for key, value in flatten(cfg) if key in known and not key.endswith(".PREC")
             and (key not in NEUTRAL or key in trainer.not_neutral) and key not in trainer.neutral
             and reads(cfg, trainer, key)
             and YOUNGER.get(key) != value}
    return json.loads(json.dumps(found))  # as it is read back: lists for tuples


def digests_of(tasks, train, val, test):
    """Digests of the tasks and of the names and labels of the images: {"tasks", "train", "val", "test": digest}.

    Args:
        tasks: list of `Task`. train, val, test: lists of datums with `name` and `label`.
    """
    images = {part: [[datum.name, datum.label] for datum in datums or ()]
              for part, datums in (("train", train), ("val", val), ("test", test))}
    described = [[task.name, list(task.classnames), task.template, task.metric] for task in tasks]
    return {part: digest(value) for part, value in {"tasks": described, **images}.items()}


def identity_of(cfg, trainer, data, weights, precision, model=""):
    """The identity of a run.

    Args:
        cfg: its config. trainer: its class.
        data: as `digests_of`.
        weights: digest of the backbone.
        precision: the one that was computed in.
        model: the digest of the model that is tested with --eval-only, else "".

    Returns:
        A flat {key: JSON value}.
    """
    parts = data if trainer.reads_training_images else {part: data[part] for part in ("tasks", "test")}
    return {**settings_of(cfg, trainer), "precision": precision,
            **{f"data.{part}": digest for part, digest in parts.items()}, "weights": weights, "model": model}


def differences(there, here):
    """["KEY is X there and Y here"] of two identities, for every key that differs.

    An identity may lack a config key that another version of this code counts: it then has the key's default.
    """
    default = json.loads(json.dumps({name: key.default for name, key in all_keys().items()}))
    there, here = default | there, default | here
    return [f"{name_of(key)} is {there.get(key, 'none')!r} there and {here.get(key, 'none')!r} here"
            for key in sorted({*there, *here}) if there.get(key) != here.get(key)]


def name_of(key):
    """The name by which a user knows a key of an identity."""
    return {"weights": "weights (MODEL.BACKBONE.NAME)", "model": "model (--model-dir)",
            "precision": "precision (PREC)"}.get(key, f"{key} (the images)" if key.startswith("data.") else key)


def check_same(there, here, folder, state):
    """Refuse a folder that holds another run.

    Args:
        there: the identity that the folder holds. here: that of this call.
        state: "a finished" or "an unfinished".

    Raises:
        UserError: they differ; the message names each key with both values.
    """
    found = differences(there, here)
    if found:
        hint = ("; a run with another number of epochs has another schedule, it is not this one's continuation"
                if there.get("OPTIM.MAX_EPOCH") != here.get("OPTIM.MAX_EPOCH") else "")
        raise UserError(f"{folder} holds {state} run with other settings: {'; '.join(found)}{hint}: give the same "
                        "settings, or another --output-dir")


def check_model(there, here, model_dir):
    """Refuse to test a model under settings that it was not trained with.

    Raises:
        UserError: the identities differ in more than the data and what testing alone reads.
    """
    there, here = ({key: value for key, value in identity.items() if not key.startswith((*OF_TEST, *OF_DRAW))}
                   for identity in (there, here))
    found = differences(there, here)
    if found:
        raise UserError(f"the model in {model_dir} was trained with other settings: {'; '.join(found)}: give those, or "
                        "leave them out, they are then taken from the model")
