"""IVLP: independent prompts in both towers, in the first layers of each.

Khattak et al., MaPLe, CVPR 2023, and Rasheed et al., Fine-tuned CLIP Models are Efficient Video Learners, CVPR 2023.
Defaults are those of github.com/muzairkhattak/PromptSRC: SGD 0.0025, batch 4, 20 epochs, a first epoch at 1e-5, 4
prompts in the first 9 layers of each tower, a start from "a photo of a".
"""

from common.keys import Count, Key, Natural
from runs.methods import PREC, WARM_COSINE, Row, register

from .deep_prompts import TSC, DeepPromptTrainer, LayerPrompts, TwoTowerCLIP


class IndependentCLIP(TwoTowerCLIP):
    """CLIP with text and visual prompts that have nothing in common."""

    def __init__(self, clip_model, tasks, options):
        super().__init__(clip_model, tasks, options.TSC, options.N_CTX_TEXT, options.CTX_INIT,
                         options.PROMPT_DEPTH_TEXT)
        self.prompt_learner["image"] = LayerPrompts(self.n_sets, options.N_CTX_VISION, self.image_width,
                                                    options.PROMPT_DEPTH_VISION)


@register
class IVLP(DeepPromptTrainer):
    """Independent vision-language prompting."""

    node = "IVLP"
    keys = {
        "PREC": PREC,
        "N_CTX_VISION": Key(4, "number of prompts of the image tower", Count),
        "N_CTX_TEXT": Key(4, "number of prompts of the text tower", Count),
        "CTX_INIT": Key("a photo of a", "words that a prompt begins with; the first N_CTX_TEXT are the start of what "
                        "is learned, the others stay; empty: a random start", str),
        "PROMPT_DEPTH_VISION": Key(9, "layers of the image tower that read prompts; 0: none", Natural),
        "PROMPT_DEPTH_TEXT": Key(9, "layers of the text tower that read prompts", Count),
        "TSC": TSC,
    }
    rows = (Row("IVLP", 113, by_default=False),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.0025, "OPTIM.MAX_EPOCH": 20,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 4}
    depths = {"PROMPT_DEPTH_VISION": ("image",), "PROMPT_DEPTH_TEXT": ("text",)}
    network = IndependentCLIP
