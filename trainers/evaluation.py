"""Accuracy per task, every sample being scored against the classes of its own task only."""

import math
import os.path as osp
from collections import OrderedDict

import numpy as np
import torch

from common.errors import UserError
from common.files import atomic_path
from dassl.evaluation import EVALUATOR_REGISTRY, EvaluatorBase
from runs.keys import refusal
from runs.outcome import CMAT_FILE, CONFUSION, write_outcome
from runs.results import print_tasks


SPREAD, UNSURE = 0.5, 0.5  # see `fit_temperatures`


def make_evaluator(cfg, tasks):
    """The evaluator of a run on `tasks`. `TEST.EVALUATOR` may have Dassl's name for it where there is a single task.

    Raises:
        UserError: it has that name, and there are several.
    """
    if cfg.TEST.EVALUATOR == "Classification" and len(tasks) > 1:
        raise refusal(cfg, "TEST.EVALUATOR", f"must be ClassificationMT where there are {len(tasks)} tasks; "
                      "DATASET.SUBSAMPLE_TASKS task<i> takes one of them")
    return ClassificationMT(cfg, tasks)


def fit_temperatures(scores):
    """A temperature T for each task, by which softmax(logits / T) fits the labels.

    It is temperature scaling (Guo et al., ICML 2017) for few images: with T_t = sigma_t exp(a_t), sigma_t the standard
    deviation of the task's logits, the tasks' a_t are drawn to the a that fits all tasks together, by
    (a_t - a)^2 / (2 SPREAD^2) beside the sum of cross-entropies. Of n labels, UNSURE / (n + UNSURE) is uniform over the
    classes, else T would go to 0 where all n images are right.

    Args:
        scores: for each task logits (n, K), float64, and labels (n,), int. A logit of -inf, of a class that is never
            predicted, counts nowhere.
    """
    from scipy.optimize import minimize_scalar  # slow to import
    from scipy.special import log_softmax

    def loss_of(logits, labels):
        n, n_cls = logits.shape
        targets = (n * np.eye(n_cls)[labels] + UNSURE / n_cls) / (n + UNSURE)  # (n, K)
        return lambda a: -(targets * np.where(np.isfinite(logits), log_softmax(logits / math.exp(a), axis=1), 0)).sum()

    def minimum(loss):
        return minimize_scalar(loss, bounds=(-7, 7), method="bounded").x

    deviations = [max(np.std(logits[np.isfinite(logits)]), 1e-6) for logits, _ in scores]
    losses = [loss_of(logits / deviation, labels) for (logits, labels), deviation in zip(scores, deviations)]
    common = minimum(lambda a: sum(loss(a) for loss in losses))
    return [deviation * math.exp(minimum(lambda a: loss(a) + (a - common) ** 2 / (2 * SPREAD**2)))
            for loss, deviation in zip(losses, deviations)]


def probability_of(predicted, scores):
    """The softmax probabilities (B,) of the predicted classes (B,); scores are (B, n_cls)."""
    return (scores.gather(1, predicted[:, None])[:, 0] - scores.logsumexp(dim=1)).exp()


@EVALUATOR_REGISTRY.register()
class ClassificationMT(EvaluatorBase):
    """Per-task accuracies and their unweighted mean, in percent.

    `overall_acc` of a task is correct/total; `mean_acc` is the mean of the per-class accuracies over the classes that
    occur. Which one counts for a task is the task's own `metric`.

    Attributes:
        temperatures: (n_tasks,), by which scores are divided before they become probabilities; None: by nothing.

    Args:
        tasks: list of `datasets.base.Task`.
    """

    def __init__(self, cfg, tasks, **kwargs):
        super().__init__(cfg)
        self.tasks, self.temperatures = tasks, None
        self.sizes = [len(task.classnames) for task in tasks]
        self.task_of_class = torch.arange(len(tasks)).repeat_interleave(torch.tensor(self.sizes))
        self.reset()

    def reset(self):
        self.batches = []  # (labels, predictions, their probabilities, those without temperatures) of each
        self.per_task = []

    def process(self, mo, gt):
        """Add a batch: scores `mo` (B, n_cls), -inf outside the sample's task, and labels `gt` (B,)."""
        predicted, scores = mo.argmax(dim=1), mo.float()
        plain = found = probability_of(predicted, scores)  # nothing here waits for the device
        if self.temperatures is not None:
            temperatures = self.temperatures[self.task_of_class].to(scores)  # (n_cls,)
            found = probability_of(predicted, scores / temperatures[gt][:, None])
        self.batches.append((gt, predicted, found, plain))

    def calibrate(self, scores, labels):
        """Fit `temperatures` on the scores (n, n_cls) and labels (n,) of the validation images.

        Returns:
            What `results.json` holds as `validation`: {"overall_metric", "tasks": as `per_task`, "temperatures",
            "usual_scores": for each task the log-sum-exp of the scores that 95% of its validation images exceed}.

        Raises:
            UserError: a task has none.
        """
        from scipy.special import logsumexp  # slow to import

        self.reset()
        self.process(scores, labels)
        metric, of_tasks, first = self.count("validate on"), [], 0
        scores, labels = scores.double().cpu().numpy(), labels.cpu().numpy()
        for size in self.sizes:
            rows = (first <= labels) & (labels < first + size)
            of_tasks.append((scores[rows, first:first + size], labels[rows] - first))
            first += size
        temperatures = fit_temperatures(of_tasks)
        usual = [float(np.quantile(logsumexp(logits, axis=1), 0.05)) for logits, _ in of_tasks]
        self.temperatures = torch.tensor(temperatures)
        print(f"Temperatures of the tasks: {', '.join(f'{temperature:.3g}' for temperature in temperatures)}")
        return {"overall_metric": metric, "tasks": self.per_task, "temperatures": temperatures, "usual_scores": usual}

    def evaluate(self):
        """Print and return {"overall_metric": percent}; the figures of each task are kept in `per_task`.

        Raises:
            UserError: a task has no test image.
        """
        metric = self.count()
        print_tasks(self.per_task, self.cfg.TEST.PER_TASK_RESULT)
        if self.cfg.TEST.PER_CLASS_RESULT:
            self._print_classes()
        if self.cfg.TEST.COMPUTE_CMAT:
            self._write_confusion()
        return OrderedDict(overall_metric=metric)

    def count(self, what="test on"):
        """Make `per_task` of what was processed; returns the mean of the tasks' metrics, in percent."""
        if not self.batches:
            raise UserError("there is no image to test on")
        columns = (torch.cat(column).cpu() for column in zip(*self.batches))
        self.labels, self.predictions, self.probabilities, self.plain_probabilities = columns
        n_cls = sum(self.sizes)
        self.total = self.labels.bincount(minlength=n_cls).split(self.sizes)
        self.correct = self.labels[self.labels == self.predictions].bincount(minlength=n_cls).split(self.sizes)
        self.per_task = [self._evaluate_task(*args, what) for args in zip(self.tasks, self.total, self.correct)]
        return sum(result["metric"] for result in self.per_task) / len(self.tasks)

    def write(self, images):
        """Write the files that `runs.outcome` describes, of what was evaluated last.

        Args:
            images: the datums that were processed, in that order.
        """
        write_outcome(self.cfg, self.tasks, [datum.name for datum in images], self.labels.numpy(),
                      self.predictions.numpy(), self.probabilities.numpy(), self.temperatures,
                      self.plain_probabilities.numpy())

    def _print_classes(self):
        """Print each task's accuracy on every class that occurs, and their mean, as Dassl's evaluator does."""
        for i, (task, total, correct) in enumerate(zip(self.tasks, self.total, self.correct)):
            print("=> per-class result" + f" of task {i} ({task.name})" * (len(self.tasks) > 1))
            accuracies = []
            for label, (name, n, hits) in enumerate(zip(task.classnames, total.tolist(), correct.tolist())):
                if n:
                    accuracies.append(100 * hits / n)
                    print(f"* class: {label} ({name})\ttotal: {n:,}\tcorrect: {hits:,}\tacc: {accuracies[-1]:.1f}%")
            print(f"* average: {sum(accuracies) / len(accuracies):.1f}%")

    def _write_confusion(self):
        """Confusion matrices: rows are true classes and sum to 1, or are 0 where a class has no test image.

        `cmat.pt`, (n_cls, n_cls), has those of all tasks along its diagonal; of several tasks `confusion/task<i>.pt`
        has each.
        """
        n_cls = sum(self.sizes)
        counts = (n_cls * self.labels + self.predictions).bincount(minlength=n_cls**2).view(n_cls, n_cls).double()
        shares, first = counts / counts.sum(1, keepdim=True).clamp_min(1), 0
        found = {CMAT_FILE: shares}
        for i, size in enumerate(self.sizes if len(self.sizes) > 1 else ()):
            found[f"{CONFUSION.format(i)}.pt"] = shares[first:first + size, first:first + size].clone()
            first += size
        for name, matrix in found.items():
            with atomic_path(osp.join(self.cfg.OUTPUT_DIR, name)) as temporary:
                torch.save(matrix, temporary)
        print(f"Confusion matrix is saved to {osp.join(self.cfg.OUTPUT_DIR, CMAT_FILE)}")

    @staticmethod
    def _evaluate_task(task, total, correct, what):
        if not total.sum():
            raise UserError(f"task {task.name!r} has no image to {what}")
        occurs = total > 0
        result = {
            "name": task.name,
            "total": int(total.sum()),
            "correct": int(correct.sum()),
            "overall_acc": 100 * float(correct.sum() / total.sum()),
            "mean_acc": 100 * float((correct[occurs] / total[occurs]).mean()),
        }
        return {**result, "metric": result[task.metric], "metric_name": task.metric}
