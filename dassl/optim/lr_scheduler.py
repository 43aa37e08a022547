"""Learning-rate schedules: step, multi-step and cosine, each after an optional warm-up."""

from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

from common.errors import UserError

from ..utils import check_availability

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]
AVAI_WARMUPS = ["linear", "constant"]


class _BaseWarmupScheduler(LRScheduler):
    """Sets warm-up rates for the first ``warmup_epoch`` steps, then hands every step on to ``successor``.

    The step that ends the warm-up sets the successor's current rate without stepping it. Subclasses give
    ``warmup_lr()``, the rates for ``self.last_epoch``.
    """

    def __init__(self, optimizer, successor, warmup_epoch, last_epoch=-1):
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self):
        raise NotImplementedError

    def get_lr(self):
        return self.successor.get_last_lr() if self.last_epoch >= self.warmup_epoch else self.warmup_lr()

    def step(self):
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step()
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step()

    def state_dict(self):
        """Return plain values: those of this scheduler and, under ``successor``, those of its successor."""
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict):
        state_dict = dict(state_dict)
        self.successor.load_state_dict(state_dict.pop("successor"))
        super().load_state_dict(state_dict)


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up at the constant rate ``cons_lr``."""

    def __init__(self, optimizer, successor, warmup_epoch, cons_lr, last_epoch=-1):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self):
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """Warm-up at ``min_lr`` in the first epoch, then at ``epoch / warmup_epoch`` of the base rate."""

    def __init__(self, optimizer, successor, warmup_epoch, min_lr, last_epoch=-1):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self):
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer, optim_cfg, max_epoch=None):
    """Make the scheduler that ``cfg.OPTIM`` describes (LR_SCHEDULER, STEPSIZE, GAMMA, MAX_EPOCH, COSINE_MIN_LR,
    WARMUP_*).

    It may be stepped more than MAX_EPOCH times: the cosine then rises again and repeats.

    Args:
        max_epoch: the number of steps in place of MAX_EPOCH, where it is stepped after every batch; STEPSIZE and
            WARMUP_EPOCH count batches then.

    Raises:
        ValueError: unknown LR_SCHEDULER or WARMUP_TYPE, or a STEPSIZE that does not fit.
    """
    name, stepsize, max_epoch = optim_cfg.LR_SCHEDULER, optim_cfg.STEPSIZE, max_epoch or optim_cfg.MAX_EPOCH
    check_availability(name, AVAI_SCHEDS, "OPTIM.LR_SCHEDULER")
    if name == "single_step":
        if isinstance(stepsize, (list, tuple)):
            stepsize = stepsize[-1]
        if not isinstance(stepsize, int):
            raise UserError(f"OPTIM.STEPSIZE is {stepsize!r}: single_step needs a whole number of epochs")
        stepsize = stepsize if stepsize > 0 else max_epoch
        scheduler = StepLR(optimizer, step_size=stepsize, gamma=optim_cfg.GAMMA)
    elif name == "multi_step":
        if not isinstance(stepsize, (list, tuple)):
            raise UserError(f"OPTIM.STEPSIZE is {stepsize!r}: multi_step needs a list of epochs")
        scheduler = MultiStepLR(optimizer, milestones=stepsize, gamma=optim_cfg.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, float(max_epoch), optim_cfg.COSINE_MIN_LR)

    warmup_epoch = optim_cfg.WARMUP_EPOCH
    if warmup_epoch <= 0:
        return scheduler
    check_availability(optim_cfg.WARMUP_TYPE, AVAI_WARMUPS, "OPTIM.WARMUP_TYPE")
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup_epoch
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, warmup_epoch, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, scheduler, warmup_epoch, optim_cfg.WARMUP_MIN_LR)
