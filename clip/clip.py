"""OpenAI's `clip.clip`: names of models, loading, tokenizing."""

from pathlib import Path

import torch
from open_clip.pretrained import get_pretrained_url
from open_clip.tokenizer import _tokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2

from .files import UnusableModel, read_state_dict
from .files import download as _download
from .model import CLIP, VOCAB_SIZE, build_model, convert_weights, from_open_clip, from_openai

__all__ = ["available_models", "load", "tokenize", "build_model", "_MODELS", "_download"]

_TINY = Path(__file__).parent / "tiny.safetensors"
_MODELS = {  # OpenAI's name -> URL; open_clip writes the names without "/" and "@"
    name: get_pretrained_url(name.replace("/", "-").replace("@336px", "-336"), "openai")
    for name in ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64",
                 "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")
}


def available_models():
    """Names (list of str) that `load` takes besides files and open_clip models: OpenAI's, and `tiny`."""
    return [*_MODELS, "tiny"]


def load(name, device="cuda" if torch.cuda.is_available() else "cpu", jit=False, download_root=None):
    """Load a CLIP model and its image transform.

    Args:
        name: one of `available_models()`; a `.pt`, `.pth` or `.safetensors` file in OpenAI's layout;
            `local-dir:PATH` for a folder that open_clip saved; `open_clip:ARCH/PRETRAINED`.
        device: where the model goes. On CUDA its applicable weights are fp16, elsewhere all are fp32.
        jit: must be False.
        download_root: folder for downloaded weights; default `~/.cache/clip`.
    Returns:
        (model, preprocess): a `clip.model.CLIP` in eval mode, or, for an open_clip model with another
        text tower, a `clip.model.TextTowerCLIP`, whose `tokenizer` takes the place of `tokenize`; and a torchvision
        transform from a PIL image to the normalised (3, H, W) fp32 tensor that `encode_image` takes in batches.
    Raises:
        ClipError: unknown name, missing or damaged file, a model of another layout, a failed download. It is a
            FileNotFoundError, too, if a file is missing, and a ValueError if a name or file is no model to take.
        ValueError: `jit` is True.
    """
    if jit:
        raise ValueError("clip.load has no jit=True: call it with jit=False")
    model = _load_fp32(str(name), download_root)
    if isinstance(model, CLIP) and model.vocab_size != VOCAB_SIZE:
        raise UnusableModel(
            f"{name} has a vocabulary of {model.vocab_size}, not the {VOCAB_SIZE} of CLIP's tokenizer")
    model.to(device)
    if torch.device(device).type == "cuda":
        convert_weights(model)
    return model, image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)


def _load_fp32(name, download_root):
    if name.startswith(("local-dir:", "open_clip:")):
        return from_open_clip(name, download_root)
    if name in _MODELS:
        path = Path(_download(_MODELS[name], download_root))
    else:
        path = _TINY if name == "tiny" else Path(name).expanduser()
    if path.is_dir():
        raise UnusableModel(f"{path} is a folder; an open_clip model folder is written local-dir:{path}")
    if not path.exists() and path.suffix not in (".pt", ".pth", ".safetensors"):
        raise UnusableModel(
            f"unknown CLIP model {name!r}; it can be {', '.join(available_models())}, a .pt, .pth or "
            ".safetensors file, local-dir:PATH, or open_clip:ARCH/PRETRAINED"
        )
    return from_openai(read_state_dict(path), path)


def tokenize(texts, context_length=77, truncate=False):
    """Tokens of one text or a list of texts.

    Args:
        texts: str or sequence of str.
        context_length: length of every row.
        truncate: cut what is too long, its last token then being end-of-text.
    Returns:
        int32 tensor (n, context_length): start-of-text, the text, end-of-text, zeros.
    Raises:
        ValueError: a text is too long and `truncate` is off.
    """
    texts = [texts] if isinstance(texts, str) else texts
    result = torch.zeros(len(texts), context_length, dtype=torch.int)
    for row, text in zip(result, texts):
        tokens = [_tokenizer.sot_token_id, *_tokenizer.encode(text), _tokenizer.eot_token_id]
        if len(tokens) > context_length:
            if not truncate:
                raise ValueError(
                    f"the text {text!r} makes {len(tokens)} tokens, more than the context length "
                    f"{context_length}; shorten it or pass truncate=True"
                )
            tokens = [*tokens[: context_length - 1], _tokenizer.eot_token_id]
        row[: len(tokens)] = torch.tensor(tokens)
    return result
