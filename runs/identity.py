"""What identifies a run: a flat {key: value} of all that can change its result, and nothing that can't."""

import json

from common.digests import digest
from common.errors import UserError

from .keys import all_keys, method_keys
from .results import flatten

# Keys that change no result, and why.
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
    "TRAINER.COCOOP.MAX_PROMPTS": "how many prompts are encoded at once",
}
# Keys younger than run folders that people have, and what those runs did: no part of an identity with that value.
YOUNGER = {"INPUT.RESIZE_MODE": "shortest", "MODEL.BACKBONE.QUICK_GELU": "auto"}
# Dassl's keys that no method here reads.
UNREAD = ("INPUT.NO_TRANSFORM", "INPUT.CUTOUT_", "INPUT.GN_", "DATASET.SOURCE_DOMAINS", "DATASET.TARGET_DOMAINS",
          "DATASET.NUM_LABELED", "DATASET.VAL_PERCENT", "DATASET.STL10_FOLD", "DATASET.CIFAR_C_",
          "DATASET.ALL_AS_UNLABELED", "DATALOADER.K_TRANSFORMS", "DATALOADER.RETURN_IMG0",
          "DATALOADER.TRAIN_X.N_DOMAIN", "DATALOADER.TRAIN_U.", "DATALOADER.TEST.SAMPLER", "MODEL.INIT_WEIGHTS",
          "MODEL.BACKBONE.PRETRAINED", "MODEL.HEAD.", "OPTIM.STAGED_LR", "OPTIM.NEW_LAYERS", "OPTIM.BASE_LR_MULT",
          "TRAIN.COUNT")
# Read by training with an optimizer only.
STEPS = ("OPTIM.", "TRAIN.", "DATALOADER.TRAIN_X.", "TEST.FINAL_MODEL", "TEST.NO_TEST")
# Read with this transform among INPUT.TRANSFORMS only.
OF_TRANSFORM = {"INPUT.CROP_PADDING": "random_crop", "INPUT.RRCROP_SCALE": "random_resized_crop",
                "INPUT.RANDAUGMENT_": "randaugment", "INPUT.COLORJITTER_": "colorjitter",
                "INPUT.RGS_P": "randomgrayscale", "INPUT.GB_": "gaussian_blur", "INPUT.PIXEL_": "normalize"}
# Read with these optimizers only.
OF_OPTIMIZER = {"OPTIM.MOMENTUM": ("sgd", "rmsprop"), "OPTIM.SGD_": ("sgd",), "OPTIM.RMSPROP_ALPHA": ("rmsprop",),
                "OPTIM.ADAM_": ("adam", "amsgrad", "adamw", "radam")}
# May differ between the run that trained a model and one that tests it.
OF_TEST = ("DATASET.NAME", "DATASET.SUBSAMPLE_CLASSES", "DATASET.SUBSAMPLE_TASKS", "TEST.SPLIT", "precision", "data.",
           "model")
# May differ as well, but are the model's unless they are given: the dataset tested may have no split file of CoOp's.
OF_DRAW = ("DATASET.FEWSHOT_DRAW", "DATASET.SKIP_BROKEN")


def reads(cfg, trainer, key):
    """Whether the result of a run of `trainer` (a class) can depend on `key`, or on where or how fast it works."""
    if key.startswith("TRAINER."):
        return key == "TRAINER.NAME" or key in method_keys(trainer)
    if key.startswith(UNREAD):
        return False
    if key in ("SEED", "DATASET.NUM_SHOTS", "DATASET.FEWSHOT_DRAW", "DATASET.SPLIT_DIR"):
        return trainer.reads_training_images
    if not trainer.steps(cfg) and (key.startswith(STEPS) or key == "INPUT.TRANSFORMS"):
        return False
    if key == "DATALOADER.VIEWS":  # as many as epochs, or more, is as 0
        return trainer.steps(cfg) and 0 < cfg.DATALOADER.VIEWS < cfg.OPTIM.MAX_EPOCH
    for prefix, transform in OF_TRANSFORM.items():
        if key.startswith(prefix):
            return transform in cfg.INPUT.TRANSFORMS
    for prefix, names in OF_OPTIMIZER.items():
        if key.startswith(prefix):
            return cfg.OPTIM.NAME in names
    if key.startswith("OPTIM.WARMUP_") and key != "OPTIM.WARMUP_EPOCH":
        return cfg.OPTIM.WARMUP_EPOCH > 0 and not key.endswith(
            {"linear": "CONS_LR", "constant": "MIN_LR"}[cfg.OPTIM.WARMUP_TYPE])
    if key in ("OPTIM.STEPSIZE", "OPTIM.GAMMA"):
        return cfg.OPTIM.LR_SCHEDULER != "cosine"
    if key == "DATALOADER.TRAIN_X.N_INS":
        return cfg.DATALOADER.TRAIN_X.SAMPLER == "RandomClassSampler"
    return True


def settings_of(cfg, trainer):
    """The part of the identity that the config gives: {key: value} of what `trainer` reads and is not neutral."""
    known = all_keys()
    found = {key: value for key, value in flatten(cfg) if key in known and not key.endswith(".PREC")
             and (key not in NEUTRAL or key in trainer.not_neutral) and reads(cfg, trainer, key)
             and YOUNGER.get(key) != value}
    return json.loads(json.dumps(found))  # as it is read back: lists for tuples


def digests_of(tasks, train, val, test):
    """{"tasks", "train", "val", "test": digest}: what the tasks are, and which images there are, with their labels.

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
        precision: what PREC became on the device.
        model: of a run with --eval-only, the digest of what was learned.

    Returns:
        A flat {key: JSON value}.
    """
    parts = data if trainer.reads_training_images else {part: data[part] for part in ("tasks", "test")}
    return {**settings_of(cfg, trainer), "precision": precision,
            **{f"data.{part}": digest for part, digest in parts.items()}, "weights": weights, "model": model}


def differences(there, here):
    """["KEY: X there, Y here"] of two identities, "none" standing for a key that one of them has not."""
    return [f"{name_of(key)} is {there.get(key, 'none')!r} there and {here.get(key, 'none')!r} here"
            for key in sorted({*there, *here}) if there.get(key) != here.get(key)]


def name_of(key):
    """A key of an identity as a user knows it."""
    return {"weights": "weights (MODEL.BACKBONE.NAME)", "model": "model (--model-dir)",
            "precision": "precision (PREC)"}.get(key, f"{key} (the images)" if key.startswith("data.") else key)


def check_same(there, here, folder, state):
    """Refuse a folder that another run has.

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
