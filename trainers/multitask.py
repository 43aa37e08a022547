"""What every trainer shares: data, precision, the training step, resuming, testing."""

import os
import os.path as osp
import time
import zlib
from functools import cached_property

import torch

from dassl.data import DataManager
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import atomic_path, count_num_param, load_checkpoint, set_random_seed

from .checkpoints import check_names, checkpoint_path, load_part, name_tasks
from .image_features import FeatureLoader, ImageFeatures, Images
from .multitask_clip import load_clip
from .results import write_results

PRECISIONS = ("fp32", "fp16", "bf16", "amp", "fp64")
RESUME_FILE = "resume.pth.tar"


def resolve_precision(prec, device):
    """The precision to compute in: `prec`, or fp32 where the CPU has no fp16 (which is said once)."""
    if prec not in PRECISIONS:
        raise ValueError(f"PREC is {prec!r}, but must be one of {', '.join(PRECISIONS)}")
    if device.type == "cpu" and prec in ("fp16", "amp"):
        print(f"PREC {prec} needs CUDA: computing in fp32 on the CPU")
        return "fp32"
    return prec


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
        if cfg.MODEL.COMPILE:
            self.model.text_encoder.compile_blocks()
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
        return {"tasks": name_tasks(self.tasks)}

    def ties(self):
        """[(who, "task" or "class")]: the options that tie what is learned to the tasks or classes of training.

        Of a method that can't do otherwise, its own name.
        """
        if not self.options:
            return []
        options = self.cfg.TRAINER[self.options]
        found = (self.task_specific(options), "task"), (self.class_specific(options), "class")
        return [(f"TRAINER.{self.options}.{option}", kind) for option, kind in found if option]

    def save_resume_file(self, path):
        """Everything that the next epoch starts from, in one file, so that a crash can't mix two epochs."""
        names = self.get_model_names()
        state = {
            "run": self.run_identity,
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

    @cached_property
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
        if state["run"] != self.run_identity:
            there, here = (set(text.splitlines()) for text in (state["run"], self.run_identity))
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
                check_names(checkpoint["tasks"], name_tasks(self.tasks), self.ties(), path)
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

    def write_results(self, wall_seconds, model_dir=""):
        """Write `results.json`.

        Args:
            wall_seconds: the process's whole time.
            model_dir: folder of the run that was tested with `--eval-only`, if there was one.
        """
        dataset = self.dm.dataset
        write_results(
            self.cfg, self.device, self.evaluator.per_task, precision=self.prec, n_tasks=len(dataset.tasks),
            n_classes=dataset.num_classes, n_train=len(dataset.train_x), n_val=len(dataset.val or ()),
            n_test=len(dataset.test), n_params=self.n_params, model_dir=model_dir, train_seconds=self.elapsed,
            test_seconds=self.test_seconds, wall_seconds=wall_seconds)


class PerTaskTrainer(MultiTaskTrainer):
    """Base of the methods that have a learner for every task, in the part `prompt_learner`."""

    def parts(self):
        return ["prompt_learner"]

    def ties(self):
        return [(type(self).__name__, "task")]


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
