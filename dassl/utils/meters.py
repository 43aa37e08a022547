from collections import defaultdict

import torch


class AverageMeter:
    """The last value and the mean of a series; with ``ema`` a moving mean (new values weigh 0.1)."""

    def __init__(self, ema=False):
        self.ema = ema
        self.reset()

    def reset(self):
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val, n=1):
        """Add ``val`` (number or 1-element tensor), which stands for ``n`` samples."""
        if isinstance(val, torch.Tensor):
            val = val.item()
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.avg * 0.9 + val * 0.1 if self.ema else self.sum / self.count


class MetricMeter:
    """One `AverageMeter` a name; ``str()`` gives ``name last (mean)`` of all, joined by ``delimiter``."""

    def __init__(self, delimiter=" "):
        self.meters = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict):
        """Add a dict of numbers or 1-element tensors; None is ignored.

        Raises:
            TypeError: ``input_dict`` is not a dict.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(f"MetricMeter.update got a {type(input_dict).__name__}: pass a dict of names to numbers, "
                            "which is also what forward_backward must return")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self):
        return self.delimiter.join(f"{name} {m.val:.4f} ({m.avg:.4f})" for name, m in self.meters.items())
