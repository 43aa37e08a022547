"""MaPLe: prompts of the text tower, and linear images of them as prompts of the image tower.

Khattak et al., MaPLe: Multi-modal Prompt Learning, CVPR 2023. Defaults are those of
github.com/muzairkhattak/multimodal-prompt-learning: SGD 0.0035, batch 4, 5 epochs, a first epoch at 1e-5, 2 prompts in
the first 9 layers, a start from "a photo of a". With TSC each task has text prompts of its own; the maps are one for
all tasks.
"""

from torch import nn

from common.keys import Count, Key
from runs.methods import PREC, WARM_COSINE, Row, register

from .deep_prompts import TSC, DeepPromptTrainer, TwoTowerCLIP


class CoupledCLIP(TwoTowerCLIP):
    """CLIP whose visual prompts are linear maps, one a layer, of its text prompts."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks, options.TSC, options.N_CTX, options.CTX_INIT, options.PROMPT_DEPTH)
        self.prompt_learner["maps"] = nn.ModuleList(nn.Linear(self.text_encoder.width, self.image_width)
                                                    for _ in range(options.PROMPT_DEPTH))

    def image_prompts(self):
        return [to_image(prompts) for to_image, prompts in
                zip(self.prompt_learner["maps"], self.prompt_learner["text"].layers)]


@register
class MaPLe(DeepPromptTrainer):
    """Multi-modal prompt learning."""

    node = "MAPLE"
    keys = {
        "PREC": PREC,
        "N_CTX": Key(2, "number of prompts", Count),
        "CTX_INIT": Key("a photo of a", "words that a prompt begins with; the first N_CTX are the start of what is "
                        "learned, the others stay; empty: a random start", str),
        "PROMPT_DEPTH": Key(9, "layers of each tower that read prompts", Count),
        "TSC": TSC,
    }
    rows = (Row("MaPLe", 114, by_default=False),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.0035, "OPTIM.MAX_EPOCH": 5,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 4}
    depths = {"PROMPT_DEPTH": ("image", "text")}
    network = CoupledCLIP
