"""OpenAI's `clip.clip`: names of models, loading, tokenizing."""

import re
from difflib import get_close_matches
from pathlib import Path

import torch
from open_clip.pretrained import get_pretrained_url, list_pretrained_tags_by_model
from open_clip.tokenizer import _tokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2

from .files import UnusableModel, download as _download, read_content
from .layouts import find_clip, is_transformers, read_transformers, transformers_config
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


def load(name, device="cuda" if torch.cuda.is_available() else "cpu", jit=False, download_root=None, quick_gelu=None):
    """Load a CLIP model and its image transform.

    Args:
        name: one of `available_models()`; a weight file (safetensors, TorchScript, or of `torch.save`) with a CLIP
            in the layout of OpenAI, open_clip's CustomTextCLIP or Hugging Face transformers, perhaps inside of a
            checkpoint; a folder that open_clip or transformers saved, also written `local-dir:PATH`;
            `open_clip:ARCH/PRETRAINED`; `hf-hub:ORG/NAME`, an open_clip model on the Hugging Face Hub.
        device: where the model goes. On CUDA its applicable weights are fp16, elsewhere all are fp32.
        jit: must be False.
        download_root: folder for downloaded weights; default `~/.cache/clip`.
        quick_gelu: True for QuickGELU, False for GELU; default: as the model's config or the architecture's
            published weights say, and QuickGELU for a file without either.
    Returns:
        (model, preprocess): a `clip.model.CLIP` in eval mode, or, for an open_clip model with another
        text tower, a `clip.model.TextTowerCLIP`, whose `tokenizer` takes the place of `tokenize`; and a torchvision
        transform from a PIL image to the normalised (3, H, W) fp32 tensor that `encode_image` takes in batches.
    Raises:
        ClipError: unknown name, missing or damaged file, weights that are not finite, a model of another layout, a
            failed download. It is a FileNotFoundError, too, if a file is missing, and a ValueError if a name or file
            is no model to take.
        ValueError: `jit` is True.
    """
    if jit:
        raise ValueError("clip.load has no jit=True: call it with jit=False")
    model = _load_fp32(str(name), download_root, quick_gelu)
    if isinstance(model, CLIP) and model.vocab_size != VOCAB_SIZE:
        raise UnusableModel(f"{name} has a vocabulary of {model.vocab_size}, not the {VOCAB_SIZE} of CLIP's tokenizer")
    for weight, value in model.state_dict().items():
        if not value.isfinite().all():
            raise UnusableModel(f"{name} has NaN or infinite values in {weight}: get the weights again, or give those "
                                "of an earlier epoch")
    model.to(device)
    if torch.device(device).type == "cuda":
        convert_weights(model)
    return model, image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)


def _load_fp32(name, download_root, quick_gelu):
    if name.startswith(("open_clip:", "hf-hub:")):
        return from_open_clip(name, download_root, quick_gelu)
    if name in _MODELS:
        path = Path(_download(_MODELS[name], download_root))
    else:
        path = _TINY if name == "tiny" else Path(name.removeprefix("local-dir:")).expanduser()
    if name.startswith("local-dir:") or path.is_dir():
        if (path / "open_clip_config.json").is_file() or not is_transformers(path):
            return from_open_clip(f"local-dir:{path}", download_root, quick_gelu)
        config, preprocess = transformers_config(path)
        content = read_transformers(path)
    else:
        if not path.exists() and path.suffix not in (".pt", ".pth", ".bin", ".ckpt", ".safetensors"):
            raise UnusableModel(f"unknown CLIP model {name!r}; it can be {', '.join(available_models())}, a weight "
                                "file, a model's folder, open_clip:ARCH/PRETRAINED or hf-hub:ORG/NAME"
                                f"{_did_you_mean(name)}")
        config, preprocess, content = None, {}, read_content(path)
    state_dict, layout = find_clip(content, path)
    if layout == "transformers" and config is None and is_transformers(path.parent):
        config, preprocess = transformers_config(path.parent)
    if quick_gelu is None:
        quick_gelu = config is None or config["quick_gelu"]
    return from_openai(state_dict, path, config, preprocess, quick_gelu)


def _did_you_mean(name):
    """End the message on an unknown model with the names of those that are like it, or with ""."""
    def plain(text):
        return re.sub("[^a-z0-9]", "", text.lower())

    arch, _, tag = name.partition("/")
    tags = list_pretrained_tags_by_model(arch)
    known = {plain(other): other for other in available_models()}
    meant = [f"{known[found]} (OpenAI's weights)" if known[found] in _MODELS else known[found]
             for found in get_close_matches(plain(name), known, 1, 1 if tags else 0.7)]
    if tags:
        some = f"{', '.join(tags[:6])}{' ...' if len(tags) > 6 else ''}"
        meant.append(f"open_clip:{name if tag in tags else f'{arch}/PRETRAINED with one of {some}'}")
    return f": did you mean {' or '.join(meant)}?" if meant else ""


def tokenize(texts, context_length=77, truncate=False):
    """Return the tokens of one text or a list of texts.

    Args:
        texts: str or sequence of str.
        context_length: length of every row.
        truncate: cut long texts; their last token is end-of-text, too.
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
                raise ValueError(f"the text {text!r} makes {len(tokens)} tokens, more than the context length "
                                 f"{context_length}; shorten it or pass truncate=True")
            tokens = [*tokens[: context_length - 1], _tokenizer.eot_token_id]
        row[: len(tokens)] = torch.tensor(tokens)
    return result
