"""Accuracy per task, every sample being scored against the classes of its own task only."""

import os.path as osp
from collections import OrderedDict

import torch

from dassl.errors import UserError
from dassl.evaluation import EVALUATOR_REGISTRY, EvaluatorBase
from dassl.utils import atomic_path


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
        n_cls = sum(self.sizes)
        self.total = torch.zeros(n_cls, dtype=torch.long)
        self.correct = torch.zeros(n_cls, dtype=torch.long)
        self.pairs = []  # (labels, predictions) of the batches
        self.per_task = []

    def process(self, mo, gt):
        """Add a batch: scores `mo` (B, n_cls), -inf outside the sample's task, and labels `gt` (B,)."""
        predicted = mo.argmax(dim=1)
        hit = predicted == gt
        self.pairs.append((gt.cpu(), predicted.cpu()))
        n_cls = len(self.total)
        self.total += gt.bincount(minlength=n_cls).cpu()
        self.correct += gt[hit].bincount(minlength=n_cls).cpu()

    def evaluate(self):
        """Print and return {"overall_metric": percent}; the figures of each task are kept in `per_task`.

        Raises:
            UserError: a task has no test image.
        """
        self.per_task = [self._evaluate_task(*args) for args in zip(
            self.tasks, self.total.split(self.sizes), self.correct.split(self.sizes))]
        metric = sum(result["metric"] for result in self.per_task) / len(self.tasks)
        print(f"=> result\n* total: {int(self.total.sum()):,}\n* overall_metric: {metric:.2f}%")
        if self.cfg.TEST.PER_TASK_RESULT:
            print("=> per-task result")
            for i, result in enumerate(self.per_task):
                print(f"* task: {i} ({result['name']})\ttotal: {result['total']:,}\tmetric: {result['metric']:.2f}%")
            print(f"* average: {metric:.2f}%")
        if self.cfg.TEST.PER_CLASS_RESULT:
            self._print_classes()
        if self.cfg.TEST.COMPUTE_CMAT:
            self._write_confusion()
        return OrderedDict(overall_metric=metric)

    def _print_classes(self):
        """A line of each class that occurs, as Dassl's evaluator prints it."""
        print("=> per-class result")
        names = [f"{task.name}: {name}" for task in self.tasks for name in task.classnames]
        for label, (name, total, correct) in enumerate(zip(names, self.total.tolist(), self.correct.tolist())):
            if total:
                print(f"* class: {label} ({name})\ttotal: {total:,}\tcorrect: {correct:,}\t"
                      f"acc: {100 * correct / total:.2f}%")

    def _write_confusion(self):
        """`cmat.pt`: (n_cls, n_cls), rows are true classes and sum to 1, or are 0 where a class has no test image."""
        n_cls = len(self.total)
        truth, predicted = (torch.cat(column) for column in zip(*self.pairs))
        counts = (n_cls * truth + predicted).bincount(minlength=n_cls**2).view(n_cls, n_cls).double()
        path = osp.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        with atomic_path(path) as temporary:
            torch.save(counts / counts.sum(1, keepdim=True).clamp_min(1), temporary)
        print(f"Confusion matrix is saved to {path}")

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
