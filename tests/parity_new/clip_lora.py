"""CLIP-LoRA, with the stored masks of dropout where there are any. Without a dropout layer the first step alone agrees.

At rate 0 the published code merges its weights for the forward pass and takes them apart before the backward pass,
which gives a wrong gradient from the second step on.
"""

import numpy as np
import torch
from torch import nn

from runs.methods import TRAINERS
from trainers.text_encoder import layout_of

from ._towers import batches, build
from ._training import train

TOWERS = {"both": "both", "text": "text", "vision": "image"}
PREFIX = {"text": "", "image": "visual."}


class StoredMasks(nn.Module):
    """Dropout by stored masks [(positions, samples, width)], one a call; `rows` are the places of packed rows."""

    def __init__(self, rate, masks, rows=None):
        super().__init__()
        self.rate, self.masks, self.rows = rate, iter(masks), rows

    def forward(self, x):
        if not self.training:
            return x
        mask = next(self.masks).transpose(0, 1)  # (samples, positions, width)
        if self.rows is not None:
            mask = mask[:, :self.rows[1]].flatten(0, 1)[self.rows[0]]
        return x * mask / (1 - self.rate)


def use_masks(case, updates, prompts):
    """Give each of `updates`, {name: `LowRank`} in the order of calls, its stored masks, those of all steps."""
    masks = []
    for key in sorted(key for key in case.stored if key.startswith("in/mask/")):
        shape = case[key.replace("mask/", "mask_shape/")].tolist()
        masks.append(torch.from_numpy(np.unpackbits(case[key].numpy())[:np.prod(shape)].reshape(shape)))
    layout = layout_of(prompts)
    for number, (name, update) in enumerate(updates.items()):
        rows = None if name.startswith("visual.") else (layout.real, layout.padded_shape[1])
        update.dropout = StoredMasks(update.dropout.p, masks[number::len(updates)], rows)


def check(case):
    hyper = case.hyper
    steps = hyper["n_iters"] * hyper["shots"]
    # "bottom" are blocks 0 to 3 in the published code, which is all of these towers
    trainer = build(case, "CLIPLoRA", tuple(case.about["templates"]), **{
        **TRAINERS["CLIPLoRA"].optim, "OPTIM.LR": hyper["lr"], "OPTIM.MAX_EPOCH": steps,
        "TOWERS": TOWERS[hyper["encoder"]], "MATRICES": tuple(hyper["params"]), "RANK": hyper["r"],
        "ALPHA": float(hyper["alpha"]), "DROPOUT": hyper["dropout_rate"]})
    model = trainer.model
    with torch.no_grad():
        errors = case.errors({"zero_shot_logits": model.score(
            model.image_encoder(case.images["test_images"]), model.zero_shot_features)})
    updates = {f"{PREFIX[tower]}transformer.resblocks.{number}.attn.{'proj' if name == 'o' else f'{name}_proj'}": update
               for tower, blocks in model.updates.items() for number, own in blocks.items()
               for name, update in own.items()}
    if "in/mask/000" in case.stored:
        use_masks(case, updates, model.prompts)
    learned = {f"{name}.w_lora_{part.upper()}": getattr(update, part) for name, update in updates.items()
               for part in "ab"}
    # an epoch of one batch a step, so that the rate counts steps; the stored loader goes round its batches
    loader, = batches(case, trainer, 1, case.about["batches"])
    trainer.make_train_loader = lambda: [None]
    rounds = [[loader[step % len(loader)]] for step in range(steps)]
    errors |= train(case, trainer, learned, rounds)
    with torch.no_grad():
        cosines = model.score(model.image_encoder(case.images["test_images"]), model.class_features()) / 100
    errors |= case.errors({"test_cosines": cosines})
    if hyper["dropout_rate"] == 0:
        return {name: error for name, error in errors.items()
                if name.startswith(("grad0/", "zero_shot")) or name == "lrs"}
    return errors
