"""The digest of a model tells apart all models that compute something else, and no others."""

import copy
import subprocess
import sys

import pytest
import torch

from clip import clip
from common.digests import digest_of_module
from tests.helpers import REPOSITORY
from trainers.multitask_clip import digest_of_clip


@pytest.fixture(scope="module")
def model(backbone):
    return clip.load(backbone, device="cpu")[0]


def change_value(model):
    model.visual.proj.data[0, 0] += 1


def change_heads(model):
    model.visual.transformer.resblocks[0].attn.num_heads = 16


def change_activation(model):
    model.transformer.resblocks[1].mlp.gelu = torch.nn.GELU()


def change_pooling(model):
    model.visual.pool_type = "avg"


def change_norm(model):
    model.ln_final.eps = 1e-6


def change_tokenizer(model):
    tokenizer = copy.copy(model.tokenizer)
    encode = tokenizer.encode
    tokenizer.encode = lambda text, follows=False: encode(text.lower().replace("cat", "dog"))
    model.tokenizer = tokenizer


@pytest.mark.parametrize("change", [change_value, change_heads, change_activation, change_pooling, change_norm,
                                    change_tokenizer], ids=lambda change: change.__name__)
def test_models_that_compute_something_else_have_other_digests(change, model):
    changed = copy.deepcopy(model)
    assert digest_of_clip(changed) == digest_of_clip(model)
    change(changed)
    assert digest_of_clip(changed) != digest_of_clip(model)
    if change not in (change_activation, change_norm, change_tokenizer):  # these are of the text tower
        assert digest_of_module(changed.visual) != digest_of_module(model.visual)


def test_a_model_has_the_same_digest_in_another_process(model, backbone):
    code = (f"from clip import clip; from trainers.multitask_clip import digest_of_clip; "
            f"print(digest_of_clip(clip.load({backbone!r}, device='cpu')[0].train()))")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest_of_clip(model)
