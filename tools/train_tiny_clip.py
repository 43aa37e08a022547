"""Train `tiny`, a small CLIP in OpenAI's architecture, on rendered scenes and their captions.

    python tools/train_tiny_clip.py

makes `clip/tiny.safetensors` (backbone name `tiny`) with the flags' defaults, on two CPU cores and without any
download. The scenes come from `datasets/scenes.py`; their seeds are disjoint from those of the suite Shapes8.
"""

import argparse
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "datasets"))  # the package itself would import Dassl
from scenes import SIZE, caption, random_scene, render  # noqa: E402

MAX_BYTES = 8_000_000
VOCABULARY, POSITIONS = 49408, 77
SOS, EOT = VOCABULARY - 2, VOCABULARY - 1
CAPTION_TOKENS = 48  # with SOS and EOT; longer captions are cut
EMBED_DIM = 128
VISION = dict(layers=(1, 1, 1, 1), width=10, patch_size=None, image_size=SIZE)
TEXT = dict(width=64, heads=1, layers=4)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CHUNK = 1000


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=str(ROOT / "clip" / "tiny.safetensors"), help="file to write")
    parser.add_argument("--scenes", type=int, default=100_000, help="rendered scenes, kept in memory (12 KB each)")
    parser.add_argument("--captions", type=int, default=4, help="captions a scene")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="threads, and processes for rendering")
    args = parser.parse_args()
    if args.scenes < CHUNK or args.scenes % CHUNK:
        parser.error(f"--scenes is {args.scenes}, but must be a multiple of {CHUNK}")
    return args


@cache
def word_tokens(word):
    return SimpleTokenizer().encode(word) if word_tokens_of is None else word_tokens_of(word)
