"""LP-CLIP: logistic regression on CLIP's image features, for each task, with CoOp's search for the regularisation.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021.
"""

import torch
from joblib import Parallel, cpu_count, delayed
from torch import nn

from common.errors import UserError
from runs.methods import Row, register

from .multitask import PerClassTrainer
from .multitask_clip import MultiTaskCLIP


class LinearMap(nn.Module):
    """`weight` (n_cls, dim) and `bias` (n_cls,); `known` (n_cls,) says which classes have training images.

    `c` (n_tasks,) is the inverse strength of each task's regularisation, as the search chose it.
    """

    def __init__(self, dim, n_cls, n_tasks):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_cls, dim), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(n_cls), requires_grad=False)
        self.register_buffer("known", torch.zeros(n_cls, dtype=torch.bool))
        self.register_buffer("c", torch.zeros(n_tasks, dtype=torch.float64))

    def forward(self, features):
        """Features (B, dim) -> (B, n_cls), -inf for a class without training images."""
        logits = features.to(self.weight.dtype) @ self.weight.t() + self.bias
        return logits.masked_fill(~self.known, float("-inf"))


class ProbeCLIP(MultiTaskCLIP):
    """CLIP's image tower and a linear map of its features, which are not normalised. The texts are not read."""

    reads_names = False

    def __init__(self, clip_model, tasks):
        super().__init__(clip_model, tasks)
        self.classifier = LinearMap(self.text_encoder.output_dim, len(self.classnames), len(tasks))

    def class_features(self, classes=None):
        return None

    def score(self, image_features, class_features=None):
        return self.classifier(image_features)


@register
class LinearProbe(PerClassTrainer):
    """The linear probe: fitted once by scikit-learn, C chosen by the validation images; no optimizer steps it."""

    rows = (Row("LP-CLIP", 40, quick=True),)
    config = "LP/{MODEL}_val"
    folder_name = "LP/{MODEL}/[tasks_{MAX_TASK}/]{SHOTS}shots/seed{SEED}"
    reads_validation_images = True

    @classmethod
    def steps(cls, cfg):
        return False

    def precision(self):
        return "fp32"

    def build_clip_model(self, clip_model):
        return ProbeCLIP(clip_model, self.tasks)

    def prepare(self):
        from lpclip.logistic import fit_best  # scikit-learn is slow to import

        (x, y), (x_val, y_val) = self.features("train"), self.features("val")
        learned, problems = self.model.classifier, []
        for number, task in enumerate(self.tasks):
            own, own_val = (self.model.task_of_class[labels] == number for labels in (y, y_val))
            if not own_val.any():
                raise UserError("the linear probe needs validation images to choose its regularisation, but task "
                                f"{task.name!r} has none")
            if len(y[own].unique()) < 2:
                raise UserError(f"task {task.name!r} has training images of a single class: the linear probe needs two "
                                "or more")
            problems.append([part.cpu().numpy() for part in (x[own], y[own], x_val[own_val], y_val[own_val])])
        # A fit uses one thread, so that its last bits do not depend on their number.
        fits = Parallel(min(cpu_count(), len(problems)))(delayed(fit_best)(*problem) for problem in problems)
        for number, (fitted, c) in enumerate(fits):
            classes, weight, bias = (torch.from_numpy(array) for array in (
                fitted.classes_, fitted.coef_, fitted.intercept_))
            if len(classes) == 2:  # scikit-learn keeps the second class's lead over the first
                weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
            learned.weight[classes], learned.bias[classes] = weight.to(learned.weight), bias.to(learned.bias)
            learned.known[classes], learned.c[number] = True, c
            print(f"task {number} ({self.tasks[number].name}): C = {c:.3g} by {len(problems[number][3])} validation "
                  "images")
