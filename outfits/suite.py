"""The scenes and styles of the suite `Outfits16`; `datasets/outfits16.py` makes its images."""

from zlib import crc32

import numpy as np

from .scenes import ASPECTS, VALUES, Style, random_scene

VERSION = 1  # raise it whenever an image changes: folders made by another version are refused
STRIKING = 0.8  # share of the other aspects, for which a task does not ask, whose value stands out
# Few-shot training, validation and test images all look different from what the encoder `tiny` was trained on: darker,
# paler, warmer, noisier and blurred, lit from one corner. Test images are a little further off.
TRAIN_STYLE = Style(gain=(0.8, 1.0), gamma=(1.0, 1.3), cast=(1.08, 1.0, 0.86), saturation=(0.6, 0.85),
                    noise=(0.02, 0.06), blur=(0.1, 0.2), shadow=(0.1, 0.35))
TEST_STYLE = Style(gain=(0.8, 1.0), gamma=(1.0, 1.3), cast=(1.08, 1.0, 0.86), saturation=(0.6, 0.85),
                   noise=(0.02, 0.07), blur=(0.1, 0.22), shadow=(0.15, 0.4))
STYLES = {"train": TRAIN_STYLE, "val": TRAIN_STYLE, "test": TEST_STYLE}


def scene_of(task, part, label, number):
    """Return the scene of one image.

    Args:
        task, label: indices of the task (in `ASPECTS`) and of the class, whose aspect is fixed; others are drawn.
        part: "train", "val" or "test". number: of the image.
    """
    code = crc32(f"outfits16/{VERSION}/{task}/{part}/{label}/{number}".encode())
    rng = np.random.RandomState((code, 16))
    fixed = {ASPECTS[task]: VALUES[ASPECTS[task][1]][label]}
    # seeds from 2**31 on are never used for the encoder's training scenes
    return random_scene(rng, 2**31 + code % 2**31, dict.fromkeys(ASPECTS, STRIKING), fixed)
