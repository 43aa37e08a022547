"""A training step as one CUDA graph.

A step of prompt tuning is thousands of small kernels, and to launch one takes longer than most of them run. Their
shapes never change, so losses and backward pass are captured once, and launched together for every later batch.
"""

import torch

from common.errors import UserError

CLOSE = {"fp64": 1e-8, "fp32": 1e-3}  # relative distance allowed from the step without a graph; else 0.05


class StepGraph:
    """Losses and gradients of batches of one shape by a CUDA graph.

    The first batch runs kernel by kernel, since models keep what they find out in their first step. The second is
    captured, and the graph must repeat what it gives kernel by kernel. Batches of other shapes, such as a smaller last
    one, run kernel by kernel, too.

    Args:
        trainer: its `fixed_steps` is True.
        required: whether a step that can't be captured ends the run; else a line says why, and it goes on without.
    """

    def __init__(self, trainer, required):
        self.trainer, self.required = trainer, required
        self.captured_for, self.replay = None, None

    def __call__(self, images, labels):
        """As `trainer.add_gradients`, of images (B, ...) and labels (B,), where there are no gradients before."""
        places = [value.data_ptr() for value in self.trainer.trained]  # the graph reads learned values there
        batch = images.shape, labels.shape, places
        if self.captured_for is None or places != self.captured_for[-1]:
            self.captured_for, self.replay = batch, None
        elif batch == self.captured_for:
            return self.run(images, labels) if self.replay else self.capture(images, labels)
        return self.trainer.add_gradients(images, labels)

    def run(self, images, labels):
        """Replay the graph, which reads and writes the same tensors each time, so metrics are copied."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.replay()
        for value, gradient in zip(self.trainer.trained, self.gradients):
            value.grad = gradient
        return dict(zip(self.names, self.metrics.clone().unbind()))

    def capture(self, images, labels):
        """Capture the graph by a batch, and return what it gives.

        Raises:
            UserError: it can't be captured, and must be. TypeError: it gives something else than the step itself.
        """
        trainer = self.trainer
        self.images, self.labels = images.clone(), labels.clone()
        try:
            usual, (self.metrics, *self.gradients), self.replay = record(self.compute)
        except RuntimeError as error:
            reason, *_ = str(error).splitlines() or [type(error).__name__]
            if self.required:
                raise UserError(f"a step of {type(trainer).__name__} can't be one CUDA graph ({reason}): leave "
                                "MODEL.CUDA_GRAPH auto") from error
            print(f"A step can't be one CUDA graph ({reason}): its kernels are launched one by one, which is slower")
            trainer.graph = None
            trainer.optimizer.zero_grad()
            return trainer.add_gradients(images, labels)
        metrics = self.run(images, labels)
        losses = ["loss" in name for name in self.names]  # an accuracy may jump by the last bit of a logit
        for ours, expected in ((self.metrics[losses], usual[0][losses]), (joined(self.gradients), joined(usual[1:]))):
            if not close(ours, expected, CLOSE.get(trainer.prec, 0.05)):
                raise TypeError(f"the CUDA graph of a step of {type(trainer).__name__} gives other losses or gradients "
                                "than the step itself: set its fixed_steps False, or MODEL.CUDA_GRAPH False")
        return metrics

    def compute(self):
        """The metrics (n,) and each gradient (None where there is none) of the batch in `images` and `labels`."""
        self.trainer.optimizer.zero_grad()  # sets gradients to None, so that the graph makes them anew
        metrics = self.trainer.add_gradients(self.images, self.labels)
        self.names = list(metrics)
        return torch.stack([value.double() for value in metrics.values()]), *(p.grad for p in self.trainer.trained)


def record(function):
    """Call `function()`, then capture it.

    Returns:
        What it returned, then the tensors that a replay writes its results to, and the function that replays it.

    Raises:
        RuntimeError: it does what a CUDA graph can't hold, such as reading a value.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a capture must not be the first to ask for libraries' handles
        usual = function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # threads that read images may ask for memory
        results = function()
    return usual, results, graph.replay


def joined(gradients):
    """All values of gradients, as one vector in float64: those of one value may be rounding alone."""
    return torch.cat([gradient.flatten().double() for gradient in gradients if gradient is not None])


def close(ours, expected, allowed):
    """Whether finite values are in the same places, and as near as `allowed` of their norm."""
    finite = expected.isfinite()
    apart = (ours - expected)[finite].norm()
    return torch.equal(finite, ours.isfinite()) and bool(apart <= allowed * expected[finite].norm())
