"""The base of `MultiTaskTrainer` that methods fill: what they say of themselves, and the gaps of a run."""

import zlib

import torch

from runs.keys import refusal


class Method:
    """A method declares itself by class attributes, and fills the gaps of a run's lifecycle, in this order:

    - `build_clip_model(clip_model)` returns its model, a `MultiTaskCLIP`, which says what is minimised (`losses`).
    - `prepare()` makes what a fresh run starts from of image features, such as a classifier or a cache of keys.
    - `step(images, labels, repeats)` is a batch, by default the gradients of `losses["loss"]`, then the optimizer.
      A method may override `backward`, `add_gradients` or `step`, and `make_train_loader` for other batches; these are
      methods of `MultiTaskTrainer`.
    - `end_epoch()` is what a method does after an epoch, before the model is validated and saved.
    - `calibrate()` chooses on validation images what the trained model needs besides, before it is saved.

    `parts` names the submodules of the model that are trained and saved. docs/extending.md has worked examples.

    Attributes:
        options: the method's node of the config, or None.
    """

    node = ""  # name of the method's options under cfg.TRAINER
    keys = {}  # {option: Key} of that node
    rows = ()  # `Row`s of the results tables
    # How it is run, with the words of its script in braces; {MODEL} is CFG without its schedule, {SELECTED} the tasks.
    config = "{CFG}"  # its yaml file below configs/trainers
    arguments = ()  # options of its node that its script takes after DATASET CFG SHOTS
    folder_name = "{TRAINER}/{CFG}_{SHOTS}shots/seed{SEED}"  # below OUTPUT/DATASET; parts in [] are optional
    optim = {}  # {key: value, or function of the config}: its schedule, after yaml files and before the command line
    # Whether values of the image tower, or prompts inside it, learn: batches are then pixels, and no feature is kept.
    learns_images = False
    learns_texts = False  # whether values of the text tower learn
    rate_by_batch = False  # whether the schedule of the rate goes on with every batch instead of every epoch
    # Whether losses and backward pass of a batch have fixed shapes, read no value, draw nothing and change nothing but
    # gradients: on a GPU they are then one CUDA graph.
    fixed_steps = True
    drop_last = True  # whether an epoch leaves out a last, smaller batch
    reads_training_images = True
    reads_validation_images = False  # whether it can do nothing without them
    reads_templates = False  # whether its class features read the tasks' hand-written templates
    not_neutral = ()  # keys that change this method's result, though they change no other's
    neutral = ()  # keys of its own that change no result

    def check_cfg(self, cfg):
        """Refuse settings that do not fit together; a method adds its own."""
        by_class = [option for option, kind in self.specific(self.options).items() if kind == "class"]
        if cfg.DATASET.SUBSAMPLE_CLASSES == "new" and by_class:
            raise refusal(cfg, "DATASET.SUBSAMPLE_CLASSES", "; ".join(
                f"{self.name_of(option)} learns something of its own for every class, and what it learned exists only "
                "for the classes of training" for option in by_class))
        for key in ("INPUT.NO_TRANSFORM", "DATALOADER.RETURN_IMG0"):
            if cfg[key.split(".")[0]][key.split(".")[1]]:
                raise refusal(cfg, key, f"{type(self).__name__} needs transformed images: leave it False")
        if cfg.MODEL.INIT_WEIGHTS:
            raise refusal(cfg, "MODEL.INIT_WEIGHTS", f"{type(self).__name__} starts from its own initial values: leave "
                          "it empty; --eval-only --model-dir tests what a run has learned")
        if cfg.TEST.CALIBRATE and cfg.TEST.SPLIT == "val":
            raise refusal(cfg, "TEST.CALIBRATE", "fits temperatures on the validation images, and TEST.SPLIT val tests "
                          "on them: leave one of the two out")
        if cfg.MODEL.CUDA_GRAPH is True and not self.fixed_steps:
            raise refusal(cfg, "MODEL.CUDA_GRAPH", f"a step of {type(self).__name__} can't be one CUDA graph, since it "
                          "draws, or its shapes depend on the batch: leave it auto")
        if cfg.DATALOADER.K_TRANSFORMS != 1:
            raise refusal(cfg, "DATALOADER.K_TRANSFORMS", f"{type(self).__name__} takes each image once: leave it 1")

    @classmethod
    def steps(cls, cfg):
        """True if an optimizer steps what the method learns, on the batches of `OPTIM.MAX_EPOCH` epochs."""
        return True

    @staticmethod
    def parts(options):
        """Names of the model's submodules that learn, and are saved; `options` is the method's node."""
        return []

    @staticmethod
    def frozen_parts(options):
        """Names of the model's submodules that are saved besides, since they can't be made again."""
        return []

    @staticmethod
    def shared_parts(options):
        """Names of the parts that read tasks none of which was trained on, without the other parts' learned values.

        They have no value of one task or class. Where there are none, other tasks are read as `specific` allows.
        """
        return []

    @classmethod
    def saved_parts(cls, cfg):
        """Names of all submodules that a run saves; empty where there is nothing to load."""
        options = cfg.TRAINER[cls.node] if cls.node else None
        return [*cls.parts(options), *cls.frozen_parts(options)]

    @staticmethod
    def specific(options):
        """{option: "task" or "class"}: options by which something of its own is learned for every task or class.

        The option "" stands for the method itself, if it can't do otherwise.
        """
        return {}

    @classmethod
    def name_of(cls, option):
        """An option of `specific` as a user knows it."""
        return f"TRAINER.{cls.node}.{option}" if option else cls.__name__

    def build_clip_model(self, clip_model):
        """The method's `MultiTaskCLIP`; `clip_model` is frozen, on the CPU, cast for fp16 and bf16."""
        raise NotImplementedError

    def precision(self):
        return self.options.PREC

    def prepare(self):
        """Make what a fresh run starts from; `features` gives image features. A resumed run has it already.

        Learned values may be made here, as many as there are training images: they are `torch.empty(0)` before.
        """

    def calibrate(self):
        """Choose, by `features("val")`, what the trained model needs besides; it is saved with the model."""

    def end_epoch(self):
        """Step what is stepped once an epoch, at its rate, before the model is validated and saved."""

    def seed(self, *names):
        """A number for what is drawn by these `names`, such as a task's: it follows from the seed and them."""
        return zlib.crc32("/".join(map(str, (self.cfg.SEED, *names))).encode())

    def generator(self, *names):
        """A CPU generator with that number."""
        return torch.Generator().manual_seed(self.seed(*names))
