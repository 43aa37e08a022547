"""What every trainer shares: frozen CLIP, scores inside a sample's own task, precision, resuming, results."""

import os
import os.path as osp
import resource
import time
import zlib
from functools import cached_property
from itertools import zip_longest

import torch
from torch import nn
from torch.nn import functional as F

from clip import clip
from clip.model import convert_weights
from dassl.data import DataManager
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import atomic_path, count_num_param, load_checkpoint, set_random_seed, write_json

from .image_features import FeatureLoader, ImageFeatures, Images
from .prompts import LearnedContext, TaskContexts, build_prompts, words
from .text_encoder import TextEncoder

PRECISIONS = ("fp32", "fp16", "bf16", "amp")
RESUME_FILE = "resume.pth.tar"
RESULTS_FILE = "results.json"


def load_clip(cfg):
    """CLIP in fp32 on the CPU, frozen, for `MODEL.BACKBONE.NAME`.

    Raises:
        ValueError: the backbone reads images of another size than `INPUT.SIZE`, and whatever `clip.load` raises.
    """
    print(f"Loading CLIP (backbone: {cfg.MODEL.BACKBONE.NAME})")
    model, _ = clip.load(cfg.MODEL.BACKBONE.NAME, device="cpu")
    size = model.visual.input_resolution
    if tuple(cfg.INPUT.SIZE) != (size, size):
        raise ValueError(f"INPUT.SIZE is {tuple(cfg.INPUT.SIZE)}, but the backbone {cfg.MODEL.BACKBONE.NAME} reads "
                         f"{size}x{size} images: set INPUT.SIZE \"({size}, {size})\"")
    return model.requires_grad_(False)


def resolve_precision(prec, device):
    """The precision to compute in: `prec`, or fp32 where the CPU has no fp16 (which is said once)."""
    if prec not in PRECISIONS:
        raise ValueError(f"PREC is {prec!r}, but must be one of {', '.join(PRECISIONS)}")
    if device.type == "cpu" and prec in ("fp16", "amp"):
        print(f"PREC {prec} needs CUDA: computing in fp32 on the CPU")
        return "fp32"
    return prec


class MultiTaskCLIP(nn.Module):
    """Frozen CLIP whose class features a subclass makes; images are scored by exp(logit_scale) x cosine.

    Args:
        clip_model: fp32 CLIP.
        tasks: list of `Task`; its classes, task after task, are the columns of the logits.
    """

    def __init__(self, clip_model, tasks):
        super().__init__()
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.tasks = tasks
        self.classnames = [name for task in tasks for name in task.classnames]
        task_of_class = torch.tensor([t for t, task in enumerate(tasks) for _ in task.classnames])
        self.register_buffer("task_of_class", task_of_class, persistent=False)
        self.dtype = torch.float32

    def set_precision(self, prec):
        """Cast the frozen towers for `fp16` or `bf16`; what is learned stays in fp32."""
        if prec in ("fp16", "bf16"):
            self.dtype = torch.float16 if prec == "fp16" else torch.bfloat16
            convert_weights(self.image_encoder, self.dtype)
            convert_weights(self.text_encoder.blocks, self.dtype)

    @torch.no_grad()
    def template_features(self, templates):
        """Normalised text features (n_cls, embed_dim) of hand-written prompts; `templates` has one per task."""
        prompts = template_prompts(self.tasks, templates, self.text_encoder.max_length)
        return F.normalize(self.text_encoder(prompts.to(self.task_of_class.device)), dim=-1)

    @cached_property
    def zero_shot_features(self):
        """`template_features` of the tasks' own templates, made once, when the model has its device and precision."""
        return self.template_features([task.template for task in self.tasks])

    def class_features(self, classes=None):
        """Text features (n, embed_dim) of the classes at the indices `classes` (n,), by default all."""
        raise NotImplementedError

    def score(self, image_features, class_features):
        """Logits (B, n), float32: exp(logit_scale) x cosine of features (B, embed_dim) and (n, embed_dim)."""
        image_features, class_features = (F.normalize(f, dim=-1) for f in (image_features, class_features))
        return (self.logit_scale.exp() * image_features @ class_features.t()).float()

    def in_own_task(self, labels, classes=slice(None)):
        """Which classes (B, n) are of the sample's own task; `labels` (B,)."""
        return self.task_of_class[labels][:, None] == self.task_of_class[classes]

    def mask_other_tasks(self, logits, labels, classes=slice(None)):
        """Logits (B, n) with -inf for the classes that are not of the sample's task; `labels` (B,)."""
        return logits.masked_fill(~self.in_own_task(labels, classes), float("-inf"))

    def logits(self, image_features, labels, class_features):
        """Logits (B, n_cls) masked to each sample's own task, which is known by `labels` (B,); that of testing too.

        Args:
            class_features: what `class_features()` returned.
        """
        return self.mask_other_tasks(self.score(image_features, class_features), labels)

    def forward(self, image_features, labels):
        """Training logits (B, n) masked to each sample's own task, and targets (B,) counting in them."""
        return self.logits(image_features, labels, self.class_features()), labels

    def losses(self, image_features, labels):
        """What a method minimises on a batch, by default the mean cross-entropy.

        Returns:
            {name: scalar}, all of which the log shows (names contain "loss"); `MultiTaskTrainer.backward` makes the
            gradients of them. Then logits (B, n) and targets (B,), of which the log shows the accuracy.
        """
        logits, targets = self(image_features, labels)
        return {"loss": F.cross_entropy(logits, targets)}, logits, targets


class ContextCLIP(MultiTaskCLIP):
    """CLIP with learned contexts around the class names, as in CoOp.

    Args:
        n_ctx, init: as in `LearnedContext`.
        position: as in `build_prompts`.
        per: what has a context of its own, "suite" (one for all classes), "task" or "class".
    """

    def __init__(self, clip_model, tasks, n_ctx, init="", position="end", per="task"):
        super().__init__(clip_model, tasks)
        encoder, n_cls = self.text_encoder, len(self.classnames)
        if per == "task":
            self.prompt_learner = TaskContexts(len(tasks), n_ctx, encoder.token_embedding, init=init)
        else:
            count = n_cls if per == "class" else None
            self.prompt_learner = LearnedContext(n_ctx, encoder.token_embedding, count, init)
        context_of = {"suite": [0] * n_cls, "task": self.task_of_class.tolist(), "class": range(n_cls)}[per]
        self.prompts = build_prompts(self.classnames, self.prompt_learner.n_ctx, position, context_of,
                                     max_length=encoder.max_length)

    def class_features(self, classes=None):
        prompts = self.prompts if classes is None else self.prompts.select(classes)
        return self.text_encoder(prompts, self.prompt_learner())


class MultiTaskTrainer(TrainerX):
    """Base of all trainers. A method implements `build_clip_model` and says which parts are trained.

    `build_clip_model(clip_model)` returns a `MultiTaskCLIP`, which says what is minimised (`losses`); `parts()` the
    names of its submodules that are saved and stepped, `frozen_parts()` those that are saved only.
    """

    options = ""  # name of the method's node under cfg.TRAINER

    def __init__(self, cfg):
        super().__init__(cfg)
        self.elapsed = 0.0  # seconds of training, over all resumed pieces
        self.test_seconds = 0.0

    def check_cfg(self, cfg):
        option = self.options and self.class_specific(cfg.TRAINER[self.options])
        if option and cfg.DATASET.SUBSAMPLE_CLASSES == "new":
            raise ValueError("class-specific contexts exist only for the classes they were learned on: TRAINER."
                             f"{self.options}.{option} asks for them, so DATASET.SUBSAMPLE_CLASSES can't be new")

    @staticmethod
    def task_specific(options):
        """Name of the option by which the method learns something of its own for every task, or ""."""
        return ""

    @staticmethod
    def class_specific(options):
        """Name of the option by which the method learns something of its own for every class, or ""."""
        return ""

    def build_data_loader(self):
        self.dm = DataManager(self.cfg, dataset_wrapper=Images)
        self.train_loader_x, self.val_loader, self.test_loader = (
            loader and FeatureLoader(loader, self.feature_batches, self.device)
            for loader in (self.dm.train_loader_x, self.dm.val_loader, self.dm.test_loader))
        self.num_classes, self.lab2cname = self.dm.num_classes, self.dm.lab2cname
        self.tasks = self.dm.dataset.tasks

    def build_evaluator(self):
        return build_evaluator(self.cfg, lab2cname=self.lab2cname, tasks=self.tasks)

    def build_clip_model(self, clip_model):
        raise NotImplementedError

    def parts(self):
        return []

    def frozen_parts(self):
        return []

    def precision(self):
        return self.cfg.TRAINER[self.options].PREC

    def build_model(self):
        cfg = self.cfg
        self.prec = resolve_precision(self.precision(), self.device)
        self.model = self.build_clip_model(load_clip(cfg)).to(self.device)
        self.model.set_precision(self.prec)
        self.model.text_encoder.checkpoint = cfg.MODEL.CHECKPOINT_TEXT
        if self.device.type == "cuda":
            self.model.image_encoder.to(memory_format=torch.channels_last)
        self.scaler = torch.amp.GradScaler("cuda") if self.prec == "amp" else None
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.n_params = count_num_param(params=self.trained)
        print(f"# learned values: {self.n_params:,}")
        self.optim = self.sched = None
        if self.trained:
            self.optim = build_optimizer(self.trained, cfg.OPTIM)
            self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        # The published code registers the one optimizer and scheduler under every part, and Dassl steps them once
        # per part; see docs/fidelity.md.
        for i, part in enumerate(self.parts()):
            steps = i == 0 or cfg.OPTIM.STEP_PER_PART
            self.register_model(part, getattr(self.model, part), *(self.optim, self.sched) if steps else (None, None))
        for part in self.frozen_parts():
            self.register_model(part, getattr(self.model, part))

    @cached_property
    def image_features(self):
        return ImageFeatures(self.cfg, self.model.image_encoder, self.device, self.model.dtype,
                             autocast=self.scaler is not None)

    def features_of(self, images):
        """Features (n, ...) of `Images` by the frozen image tower, see `ImageFeatures`."""
        return self.image_features(images)

    def feature_batches(self, images, batch_sampler):
        """See `ImageFeatures.batches`; a method, since the loaders are made before the model."""
        return self.image_features.batches(images, batch_sampler)

    # ------------------------------------------------------------------ training
    def parse_batch_train(self, batch):
        return batch["features"], batch["label"]

    def forward_backward(self, batch):
        """One step; returns what the log shows as tensors: losses, and the accuracy inside the samples' own tasks.

        Nothing here waits for the device: the loop reads the tensors when it prints, and stops then if a loss is not
        finite.
        """
        features, labels = self.parse_batch_train(batch)
        if self.scaler is None:
            self.model_zero_grad()
            shown = self.add_gradients(features, labels)
            self.model_update()
        else:
            self.optim.zero_grad()
            shown = self.add_gradients(features, labels)
            self.scaler.step(self.optim)
            self.scaler.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return shown

    def add_gradients(self, features, labels, share=1.0):
        """Add `share` times a batch's gradients to those that are there.

        Args:
            features: (B, dim), not normalised.
            labels: (B,).

        Returns:
            What the log shows: the losses and the accuracy in percent, as tensors.
        """
        with torch.autocast(self.device.type, enabled=self.scaler is not None):
            losses, logits, targets = self.model.losses(features, labels)
        # Under amp the optimizer's gradients are those of scaled losses; the scaler divides them in its step.
        self.backward({name: share * (self.scaler.scale(loss) if self.scaler else loss)
                       for name, loss in losses.items()})
        return {**{name: loss.detach() for name, loss in losses.items()},
                "acc": 100 * (logits.argmax(dim=1) == targets).float().mean()}

    def backward(self, losses):
        """Add the gradients that `losses` ({name: scalar}, each times the same constant) ask for."""
        losses["loss"].backward()

    def train(self):
        if not self.dm.dataset.train_x:
            raise ValueError(f"{self.cfg.DATASET.NAME} has no training images: use --eval-only")
        super().train()

    def before_epoch(self):
        # All randomness of an epoch follows from (seed, epoch), so a resumed run goes on as if undisturbed.
        set_random_seed(zlib.crc32(f"{self.cfg.SEED}/{self.epoch}".encode()))
        self.train_loader_x.dataset.epoch = self.epoch
        self.epoch_start = time.time()

    def after_epoch(self):
        self.elapsed += time.time() - self.epoch_start
        super().after_epoch()
        path = osp.join(self.output_dir, RESUME_FILE)
        if self.epoch + 1 < self.max_epoch:
            self.save_resume_file(path)
        elif osp.isfile(path):
            os.remove(path)  # the checkpoints of the last epoch are written

    # ------------------------------------------------------------------ checkpoints
    def checkpoint_extras(self):
        """Names of the tasks and their classes, for `check_names` and to rebuild the prompts without the data."""
        return {"tasks": [{"name": task.name, "classes": list(task.classnames)} for task in self.tasks]}

    def ties(self):
        """[(who, "task" or "class")]: the options that tie what is learned to the tasks or classes of training.

        Of a method that can't do otherwise, its own name.
        """
        if not self.options:
            return []
        options = self.cfg.TRAINER[self.options]
        found = (self.task_specific(options), "task"), (self.class_specific(options), "class")
        return [(f"TRAINER.{self.options}.{option}", kind) for option, kind in found if option]

    def check_names(self, tasks, path):
        """Refuse contexts that were learned for other tasks or classes than this run's, though they might fit in shape.

        Args:
            tasks: the `tasks` of `checkpoint_extras`, as the checkpoint `path` holds them.

        Raises:
            ValueError: a context per task (class) is asked for, and the tasks (classes) differ in name, number or
                order.
        """
        for who, kind in self.ties():
            there, here = names_of(tasks, kind), names_of(self.checkpoint_extras()["tasks"], kind)
            if there != here:
                old, new = next(pair for pair in zip_longest(there, here, fillvalue="nothing") if pair[0] != pair[1])
                raise ValueError(f"{who} ties each context to a {kind} of training, and {path} was trained with {old} "
                                 f"where this run has {new}: test on those of training, in their order"
                                 + (f", or train with {who} False" if who.startswith("TRAINER.") else ""))

    def save_resume_file(self, path):
        """Everything that the next epoch starts from, in one file, so that a crash can't mix two epochs."""
        names = self.get_model_names()
        state = {
            "run": self.run_identity(),
            "epoch": self.epoch + 1,
            "models": {name: self._models[name].state_dict() for name in names},
            "optimizer": self.optim.state_dict(),
            "scheduler": self.sched.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "best_result": self.best_result,
            "elapsed": self.elapsed,
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def run_identity(self):
        """What must be the same for a run to be the continuation of another, as text."""
        cfg = self.cfg.clone()
        cfg.defrost()
        # Where things lie and how fast they are read does not change a result.
        cfg.OUTPUT_DIR = cfg.RESUME = cfg.DATASET.ROOT = cfg.DATASET.SPLIT_DIR = ""
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.DATALOADER.FEATURE_CACHE, cfg.DATALOADER.FEATURE_CACHE_DIR = True, ""
        cfg.TRAIN.PRINT_FREQ = cfg.TRAIN.CHECKPOINT_FREQ = 0
        return cfg.dump()

    def resume_model_if_exist(self, directory):
        path = osp.join(directory, RESUME_FILE)
        if not osp.isfile(path):
            start = super().resume_model_if_exist(directory)
            if self.cfg.RESUME and start == 0:
                raise FileNotFoundError(f"--resume {directory}: there is neither {RESUME_FILE} nor a checkpoint of "
                                        f"every part ({', '.join(self.get_model_names())})")
            return start
        state = load_checkpoint(path)
        if state["run"] != self.run_identity():
            there, here = (set(text.splitlines()) for text in (state["run"], self.run_identity()))
            changed = "; ".join(line.strip() for line in sorted(here - there) or sorted(there - here))
            raise ValueError(f"{directory} holds an unfinished run with other settings (here: {changed}): give the "
                             "same settings, or another --output-dir")
        for name in self.get_model_names():
            self._models[name].load_state_dict(state["models"][name])
        self.optim.load_state_dict(state["optimizer"])
        self.sched.load_state_dict(state["scheduler"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        self.best_result, self.elapsed = state["best_result"], state["elapsed"]
        print(f"Resuming from {path} (epoch = {state['epoch']})")
        return state["epoch"]

    def load_model(self, directory, epoch=None):
        """Load every part from `<directory>/<part>/model.pth.tar-<epoch>` (None: the last epoch that is there).

        Buffers `token_prefix` and `token_suffix` of published checkpoints are ignored at any depth: they hold the
        class names of training time, while the prompts here follow the current ones.

        A context that is not tied to tasks or classes serves any others; else the run must have those of training
        (published checkpoints have no names: only the number is checked).

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a value that is learned is missing, unknown, or has another shape, and as `check_names`.
        """
        if not directory:
            return super().load_model(directory, epoch)
        for name in self.get_model_names():
            path = checkpoint_path(directory, name, epoch)
            checkpoint = load_checkpoint(path)
            print(f'Loading weights to {name} from "{path}" (epoch = {checkpoint["epoch"]})')
            if "tasks" in checkpoint:
                self.check_names(checkpoint["tasks"], path)
            try:
                load_part(self._models[name], checkpoint["state_dict"], path)
            except ValueError as error:
                hints = [f"; {option} ties each context to a {kind} of training" for option, kind in self.ties()]
                raise ValueError(f"{error}{''.join(hints)}") from None

    # ------------------------------------------------------------------ testing
    @torch.no_grad()
    def test(self, split=None):
        """Evaluate on `split`; the text features of all classes are made once."""
        start = time.time()
        self.set_model_mode("eval")
        with torch.autocast(self.device.type, enabled=self.scaler is not None):
            self.test_features = self.model.class_features()
        result = super().test(split)
        del self.test_features
        self.test_seconds = time.time() - start
        return result

    def parse_batch_test(self, batch):
        return (batch["features"], batch["label"]), batch["label"]

    def model_inference(self, input):
        features, labels = input
        with torch.autocast(self.device.type, enabled=self.scaler is not None):
            return self.model.logits(features, labels, self.test_features)

    def write_results(self, wall_seconds):
        """Write `results.json`, which marks the run as finished; `wall_seconds` is the process's whole time."""
        cfg, dataset = self.cfg, self.dm.dataset
        tasks = self.evaluator.per_task
        peak = (torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda"
                else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
        write_json({
            "trainer": cfg.TRAINER.NAME, "dataset": cfg.DATASET.NAME, "backbone": cfg.MODEL.BACKBONE.NAME,
            "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED, "precision": self.prec,
            "overall_metric": sum(task["metric"] for task in tasks) / len(tasks) if tasks else None,
            "tasks": tasks,
            "n_tasks": len(dataset.tasks), "n_classes": dataset.num_classes,
            "n_train": len(dataset.train_x), "n_val": len(dataset.val or ()), "n_test": len(dataset.test),
            "n_params": self.n_params,
            "train_seconds": round(self.elapsed, 2), "test_seconds": round(self.test_seconds, 2),
            "wall_seconds": round(wall_seconds, 2),
            "peak_memory_mb": round(peak, 1), "device": str(self.device),
            "config": to_plain(cfg),
        }, osp.join(self.output_dir, RESULTS_FILE))


class PerTaskTrainer(MultiTaskTrainer):
    """Base of the methods that have a learner for every task, in the part `prompt_learner`."""

    def parts(self):
        return ["prompt_learner"]

    def ties(self):
        return [(type(self).__name__, "task")]


def checkpoint_path(directory, part, epoch=None):
    """The checkpoint of a part: of `epoch`, or the one that the folder's `checkpoint` file names."""
    folder = osp.join(directory, part)
    pointer = osp.join(folder, "checkpoint")
    if epoch is not None:
        path = osp.join(folder, f"model.pth.tar-{epoch}")
    elif osp.isfile(pointer):
        with open(pointer, encoding="utf-8") as f:
            path = osp.join(folder, f.readline().strip())
    else:
        path = osp.join(folder, "model.pth.tar-<epoch>")
    if not osp.isfile(path):
        raise FileNotFoundError(f"the checkpoint {path} does not exist: check the run's folder and the epoch")
    return path


def names_of(tasks, kind):
    """What to call each task or class of the `tasks` that `checkpoint_extras` saves, list of str."""
    if kind == "task":
        return [f"task {task['name']!r}" for task in tasks]
    return [f"class {name!r} of task {task['name']!r}" for task in tasks for name in task["classes"]]


def build_without_data(cfg, tasks):
    """The trainer that `cfg` names, for `tasks` (list of `Task`) instead of the dataset's.

    Nothing is read but the backbone, so it loads checkpoints and makes contexts and class features, but neither
    trains nor tests.

    Raises:
        ValueError: unknown trainer, and whatever building it raises.
    """
    class WithoutData(TRAINER_REGISTRY.get(cfg.TRAINER.NAME)):
        def build_data_loader(self):
            self.tasks = tasks
            self.lab2cname = dict(enumerate(name for task in tasks for name in task.classnames))
            self.num_classes = len(self.lab2cname)

    return WithoutData(cfg)


def load_part(module, state_dict, path):
    """Copy a checkpoint's values into a part; every learned value must be there, with the same shape."""
    there = {name: value for name, value in state_dict.items()
             if name.rsplit(".", 1)[-1] not in ("token_prefix", "token_suffix")}
    here = module.state_dict()
    if set(there) != set(here):
        raise ValueError(f"{path} holds the values {sorted(there)}, but this run needs {sorted(here)}: use the options "
                         "that the checkpoint was trained with")
    for name, value in there.items():
        if value.shape != here[name].shape:
            raise ValueError(f"{path}: {name} has shape {tuple(value.shape)}, but this run needs "
                             f"{tuple(here[name].shape)}: use the backbone, tasks, classes and options of training")
    module.load_state_dict(there)


def template_prompts(tasks, templates, max_length):
    """`Prompts` of all classes: each task's template filled with its class names.

    Args:
        templates: one template per task, `{}` standing for the class name.
    """
    texts = [template.format(words(name)) for task, template in zip(tasks, templates) for name in task.classnames]
    return build_prompts(texts, end="", max_length=max_length)


def to_plain(cfg):
    """A yacs node as nested dicts, for JSON."""
    return {key: to_plain(value) for key, value in cfg.items()} if isinstance(cfg, dict) else cfg
