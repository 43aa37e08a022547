"""Tip-Adapter and Tip-Adapter-F: zero-shot CLIP, and votes of the training images for their classes.

Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, ECCV 2022. With features of
length 1, the logit of class k is 100 f.t_k + alpha x the sum of exp(-beta (1 - f.F_i)) over its training images i. On a
suite every task has its own beta and alpha. Defaults are the published ones of ImageNet; schedules are of all datasets.
"""

from common.keys import Count, Key, NotNegative, Positive
from runs.methods import PREC, Row, register

from .votes import Cache, VotingCLIP
from .voting_trainer import VotingTrainer

VIEWS = Key(10, "augmented views of a training image whose mean is its key", Count)


@register
class TipAdapter(VotingTrainer):
    """Nothing is learned by steps: validation images choose beta and alpha."""

    node = "TIPADAPTER"
    keys = {
        "PREC": PREC,
        "VIEWS": VIEWS,
        "SEARCH_SCALE": Key((7.0, 3.0), "where the values of beta and alpha end that are tried",
                            tuple[Positive, Positive]),
        "SEARCH_STEP": Key((200, 20), "how many values of beta and alpha are tried", tuple[Count, Count]),
    }
    rows = (Row("Tip-Adapter", 42, by_default=False),)

    def build_clip_model(self, clip_model):
        return VotingCLIP(clip_model, self.tasks, Cache(learn=self.learns))


@register
class TipAdapterF(TipAdapter):
    """The keys are learned with the first beta and alpha; the search follows, on the epoch that is deployed."""

    node = "TIPADAPTERF"
    keys = {**TipAdapter.keys, "INIT": Key((1.0, 1.17), "beta and alpha of training", tuple[NotNegative, NotNegative])}
    rows = (Row("Tip-Adapter-F", 43, by_default=False, quick=True),)
    optim = {"OPTIM.NAME": "adamw", "OPTIM.LR": 0.001, "OPTIM.WEIGHT_DECAY": 0.01, "OPTIM.ADAM_EPS": 1e-4,
             "OPTIM.LR_SCHEDULER": "cosine", "OPTIM.WARMUP_EPOCH": -1, "OPTIM.MAX_EPOCH": 20,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 256, "TEST.FINAL_MODEL": "best_val"}
    learns, rate_by_batch, drop_last = True, True, False

    def prepare(self):
        super().prepare()
        self.model.cache.settings[:, :2] = self.model.cache.settings.new_tensor(self.options.INIT)

    def owned(self):  # a row is a training image
        return [(self.model.cache.keys, self.model.task_of_class[self.model.cache.labels])]
