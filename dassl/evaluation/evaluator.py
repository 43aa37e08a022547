import os
from collections import OrderedDict

import numpy as np
import torch

from common.files import atomic_path

from ..utils import Registry

EVALUATOR_REGISTRY = Registry("TEST.EVALUATOR")


def build_evaluator(cfg, **kwargs):
    """Return the evaluator registered as ``cfg.TEST.EVALUATOR``; ValueError for an unknown name."""
    if cfg.VERBOSE:
        print(f"Loading evaluator: {cfg.TEST.EVALUATOR}")
    return EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg, **kwargs)


class EvaluatorBase:
    """Collects the model's output batch by batch and sums it up.

    Subclasses have ``reset()``, ``process(mo, gt)`` (model output and ground truth of a batch) and ``evaluate()``,
    which returns an ordered dict of results; the first one selects models.
    """

    def __init__(self, cfg):
        self.cfg = cfg


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1 in percent; by TEST.PER_CLASS_RESULT and COMPUTE_CMAT, more detail.

    Args:
        lab2cname: dict from label to class name; needed for per-class results.
    """

    def __init__(self, cfg, lab2cname=None, **kwargs):
        super().__init__(cfg)
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
        print(f"=> result\n* total: {total:,}\n* correct: {correct:,}\n* accuracy: {acc:.1f}%\n"
              f"* error: {100.0 - acc:.1f}%\n* macro_f1: {macro_f1:.1f}%")
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
        print("=> per-class result")
        accs = []
        for label in np.unique(y_true):
            hits = y_pred[y_true == label] == label
            accs.append(100.0 * float(hits.mean()))
            print(f"* class: {label} ({self._lab2cname[label]})\ttotal: {len(hits):,}\tcorrect: {hits.sum():,}\t"
                  f"acc: {accs[-1]:.1f}%")
        print(f"* average: {sum(accs) / len(accs):.1f}%")
        return sum(accs) / len(accs)
