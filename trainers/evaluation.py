"""Accuracy per task, every sample being scored against the classes of its own task only."""

from collections import OrderedDict

import torch

from dassl.evaluation import EVALUATOR_REGISTRY, EvaluatorBase


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
        self.per_task = []

    def process(self, mo, gt):
        """Add a batch: scores `mo` (B, n_cls), -inf outside the sample's task, and labels `gt` (B,)."""
        hit = mo.argmax(dim=1) == gt
        n_cls = len(self.total)
        self.total += gt.bincount(minlength=n_cls).cpu()
        self.correct += gt[hit].bincount(minlength=n_cls).cpu()

    def evaluate(self):
        """Print and return {"overall_metric": percent}; the figures of each task are kept in `per_task`.

        Raises:
            ValueError: a task has no test image.
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
        return OrderedDict(overall_metric=metric)

    @staticmethod
    def _evaluate_task(task, total, correct):
        if not total.sum():
            raise ValueError(f"task {task.name!r} has no image to test on")
        occurs = total > 0
        result = {
            "name": task.name,
            "total": int(total.sum()),
            "correct": int(correct.sum()),
            "overall_acc": 100 * float(correct.sum() / total.sum()),
            "mean_acc": 100 * float((correct[occurs] / total[occurs]).mean()),
        }
        return {**result, "metric": result[task.metric], "metric_name": task.metric}
