"""Accuracy per task, every sample being scored against the classes of its own task only."""

import os.path as osp
from collections import OrderedDict

import torch

from common.errors import UserError
from common.files import atomic_path
from dassl.evaluation import EVALUATOR_REGISTRY, EvaluatorBase
from runs.keys import refusal
from runs.outcome import CMAT_FILE, CONFUSION, write_outcome
from runs.results import print_tasks


def make_evaluator(cfg, tasks):
    """The evaluator of a run on `tasks`. `TEST.EVALUATOR` may have Dassl's name for it where there is a single task.

    Raises:
        UserError: it has that name, and there are several.
    """
    if cfg.TEST.EVALUATOR == "Classification" and len(tasks) > 1:
        raise refusal(cfg, "TEST.EVALUATOR", f"must be ClassificationMT where there are {len(tasks)} tasks; "
                      "DATASET.SUBSAMPLE_TASKS task<i> takes one of them")
    return ClassificationMT(cfg, tasks)


@EVALUATOR_REGISTRY.register()
class ClassificationMT(EvaluatorBase):
    """Per-task accuracies and their unweighted mean, in percent.

    `overall_acc` of a task is correct/total; `mean_acc` is the mean of the per-class accuracies over the classes that
    occur. Which one counts for a task is the task's own `metric`.

    Args:
        tasks: list of `datasets.base.Task`.
    """

    def __init__(self, cfg, tasks, **kwargs):
        super().__init__(cfg)
        self.tasks = tasks
        self.sizes = [len(task.classnames) for task in tasks]
        self.reset()

    def reset(self):
        self.batches = []  # (labels, predictions, their probabilities) of each
        self.per_task = []

    def process(self, mo, gt):
        """Add a batch: scores `mo` (B, n_cls), -inf outside the sample's task, and labels `gt` (B,)."""
        predicted = mo.argmax(dim=1)
        scores = mo.float()
        log_probability = scores.gather(1, predicted[:, None])[:, 0] - scores.logsumexp(dim=1)
        self.batches.append((gt, predicted, log_probability.exp()))  # nothing here waits for the device

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

    def count(self):
        """Make `per_task` of what was processed; returns the mean of the tasks' metrics, in percent."""
        if not self.batches:
            raise UserError("there is no image to test on")
        self.labels, self.predictions, self.probabilities = (torch.cat(column).cpu() for column in zip(*self.batches))
        n_cls = sum(self.sizes)
        self.total = self.labels.bincount(minlength=n_cls).split(self.sizes)
        self.correct = self.labels[self.labels == self.predictions].bincount(minlength=n_cls).split(self.sizes)
        self.per_task = [self._evaluate_task(*args) for args in zip(self.tasks, self.total, self.correct)]
        return sum(result["metric"] for result in self.per_task) / len(self.tasks)

    def write(self, images):
        """Write the files that `runs.outcome` describes, of what was evaluated last.

        Args:
            images: the datums that were processed, in that order.
        """
        write_outcome(self.cfg, self.tasks, [datum.name for datum in images], self.labels.numpy(),
                      self.predictions.numpy(), self.probabilities.numpy())

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
    def _evaluate_task(task, total, correct):
        if not total.sum():
            raise UserError(f"task {task.name!r} has no image to test on")
        occurs = total > 0
        result = {
            "name": task.name,
            "total": int(total.sum()),
            "correct": int(correct.sum()),
            "overall_acc": 100 * float(correct.sum() / total.sum()),
            "mean_acc": 100 * float((correct[occurs] / total[occurs]).mean()),
        }
        return {**result, "metric": result[task.metric], "metric_name": task.metric}
