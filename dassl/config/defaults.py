"""Every key that the toolbox reads or accepts, with upstream's names and values."""

from typing import Annotated, Literal

from pydantic import Field

from common.keys import Count, Key, Natural, NotNegative, Positive, Share

Texts = tuple[str, ...]
Sizes = tuple[Count, Count]
Jitter = NotNegative
# "none of the Dassl code here reads it": accepted, since configs of the CoOp family set it
UNREAD = "not read here; accepted since upstream has it"

KEYS = {
    "VERSION": Key(1, "of the config's layout", int),
    "OUTPUT_DIR": Key("./output", "folder of the run", Annotated[str, Field(min_length=1)]),
    "RESUME": Key("", "folder of an earlier run to resume from; empty: OUTPUT_DIR", str),
    "SEED": Key(-1, "random seed; -1: `train.py` draws one and says it", Annotated[int, Field(ge=-1, lt=2**32)]),
    "USE_CUDA": Key(True, "use a GPU if there is one", bool),
    "VERBOSE": Key(True, "print a summary of the dataset", bool),
    # ---------------------------------------------------------------- images
    "INPUT.SIZE": Key((224, 224), "(height, width) of the images the model reads", Sizes),
    "INPUT.INTERPOLATION": Key("bilinear", "of resizing", Literal["bilinear", "bicubic", "nearest"]),
    "INPUT.RESIZE_MODE": Key("shortest", "of test images: the shorter side becomes SIZE and the middle is cut out; the "
                             "longest does and the rest is black; or both do, whatever the shape (squash)",
                             Literal["shortest", "longest", "squash"]),
    "INPUT.TRANSFORMS": Key((), "names of the transforms of training images", Texts),
    "INPUT.NO_TRANSFORM": Key(False, "give images as they are read", bool),
    "INPUT.PIXEL_MEAN": Key([0.485, 0.456, 0.406], "mean that `normalize` subtracts, per channel",
                            tuple[float, float, float]),
    "INPUT.PIXEL_STD": Key([0.229, 0.224, 0.225], "standard deviation that `normalize` divides by, per channel",
                           tuple[Positive, Positive, Positive]),
    "INPUT.CROP_PADDING": Key(4, "padding of `random_crop`", Natural),
    "INPUT.RRCROP_SCALE": Key((0.08, 1.0), "share of the area that `random_resized_crop` keeps",
                              tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]]),
    "INPUT.CUTOUT_N": Key(1, UNREAD, Natural),
    "INPUT.CUTOUT_LEN": Key(16, UNREAD, Natural),
    "INPUT.GN_MEAN": Key(0.0, UNREAD, float),
    "INPUT.GN_STD": Key(0.15, UNREAD, NotNegative),
    "INPUT.RANDAUGMENT_N": Key(2, "number of operations of `randaugment`", Natural),
    "INPUT.RANDAUGMENT_M": Key(10, "strength of `randaugment`", Annotated[int, Field(ge=0, le=30)]),
    "INPUT.COLORJITTER_B": Key(0.4, "brightness of `colorjitter`", Jitter),
    "INPUT.COLORJITTER_C": Key(0.4, "contrast of `colorjitter`", Jitter),
    "INPUT.COLORJITTER_S": Key(0.4, "saturation of `colorjitter`", Jitter),
    "INPUT.COLORJITTER_H": Key(0.1, "hue of `colorjitter`", Annotated[float, Field(ge=0, le=0.5)]),
    "INPUT.RGS_P": Key(0.2, "probability of `randomgrayscale`", Share),
    "INPUT.GB_P": Key(0.5, "probability of `gaussian_blur`", Share),
    "INPUT.GB_K": Key(21, "kernel size of `gaussian_blur`", Count),
    # ---------------------------------------------------------------- dataset
    "DATASET.ROOT": Key("", "folder of the datasets", str),
    "DATASET.NAME": Key("", "name of the dataset", str),
    "DATASET.SOURCE_DOMAINS": Key((), "Dassl's source domains", Texts),
    "DATASET.TARGET_DOMAINS": Key((), "Dassl's target domains", Texts),
    "DATASET.NUM_LABELED": Key(-1, UNREAD, int),
    "DATASET.NUM_SHOTS": Key(-1, "training images per class; below 1: all", int),
    "DATASET.VAL_PERCENT": Key(0.1, UNREAD, Share),
    "DATASET.STL10_FOLD": Key(-1, UNREAD, int),
    "DATASET.CIFAR_C_TYPE": Key("", UNREAD, str),
    "DATASET.CIFAR_C_LEVEL": Key(1, UNREAD, int),
    "DATASET.ALL_AS_UNLABELED": Key(False, UNREAD, bool),
    # ---------------------------------------------------------------- data loaders
    "DATALOADER.NUM_WORKERS": Key(4, "processes that read images; no more are started than there are cores or batches "
                                  "of DATALOADER.TEST.BATCH_SIZE, and none for a single batch", Natural),
    "DATALOADER.K_TRANSFORMS": Key(1, "how many times the training transform is applied to each image", Count),
    "DATALOADER.RETURN_IMG0": Key(False, "also return the image without augmentation, as `img0`", bool),
    "DATALOADER.TRAIN_X.SAMPLER": Key("RandomSampler", "order of the training images", str),
    "DATALOADER.TRAIN_X.BATCH_SIZE": Key(32, "training images in a batch", Count),
    "DATALOADER.TRAIN_X.N_DOMAIN": Key(0, UNREAD, Natural),
    "DATALOADER.TRAIN_X.N_INS": Key(16, "images per class in a batch of RandomClassSampler", Count),
    "DATALOADER.TRAIN_U.SAME_AS_X": Key(True, UNREAD, bool),
    "DATALOADER.TRAIN_U.SAMPLER": Key("RandomSampler", UNREAD, str),
    "DATALOADER.TRAIN_U.BATCH_SIZE": Key(32, UNREAD, Count),
    "DATALOADER.TRAIN_U.N_DOMAIN": Key(0, UNREAD, Natural),
    "DATALOADER.TRAIN_U.N_INS": Key(16, UNREAD, Count),
    "DATALOADER.TEST.SAMPLER": Key("SequentialSampler", "order of the test images", str),
    "DATALOADER.TEST.BATCH_SIZE": Key(32, "images tested at once, and encoded, on a CPU at most 25", Count),
    # ---------------------------------------------------------------- model
    "MODEL.INIT_WEIGHTS": Key("", UNREAD, str),
    "MODEL.BACKBONE.NAME": Key("", "of the backbone", str),
    "MODEL.BACKBONE.PRETRAINED": Key(True, UNREAD, bool),
    "MODEL.HEAD.NAME": Key("", UNREAD, str),
    "MODEL.HEAD.HIDDEN_LAYERS": Key((), UNREAD, tuple[Count, ...]),
    "MODEL.HEAD.ACTIVATION": Key("relu", UNREAD, str),
    "MODEL.HEAD.BN": Key(True, UNREAD, bool),
    "MODEL.HEAD.DROPOUT": Key(0.0, UNREAD, Share),
    # ---------------------------------------------------------------- optimization
    "OPTIM.NAME": Key("adam", "the optimizer", Literal["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]),
    "OPTIM.LR": Key(0.0003, "learning rate", Positive),
    "OPTIM.WEIGHT_DECAY": Key(5e-4, "weight decay", NotNegative),
    "OPTIM.MOMENTUM": Key(0.9, "momentum of sgd and rmsprop", NotNegative),
    "OPTIM.SGD_DAMPNING": Key(0, "dampening of sgd", NotNegative),
    "OPTIM.SGD_NESTEROV": Key(False, "Nesterov's momentum of sgd", bool),
    "OPTIM.RMSPROP_ALPHA": Key(0.99, "smoothing of rmsprop", Share),
    "OPTIM.ADAM_BETA1": Key(0.9, "of adam and its kind", Annotated[float, Field(ge=0, lt=1)]),
    "OPTIM.ADAM_BETA2": Key(0.999, "of adam and its kind", Annotated[float, Field(ge=0, lt=1)]),
    "OPTIM.ADAM_EPS": Key(1e-8, "of adam and its kind: added to what the gradient is divided by", Positive),
    "OPTIM.STAGED_LR": Key(False, "give the layers outside NEW_LAYERS the rate LR * BASE_LR_MULT", bool),
    "OPTIM.NEW_LAYERS": Key((), "layers that learn at LR under STAGED_LR", Texts | str),
    "OPTIM.BASE_LR_MULT": Key(0.1, "of the other layers under STAGED_LR", NotNegative),
    "OPTIM.LR_SCHEDULER": Key("single_step", "schedule of the rate", Literal["single_step", "multi_step", "cosine"]),
    "OPTIM.STEPSIZE": Key((-1,), "single_step: the last entry (<= 0: never step); multi_step: the milestones",
                          int | tuple[int, ...]),
    "OPTIM.GAMMA": Key(0.1, "factor of single_step and multi_step", NotNegative),
    "OPTIM.COSINE_MIN_LR": Key(0.0, "rate that cosine ends at", NotNegative),
    "OPTIM.MAX_EPOCH": Key(10, "epochs of training", Count),
    "OPTIM.WARMUP_EPOCH": Key(-1, "epochs of warm-up; <= 0: none", int),
    "OPTIM.WARMUP_TYPE": Key("linear", "of warm-up", Literal["linear", "constant"]),
    "OPTIM.WARMUP_CONS_LR": Key(1e-5, "rate of a constant warm-up", NotNegative),
    "OPTIM.WARMUP_MIN_LR": Key(1e-5, "first rate of a linear warm-up", NotNegative),
    "OPTIM.WARMUP_RECOUNT": Key(True, "the scheduler after the warm-up counts from 0, else from WARMUP_EPOCH", bool),
    # ---------------------------------------------------------------- training and testing
    "TRAIN.CHECKPOINT_FREQ": Key(0, "save every so many epochs; 0: only after the last one", Natural),
    "TRAIN.PRINT_FREQ": Key(10, "print every so many batches", Count),
    "TRAIN.COUNT": Key("train_x", UNREAD, str),
    "TEST.EVALUATOR": Key("Classification", "name of the evaluator", str),
    "TEST.PER_CLASS_RESULT": Key(False, "print the accuracy of every class", bool),
    "TEST.COMPUTE_CMAT": Key(False, "write the confusion matrix, normalised by row, to cmat.pt", bool),
    "TEST.NO_TEST": Key(False, "do not test after training", bool),
    "TEST.SPLIT": Key("test", "what is tested on", Literal["test", "val"]),
    "TEST.FINAL_MODEL": Key("last_step", "which model is tested after training", Literal["last_step", "best_val"]),
    "TRAINER.NAME": Key("", "name of the trainer", str),
}
