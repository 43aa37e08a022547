"""The progress of a training run: lines of the log, and curves of tensorboard."""

import contextlib
import datetime
import os.path as osp
import time

from common.errors import NotFinite
from common.program import check_interrupted, holding_interrupts
from dassl.utils import AverageMeter, MetricMeter


class Progress:
    """Prints a line every `TRAIN.PRINT_FREQ` batches, and writes the same to tensorboard.

    Reading a tensor waits for the device, so the values of a step are read only then.

    Args:
        loader: the batches, whose number may differ from epoch to epoch. n_epochs: of the run.
    """

    def __init__(self, cfg, loader, n_epochs):
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.freq, self.loader, self.n_epochs = cfg.TRAIN.PRINT_FREQ, loader, n_epochs
        self.writer = SummaryWriter(log_dir=osp.join(cfg.OUTPUT_DIR, "tensorboard")) if len(loader) else None
        self.steps, self.losses, self.batch_time = [], MetricMeter(), AverageMeter()
        self.last = time.monotonic()

    @property
    def n_batches(self):
        return len(self.loader)

    def add(self, epoch, batch, metrics, rate):
        """Take note of a step.

        Args:
            epoch, batch: its numbers, from 0. metrics: {name: tensor}. rate: the learning rate after it.

        Raises:
            NotFinite: a loss of a step since the last line is not finite.
        """
        check_interrupted()
        if batch == 0:
            self.losses, self.batch_time = MetricMeter(), AverageMeter()
        now = time.monotonic()
        self.batch_time.update(now - self.last)
        self.last = now
        self.steps.append((epoch * self.n_batches + batch, rate, metrics))
        done = batch + 1
        last = done == self.n_batches
        if done % self.freq == 0 or last:
            self._read(epoch)
        if done % self.freq == 0 or last and self.n_batches < self.freq:
            left = self.n_batches - done + (self.n_epochs - epoch - 1) * self.n_batches
            print(f"epoch [{epoch + 1}/{self.n_epochs}] batch [{done}/{self.n_batches}] "
                  f"time {self.batch_time.val:.3f} ({self.batch_time.avg:.3f}) {self.losses} "
                  f"lr {rate:.4e} eta {datetime.timedelta(seconds=int(self.batch_time.avg * left))}")
        skipped = self.losses.meters.get("skipped")
        if last and skipped and skipped.sum:
            print(f"{int(skipped.sum)} of {skipped.count} steps of epoch {epoch + 1} were skipped: their gradients, "
                  "times amp's scale, overflowed fp16, and the scale was halved each time")

    @holding_interrupts()
    def _read(self, epoch):
        for step, rate, metrics in self.steps:
            self.losses.update(metrics)
            for name, meter in self.losses.meters.items():
                if "loss" in name and not abs(meter.val) < float("inf"):
                    raise NotFinite(f"{name} is {meter.val} at batch {step % self.n_batches + 1} of epoch {epoch + 1}: "
                                    "use a smaller OPTIM.LR, or another PREC")
                self.writer.add_scalar(f"train/{name}", meter.avg, step)
            self.writer.add_scalar("train/lr", rate, step)
        self.steps.clear()

    def __enter__(self):
        return self

    @holding_interrupts()
    def __exit__(self, error, *_):
        if self.writer:
            with contextlib.suppress(*[OSError] if error else []):  # what ended the training says more
                self.writer.close()
