"""TaskRes: a learned residual on each class's text feature, which stays frozen.

Yu et al., Task Residual for Tuning Vision-Language Models, CVPR 2023. Schedule of its repository: Adam 2e-3 with weight
decay 5e-4 in the gradient, batch 256, 100 epochs for 1, 2 and 4 shots, 200 for more, a first epoch at 1e-5. For
ImageNet it has OPTIM.LR 2e-4, for Flowers ALPHA 1.0. The "enhanced" bases, which are downloads, are not covered.
"""

from common.keys import Key, Positive
from runs.methods import PREC, WARM_COSINE, Row, register

from .multitask import PerClassTrainer
from .multitask_clip import ClassVectors, MultiTaskCLIP
from .separate import SeparateTasksTrainer


class ResidualCLIP(MultiTaskCLIP):
    """CLIP whose class features are t + ALPHA x residual; t is the mean of text features that are not normalised."""

    adds_tasks = True

    def __init__(self, clip_model, tasks, alpha):
        super().__init__(clip_model, tasks)
        self.alpha = alpha
        self.classifier = ClassVectors(len(self.classnames), self.text_encoder.output_dim)

    def class_features(self, classes=slice(None)):
        return (self.mean_text_features + self.alpha * self.classifier.weight)[classes]


def n_epochs(cfg):
    """100 for up to 4 shots, 200 for more, or for all images."""
    return 100 if 0 < cfg.DATASET.NUM_SHOTS <= 4 else 200


@register
class TaskRes(SeparateTasksTrainer, PerClassTrainer):
    """TaskRes; nothing is drawn but the batches, which follow from (seed, epoch, task)."""

    node = "TASKRES"
    keys = {"PREC": PREC, "ALPHA": Key(0.5, "what the residual is multiplied by", Positive)}
    rows = (Row("TaskRes", 49, by_default=False),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "adam", "OPTIM.LR": 0.002, "OPTIM.MAX_EPOCH": n_epochs,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 256}
    reads_templates = True

    def build_clip_model(self, clip_model):
        return ResidualCLIP(clip_model, self.tasks, self.options.ALPHA)
