import os
from collections import OrderedDict, defaultdict

import numpy as np
import torch

from ..utils import atomic_path
from .build import EVALUATOR_REGISTRY


class EvaluatorBase:
    """Collects the model's output batch by batch and sums it up."""

    def __init__(self, cfg):
        self.cfg = cfg

    def reset(self):
        """Forget everything collected."""
        raise NotImplementedError

    def process(self, mo, gt):
        """Add a batch: model output ``mo`` and ground truth ``gt``."""
        raise NotImplementedError

    def evaluate(self):
        """Print the results and return them as an ordered dict; models are selected by the first one."""
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1 in percent; by TEST.PER_CLASS_RESULT and COMPUTE_CMAT, more detail.

    Args:
        lab2cname: dict from label to class name; needed for per-class results.
    """

    def __init__(self, cfg, lab2cname=None, **kwargs):
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs class names: pass lab2cname to build_evaluator")
        self._lab2cname = lab2cname
        self.reset()

    def reset(self):
        self._y_true = []
        self._y_pred = []

    def process(self, mo, gt):
        """Add a batch: scores ``mo`` (batch, n_cls) and labels ``gt`` (batch,)."""
        self._y_pred.extend(mo.argmax(dim=1).tolist())
        self._y_true.extend(gt.tolist())

    def evaluate(self):
        """Print and return accuracy, error_rate, macro_f1 (and perclass_accuracy), all in percent.

        Raises:
            ValueError: nothing was processed.
        """
        if not self._y_true:
            raise ValueError("There is nothing to evaluate: the split has no sample")
        y_true, y_pred = np.array(self._y_true), np.array(self._y_pred)
        total, correct = len(y_true), int((y_true == y_pred).sum())
        acc = 100.0 * correct / total
        from sklearn.metrics import confusion_matrix, f1_score  # slow to import

        # only classes that occur count
        macro_f1 = 100.0 * float(f1_score(y_true, y_pred, average="macro", labels=np.unique(y_true)))
        results = OrderedDict(accuracy=acc, error_rate=100.0 - acc, macro_f1=macro_f1)
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {acc:.1f}%\n"
            f"* error: {100.0 - acc:.1f}%\n"
            f"* macro_f1: {macro_f1:.1f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._per_class(y_true, y_pred)
        if self.cfg.TEST.COMPUTE_CMAT:
            # (n_seen, n_seen), rows: true class, normalised to 1
            cmat = torch.from_numpy(confusion_matrix(y_true, y_pred, normalize="true"))
            save_path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
            with atomic_path(save_path) as temporary:
                torch.save(cmat, temporary)
            print(f"Confusion matrix is saved to {save_path}")
        return results

    def _per_class(self, y_true, y_pred):
        """Print each class's accuracy; return the mean over the classes that occur."""
        hits = defaultdict(list)
        for label, prediction in zip(y_true.tolist(), y_pred.tolist()):
            hits[label].append(label == prediction)
        print("=> per-class result")
        accs = []
        for label in sorted(hits):
            correct, total = sum(hits[label]), len(hits[label])
            accs.append(100.0 * correct / total)
            print(
                f"* class: {label} ({self._lab2cname[label]})\t"
                f"total: {total:,}\tcorrect: {correct:,}\tacc: {accs[-1]:.1f}%"
            )
        mean_acc = sum(accs) / len(accs)
        print(f"* average: {mean_acc:.1f}%")
        return mean_acc
