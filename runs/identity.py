"""The identity of a run: a flat {key: value} of everything that can change its result."""

import json

from common.digests import digest
from common.errors import UserError
from common.file_digests import digest_files

from .keys import all_keys, method_keys
from .results import flatten

# Keys that change no result: {key: reason}.
NEUTRAL = {
    "VERSION": "version of the config's layout",
    "OUTPUT_DIR": "place of the run's files",
    "RESUME": "place of the resume file",
    "USE_CUDA": "another device rounds differently, as another GPU does; `precision` holds what PREC becomes there",
    "VERBOSE": "prints more",
    "DATASET.ROOT": "place of the images; data.* identifies them",
    "DATASET.SPLIT_DIR": "place of splits and draws; data.* identifies the images that they name",
    "DATALOADER.OLD_DATA_PATH": "place of the images",
    "DATALOADER.NEW_DATA_PATH": "place of the images",
    "DATALOADER.NUM_WORKERS": "speed of reading images; augmentation is drawn from (seed, epoch, image)",
    "DATALOADER.FEATURE_CACHE": "features are read instead of encoded",
    "DATALOADER.FEATURE_CACHE_DIR": "place of the features",
    "DATALOADER.TEST.BATCH_SIZE": "number of images that are encoded or tested at once",
    "MODEL.BACKBONE.NAME": "`weights` holds a digest of its weights",
    "MODEL.CHECKPOINT_TEXT": "saves memory, takes time",
    "MODEL.CHECKPOINT_IMAGE": "saves memory, takes time",
    "MODEL.TEXT_CHUNK": "number of prompts that are encoded at once",
    "MODEL.COMPILE": "speed",
    "MODEL.CUDA_GRAPH": "speed",
    "TRAIN.CHECKPOINT_FREQ": "the run is saved more often",
    "TRAIN.RESUME_SECONDS": "the run is saved more often",
    "TRAIN.PRINT_FREQ": "prints more",
    "TEST.EVALUATOR": "prints the same accuracy in another form",
    "TEST.PER_TASK_RESULT": "prints more",
    "TEST.PER_CLASS_RESULT": "prints more",
    "TEST.COMPUTE_CMAT": "writes more",
    "TEST.SAVE_PREDICTIONS": "writes more",
}
# Keys that were added when run folders existed already. Those runs had these values: an identity leaves them out.
ADDED_LATER = {"INPUT.RESIZE_MODE": "shortest", "MODEL.BACKBONE.QUICK_GELU": "auto", "OPTIM.ADAM_EPS": 1e-8,
                "OPTIM.COSINE_MIN_LR": 0.0, "TEST.CALIBRATE": False}
# Dassl's keys that no method here reads.
UNREAD = ("INPUT.NO_TRANSFORM", "INPUT.CUTOUT_", "INPUT.GN_", "DATASET.SOURCE_DOMAINS", "DATASET.TARGET_DOMAINS",
          "DATASET.NUM_LABELED", "DATASET.VAL_PERCENT", "DATASET.STL10_FOLD", "DATASET.CIFAR_C_",
          "DATASET.ALL_AS_UNLABELED", "DATALOADER.K_TRANSFORMS", "DATALOADER.RETURN_IMG0",
          "DATALOADER.TRAIN_X.N_DOMAIN", "DATALOADER.TRAIN_U.", "DATALOADER.TEST.SAMPLER", "MODEL.INIT_WEIGHTS",
          "MODEL.BACKBONE.PRETRAINED", "MODEL.HEAD.", "OPTIM.STAGED_LR", "OPTIM.NEW_LAYERS", "OPTIM.BASE_LR_MULT",
          "TRAIN.COUNT")
# Keys that only a method with optimizer steps reads, and keys that only a method with training images reads.
OF_STEPS = ("OPTIM.", "TRAIN.", "DATALOADER.TRAIN_X.", "DATALOADER.VIEWS", "TEST.FINAL_MODEL", "TEST.NO_TEST")
OF_TRAINING_IMAGES = ("SEED", "DATASET.NUM_SHOTS", "DATASET.FEWSHOT_DRAW")
# Keys that may differ between the run that trained a model and one that tests it.
OF_TEST = ("DATASET.NAME", "DATASET.SUBSAMPLE_CLASSES", "DATASET.SUBSAMPLE_TASKS", "TEST.SPLIT", "TEST.CALIBRATE",
           "precision", "data.", "model")
# They may differ too, since the tested dataset may have no split file of CoOp's; by default they are the model's.
OF_DRAW = ("DATASET.FEWSHOT_DRAW", "DATASET.SKIP_BROKEN")


def reads(cfg, trainer, key):
    """True if a run of `trainer` (a class) may read `key`. Such a key counts, unless it is in `NEUTRAL`."""
    if key.startswith("TRAINER."):
        return key == "TRAINER.NAME" or key in method_keys(trainer)
    idle = key.startswith(OF_STEPS) and not trainer.steps(cfg) and key not in trainer.not_neutral
    return not (key.startswith(UNREAD) or idle or key in OF_TRAINING_IMAGES and not trainer.reads_training_images)


def settings_of(cfg, trainer):
    """The part of an identity that comes from the config: {key: value} of what `trainer` reads, but neutral keys."""
    keys = all_keys()
    found = {key: value for key, value in flatten(cfg) if key in keys and not key.endswith(".PREC")
             and (key not in NEUTRAL or key in trainer.not_neutral) and key not in trainer.neutral
             and reads(cfg, trainer, key) and ADDED_LATER.get(key) != value}
    return json.loads(json.dumps(found))  # tuples become lists, as in the files that hold an identity


def digests_of(tasks, train, val, test):
    """Digests of tasks (list of `Task`) and of the names and labels of images (lists of datums or None).

    Returns:
        {"tasks", "train", "val", "test": digest}.
    """
    contents = digest_files([datum.impath for datums in (train, val, test) for datum in datums or ()])
    images = {part: [[datum.name, datum.label, contents[datum.impath]] for datum in datums or ()]
              for part, datums in (("train", train), ("val", val), ("test", test))}
    described = [[task.name, list(task.classnames), task.template, task.metric] for task in tasks]
    return {part: digest(value) for part, value in {"tasks": described, **images}.items()}


def identity_of(cfg, trainer, data, weights, precision, model=""):
    """The identity of a run, a flat {key: JSON value}.

    Args:
        cfg, trainer: its config and class. data: as `digests_of` returns it. weights: digest of the backbone.
        precision: that of its computations. model: digest of the model that is tested with --eval-only, else "".
    """
    parts = data if trainer.reads_training_images else {
        part: data[part] for part in ("tasks", *["val"] * cfg.TEST.CALIBRATE, "test")}
    return {**settings_of(cfg, trainer), "precision": precision,
            **{f"data.{part}": digest for part, digest in parts.items()}, "weights": weights, "model": model}


def differences(there, here):
    """Compare two identities: ["KEY is X there and Y here"] for every key that differs.

    If an identity lacks a config key, which another version of this code may do, the key's default counts.
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
    """Refuse a folder that holds `state` ("a finished" or "an unfinished") run with another identity.

    Raises:
        UserError: `there`, the identity in the folder, is not `here`; the message names each key with both values.
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
        UserError: the identities differ in a setting of training.
    """
    there, here = ({key: value for key, value in identity.items() if not key.startswith((*OF_TEST, *OF_DRAW))}
                   for identity in (there, here))
    found = differences(there, here)
    if found:
        raise UserError(f"the model in {model_dir} was trained with other settings: {'; '.join(found)}: give those, or "
                        "leave them out, they are then taken from the model")
