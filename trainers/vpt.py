"""VPT: learned prompts in the image tower, with hand-written prompts for the classes.

Jia et al., Visual Prompt Tuning, ECCV 2022, for CLIP as in github.com/muzairkhattak/multimodal-prompt-learning, whose
schedule this is: SGD 0.0025, batch 4, 5 epochs, a first epoch at 1e-5, 8 prompts in 12 layers ("deep"; in 1:
"shallow"). It reads "a photo of a {}." for every dataset (TEMPLATE); by default each task's own templates count here.
"""

from dataclasses import replace

from common.keys import Count, Key
from runs.keys import refusal
from runs.methods import PREC, WARM_COSINE, Row, register

from .deep_prompts import TSC, DeepPromptTrainer, LayerPrompts, PromptedCLIP


class VisualPromptCLIP(PromptedCLIP):
    """CLIP with visual prompts and zero-shot class features."""

    def __init__(self, clip_model, tasks, options):
        if options.TEMPLATE:
            tasks = [replace(task, template=options.TEMPLATE) for task in tasks]
        super().__init__(clip_model, tasks, options.TSC)
        self.prompt_learner["image"] = LayerPrompts(self.n_sets, options.N_CTX_VISION, self.image_width,
                                                    options.PROMPT_DEPTH_VISION)

    def class_features(self, classes=slice(None)):
        return self.zero_shot_features[classes]


@register
class VPT(DeepPromptTrainer):
    """Visual prompt tuning of CLIP."""

    node = "VPT"
    keys = {
        "PREC": PREC,
        "N_CTX_VISION": Key(8, "number of prompts of the image tower", Count),
        "PROMPT_DEPTH_VISION": Key(12, "number of its layers that read some", Count),
        "TSC": TSC,
        "TEMPLATE": Key("", "hand-written prompt of all tasks, such as a photo of a {}.; empty: each task's own", str),
    }
    rows = (Row("VPT", 112, by_default=False),)
    optim = {**WARM_COSINE, "OPTIM.NAME": "sgd", "OPTIM.LR": 0.0025, "OPTIM.MAX_EPOCH": 5,
             "DATALOADER.TRAIN_X.BATCH_SIZE": 4}
    reads_templates = True
    depths = {"PROMPT_DEPTH_VISION": ("image",)}
    network = VisualPromptCLIP

    def check_cfg(self, cfg):
        super().check_cfg(cfg)
        if self.options.TEMPLATE and "{}" not in self.options.TEMPLATE:
            raise refusal(cfg, "TRAINER.VPT.TEMPLATE", "must hold {}, where the class name goes")
