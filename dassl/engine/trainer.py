"""Training loops. A trainer subclasses one of these, makes its models and says what happens with a batch."""

import datetime
import os
import time
from collections import OrderedDict

import torch
from tqdm import tqdm

from common.program import holding_interrupts

from ..data import DataManager
from ..evaluation import build_evaluator
from ..utils import AverageMeter, MetricMeter, Registry, load_checkpoint, resume_from_checkpoint, save_checkpoint
from ..utils.torchtools import get_rng_state

BEST_MODEL = "model-best.pth.tar"
TRAINER_REGISTRY = Registry("TRAINER.NAME")


def build_trainer(cfg):
    """Return the trainer registered as ``cfg.TRAINER.NAME``; ValueError for an unknown name."""
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)


def __getattr__(name):
    if name == "SummaryWriter":  # code written for Dassl imports it from here; TensorBoard is slow to import
        from torch.utils.tensorboard import SummaryWriter
        return SummaryWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class SimpleTrainer:
    """Keeps named models with their optimizers and schedulers, trains and tests them as ``cfg`` says.

    One optimizer or scheduler may be registered under several names; it is then stepped once for each name.
    """

    def __init__(self, cfg):
        self._models, self._optims, self._scheds = OrderedDict(), OrderedDict(), OrderedDict()
        self._writer = None
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(self.cfg, lab2cname=self.lab2cname)
        self.best_result = -float("inf")

    def check_cfg(self, cfg):
        """Subclasses raise here when ``cfg`` does not suit them."""

    def build_data_loader(self):
        """Make ``self.dm`` and take its loaders; subclasses may give `DataManager` other transforms."""
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self):
        """Make the model and register it with its optimizer and scheduler."""
        raise NotImplementedError(f"{type(self).__name__} must implement build_model, as every trainer")

    def register_model(self, name="model", model=None, optim=None, sched=None):
        """Register a module to be saved and loaded as ``name``, with what steps it, if anything does."""
        if name in self._models:
            raise ValueError(f'A model is already registered as "{name}": choose another name')
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names=None):
        """Return ``names`` (a name or a list) as a list, or all names; ValueError for an unknown one."""
        registered = list(self._models)
        if names is None:
            return registered
        names = names if isinstance(names, list) else [names]
        for name in names:
            if name not in registered:
                raise ValueError(f'No model is registered as "{name}": choose from {registered}')
        return names

    def save_model(self, epoch, directory, val_result=None, model_name=""):
        """Save every registered model, after the epoch with index ``epoch``, to ``<directory>/<name>/``."""
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": self._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": None if optim is None else optim.state_dict(),
                "scheduler": None if sched is None else sched.state_dict(),
                # a NumPy number would not be a plain value
                "val_result": None if val_result is None else float(val_result),
                "rng_state": get_rng_state(),
            }
            save_checkpoint(state, os.path.join(directory, name), model_name or f"model.pth.tar-{epoch + 1}")

    def resume_model_if_exist(self, directory):
        """Restore every registered model from ``directory``, if all of them were saved there.

        Returns:
            The index of the next epoch, 0 without checkpoints.

        Raises:
            ValueError: the models were saved after different epochs.
        """
        names = self.get_model_names()
        saved = [os.path.isfile(os.path.join(directory, name, "checkpoint")) for name in names]
        if not names or not all(saved):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        epochs = {}
        for name in names:
            restored = self._models[name], self._optims[name], self._scheds[name]
            epochs[name] = resume_from_checkpoint(os.path.join(directory, name), *restored)
        if len(set(epochs.values())) > 1:
            raise ValueError(f'The checkpoints in "{directory}" are of different epochs {epochs}, since the run was '
                             "stopped while it saved: write the name of an older file, which all of them have, into "
                             'each file named "checkpoint"')
        return epochs[names[0]]

    def load_model(self, directory, epoch=None):
        """Load every model's weights from ``<directory>/<name>/``: the best ones, or those of ``epoch``.

        An empty ``directory`` loads nothing.

        Raises:
            FileNotFoundError, ValueError: as `load_checkpoint`.
        """
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        model_file = BEST_MODEL if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            model_path = os.path.join(directory, name, model_file)
            checkpoint = load_checkpoint(model_path)
            print(f'Loading weights to {name} from "{model_path}" (epoch = {checkpoint["epoch"]})')
            self._models[name].load_state_dict(checkpoint["state_dict"])

    def set_model_mode(self, mode="train", names=None):
        """Put models into "train" mode, or into "eval" ("test") mode."""
        if mode not in ("train", "eval", "test"):
            raise ValueError(f'Model mode is "{mode}": choose "train", "eval" or "test"')
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names=None):
        """Step the scheduler of every named model."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names=None):
        """Return the rate of the first named model that has an optimizer."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                return self._optims[name].param_groups[0]["lr"]
        raise ValueError("There is no learning rate: no registered model has an optimizer")

    def detect_anomaly(self, loss):
        """Raise a FloatingPointError unless every value of ``loss`` is finite."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    def model_zero_grad(self, names=None):
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss):
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names=None):
        """Step the optimizer of every named model."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss, names=None):
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def init_writer(self, log_dir):
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            print(f"Initialize tensorboard (log_dir={log_dir})")
            self._writer = SummaryWriter(log_dir=log_dir)

    @holding_interrupts()
    def close_writer(self):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @holding_interrupts()
    def write_scalar(self, tag, scalar_value, global_step=None):
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self):
        """Run the epochs from ``start_epoch``, which `before_train` sets to go on with a run, to ``max_epoch`` - 1."""
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_epoch(self):
        """Subclasses may do something before every epoch."""

    def run_epoch(self):
        raise NotImplementedError

    def forward_backward(self, batch):
        """Process one batch, including the optimizer's step; return a dict of numbers to report."""
        raise NotImplementedError

    def before_train(self):
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        if self.start_epoch > 0 and self.cfg.TEST.FINAL_MODEL == "best_val":
            # otherwise the first epoch after resuming would replace a better model
            best = os.path.join(self.output_dir, self.get_model_names()[0], BEST_MODEL)
            result = load_checkpoint(best).get("val_result") if os.path.isfile(best) else None
            if result is not None:
                self.best_result = result
        self.init_writer(os.path.join(self.output_dir, "tensorboard"))
        self.time_start = time.monotonic()

    def after_epoch(self):
        """Validate (for the best model) and save, as TEST.FINAL_MODEL and TRAIN.CHECKPOINT_FREQ say."""
        last_epoch = self.epoch + 1 == self.max_epoch
        freq = self.cfg.TRAIN.CHECKPOINT_FREQ
        if not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST_MODEL)
        if last_epoch or (freq > 0 and (self.epoch + 1) % freq == 0):
            self.save_model(self.epoch, self.output_dir)

    def after_train(self):
        print("Finished training")
        if not self.cfg.TEST.NO_TEST:
            best = self.cfg.TEST.FINAL_MODEL == "best_val"
            print("Deploy the model with the best val performance" if best else "Deploy the last-epoch model")
            if best:
                self.load_model(self.output_dir)
            self.test()
        print(f"Elapsed: {datetime.timedelta(seconds=round(time.monotonic() - self.time_start))}")
        self.close_writer()

    @torch.no_grad()
    def test(self, split=None):
        """Evaluate on ``split`` ("val" or "test"; None: TEST.SPLIT) and return the first of the results.

        Raises:
            ValueError: validation is asked for, but the dataset has no such split.
        """
        split = split or self.cfg.TEST.SPLIT
        if split == "val":
            if self.val_loader is None:
                raise ValueError(f"{self.cfg.DATASET.NAME} has no validation images: set TEST.SPLIT to test and "
                                 "TEST.FINAL_MODEL to last_step")
            data_loader = self.val_loader
        else:
            split, data_loader = "test", self.test_loader
        self.set_model_mode("eval")
        self.evaluator.reset()
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(data_loader):
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input):
        return self.model(input)

    def parse_batch_test(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)


class TrainerX(SimpleTrainer):
    """Trains on labeled data; an epoch is a pass over ``train_loader_x``."""

    def run_epoch(self):
        """Give ``forward_backward`` each batch and report what it returns.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        end = time.monotonic()
        for self.batch_idx, batch in enumerate(self.train_loader_x):
            data_time.update(time.monotonic() - end)
            losses.update(self.forward_backward(batch))
            batch_time.update(time.monotonic() - end)
            done = self.batch_idx + 1
            if done % self.cfg.TRAIN.PRINT_FREQ == 0 or self.num_batches < self.cfg.TRAIN.PRINT_FREQ:
                remaining = self.num_batches - done + (self.max_epoch - self.epoch - 1) * self.num_batches
                eta = datetime.timedelta(seconds=int(batch_time.avg * remaining))
                print(f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{done}/{self.num_batches}] "
                      f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) data {data_time.val:.3f} "
                      f"({data_time.avg:.3f}) {losses} lr {self.get_current_lr():.4e} eta {eta}")
            step = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                if "loss" in name:  # trainers that scale their loss call its backward() themselves
                    self.detect_anomaly(torch.tensor(float(meter.val)))
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
            end = time.monotonic()

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device), batch["domain"].to(self.device)
