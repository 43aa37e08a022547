"""The model: open_clip's towers behind the attributes and state dict of OpenAI's CLIP.

A text tower of another layout than CLIP's keeps open_clip's module.
"""

import json
import warnings
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.model import (
    CLIPTextCfg,
    build_model_from_openai_state_dict,
    convert_weights_to_lp,
    set_model_preprocess_cfg,
)
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg
from open_clip.transformer import LayerNorm, LayerNormFp32
from torch import nn

from .files import ClipError, MissingFile, UnusableModel, check_weight_file, download_pretrained, one_line, read_content
from .layouts import NO_WEIGHTS
from .text_towers import ClipTokenizer, TextTower, cast_all_but, hub_folder, make_tokenizer, named_folder

HUB_WEIGHTS = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)  # of a repository, the better one first
VOCAB_SIZE = 49408  # of CLIP's tokenizer
EOT = VOCAB_SIZE - 1  # its end-of-text token, the highest number of all

# What a weight file does not tell, and how a user sets it.
_READ_AS = {"mean": "INPUT.PIXEL_MEAN", "std": "INPUT.PIXEL_STD", "interpolation": "INPUT.INTERPOLATION",
            "resize_mode": "INPUT.RESIZE_MODE", "quick_gelu": "MODEL.BACKBONE.QUICK_GELU, quick_gelu in clip.load"}
_OTHER_HEADS = {1280: "ViT-H-14", 1408: "ViT-g-14", 1664: "ViT-bigG-14"}  # by width; all others' are 64 wide


class Transformer(nn.Module):
    """The text tower's blocks, called as in OpenAI's code: sequence first, with the causal mask built in."""

    def __init__(self, blocks, width, context_length):
        super().__init__()
        self.resblocks = blocks
        self.width = width
        self.layers = len(blocks)
        mask = torch.full((context_length, context_length), float("-inf")).triu_(1)
        self.register_buffer("attn_mask", mask, persistent=False)

    def forward(self, x):
        """(L, N, width) -> (L, N, width); L is at most the context length."""
        mask = self.attn_mask[: len(x), : len(x)]
        x = x.transpose(0, 1)  # (N, L, width): open_clip's blocks are batch first
        for block in self.resblocks:
            x = block(x, attn_mask=mask)
        return x.transpose(0, 1)  # (L, N, width)


class DualEncoder(nn.Module):
    """Base of CLIP and of models with another text tower; both have `visual`, `logit_scale`, `tokenizer`, `dtype`."""

    def encode_image(self, image, normalize=False):
        """Images (N, 3, H, W), already normalised -> features (N, embed_dim), of length 1 if `normalize`."""
        features = self.visual(image.type(self.dtype))
        return F.normalize(features, dim=-1) if normalize else features

    def encode_text(self, text, normalize=False):
        """Tokens (N, L), integers -> features (N, embed_dim)."""
        raise NotImplementedError

    def forward(self, image, text):
        """Images (N, 3, H, W) and tokens (M, L) -> scaled cosines (N, M) and their transpose (M, N)."""
        image_features = self.encode_image(image, normalize=True)
        text_features = self.encode_text(text, normalize=True)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        return logits, logits.t()


class CLIP(DualEncoder):
    """Image and text tower with the attributes, call signatures and state dict names of OpenAI's CLIP.

    Args:
        source: an `open_clip` model, CLIP or CustomTextCLIP, whose modules are taken over.
    """

    def __init__(self, source):
        super().__init__()
        text = getattr(source, "text", source)
        blocks = text.transformer.resblocks
        self.context_length = text.context_length
        self.vocab_size = text.vocab_size
        self.visual = source.visual
        self.transformer = Transformer(blocks, text.transformer.width, text.context_length)
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding  # (context_length, width)
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection  # (width, embed_dim)
        self.tokenizer = ClipTokenizer(text.context_length)
        # A logit bias is left behind: it's one number for all classes, so no softmax over classes sees it.
        self.logit_scale = nn.Parameter(source.logit_scale.detach().reshape(()))

    @property
    def dtype(self):
        """dtype of the matrices of the text tower; the one that `encode_image` casts images to."""
        return self.transformer.resblocks[0].mlp.c_fc.weight.dtype

    @property
    def output_dim(self):
        """Size of the features, embed_dim."""
        return self.text_projection.shape[1]

    def encode_text(self, text, normalize=False):
        """Tokens (N, L), integers -> features (N, embed_dim) read at the end-of-text token."""
        x = self.token_embedding(text).type(self.dtype)  # (N, L, width)
        x = x + self.positional_embedding[: text.shape[1]].type(self.dtype)
        x = self.transformer(x.transpose(0, 1)).transpose(0, 1)
        x = self.ln_final(x).type(self.dtype)
        x = x[torch.arange(len(x), device=x.device), text.argmax(dim=-1)]  # (N, width)
        x = x @ self.text_projection  # (N, embed_dim)
        return F.normalize(x, dim=-1) if normalize else x


class TextTowerCLIP(DualEncoder):
    """Image tower of an open_clip model, and its text tower of another layout than CLIP's, as `text`.

    Args:
        source: an `open_clip` model, CustomTextCLIP or CoCa, whose modules are taken over.
        tokenizer: `FramedTokenizer` of the text tower.
        difference: as in `TextTower`.
    """

    def __init__(self, source, tokenizer, difference):
        super().__init__()
        source.visual.output_tokens = False  # CoCa's gives its tokens, too
        self.visual = source.visual
        self.text = TextTower(source.text, difference)
        self.tokenizer = tokenizer
        # As in CLIP, without a logit bias.
        self.logit_scale = nn.Parameter(source.logit_scale.detach().reshape(()))

    @property
    def dtype(self):
        """dtype of the matrices of the text tower; the one that `encode_image` casts images to."""
        return self.text.dtype

    @property
    def output_dim(self):
        """Size of the features, embed_dim."""
        return self.text.output_dim

    def encode_text(self, text, normalize=False):
        """Tokens (N, context_length) of `tokenizer` -> features (N, embed_dim)."""
        features = self.text(text)
        return F.normalize(features, dim=-1) if normalize else features


def convert_weights(model, dtype=torch.float16):
    """Cast, in place, what OpenAI casts to fp16: convolutions, linear maps, attention and the projections.

    Norms, embeddings and the logit scale keep their dtype. timm image towers are cast whole, batch norms
    excepted, since their other layers compute in the dtype of their weights.

    Args:
        model: a `DualEncoder` or one of its parts.
        dtype: torch.float16 or torch.bfloat16.
    """
    if isinstance(model, TextTowerCLIP):
        convert_weights(model.visual, dtype)
        model.text.cast(dtype)
        return
    convert_weights_to_lp(model, dtype)
    for module in model.modules():
        if isinstance(module, CLIP):
            module.text_projection.data = module.text_projection.data.to(dtype)
        elif isinstance(module, TimmModel):
            cast_all_but(nn.modules.batchnorm._BatchNorm, module, dtype)


def convert_to_double(model):
    """Cast, in place, all of a model to float64. Norms that compute in float32 use their own dtype from then on."""
    for module in model.double().modules():
        if type(module) is LayerNormFp32:
            module.__class__ = LayerNorm


def norms_in_float32(model):
    """Let a model's norms compute in float32, in place: open_clip's do so only where it rounds the weights to fp16."""
    for module in model.modules():
        if type(module) is LayerNorm:
            module.__class__ = LayerNormFp32


def build_model(state_dict):
    """State dict in OpenAI's layout -> `CLIP` in eval mode with applicable weights in fp16, as OpenAI's does.

    Raises:
        UnusableModel: as `from_openai`.
    """
    model = from_openai(state_dict)
    convert_weights(model)
    return model


def from_openai(state_dict, source="the state dict", config=None, preprocess=(), quick_gelu=True):
    """Build the model that a state dict in OpenAI's layout describes, in fp32 and eval mode.

    Args:
        state_dict: name -> tensor; copied, not changed. fp16 values become the same numbers in fp32.
        source: where it came from, for the error message.
        config: keyword arguments of `open_clip.CLIP`; default: what OpenAI's models of these shapes have.
        preprocess: dict of those of `PreprocessCfg` that are not OpenAI's.
        quick_gelu: the activation, QuickGELU as in OpenAI's models, or GELU.
    Raises:
        UnusableModel: it's no CLIP in OpenAI's layout; the message names what is missing or does not fit.
    """
    state_dict = {name: value for name, value in state_dict.items() if name not in NO_WEIGHTS}
    arch = _OTHER_HEADS.get(len(state_dict.get("visual.conv1.weight", ())))
    if config is None and arch:
        raise UnusableModel(f"{source} has the image tower of {arch}, whose attention heads are not 64 wide as "
                            f"OpenAI's are: give it as open_clip:{arch}/PATH")
    for tower, norm in (("an image", "visual.ln_post.weight"), ("a text", "ln_final.weight")):
        width = len(state_dict.get(norm, ()))
        if config is None and width % 64:
            raise UnusableModel(f"{source} has {tower} tower of width {width}, no multiple of 64 as OpenAI's attention "
                                "heads ask: give it with its config, as local-dir:FOLDER or open_clip:ARCH/PATH")
    for name, value in state_dict.items():
        if not value.is_floating_point() and not name.endswith("num_batches_tracked"):
            raise UnusableModel(f"{source} has {name} as {str(value.dtype).removeprefix('torch.')}, as quantised "
                                "models have: give the weights in fp16, bf16 or fp32")
    # A scalar in OpenAI's layout, of shape (1,) in some of open_clip's.
    if "logit_scale" in state_dict and state_dict["logit_scale"].numel() == 1:
        state_dict["logit_scale"] = state_dict["logit_scale"].reshape(())
    try:
        # On the meta device open_clip makes the layout alone: no random weights, and its cast to fp16 rounds
        # nothing, since the values come afterwards. cast_dtype asks for norms that compute in fp32.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
            if config is None:
                model = build_model_from_openai_state_dict(dict(state_dict), quick_gelu, torch.float16).float()
            else:
                model = open_clip.CLIP(**{**config, "quick_gelu": quick_gelu}, cast_dtype=torch.float16)
        dtypes = {name: value.dtype for name, value in model.state_dict().items()}
        values = {name: value.to(dtypes.get(name), copy=True) for name, value in state_dict.items()}
        model.load_state_dict(values, assign=True)
    except Exception as error:  # sizes that do not fit together fail in many ways inside open_clip and torch
        layout = "OpenAI's layout" if config is None else "the layout that its config.json describes"
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        raise UnusableModel(f"{source} is no CLIP in {layout}: {lacks}{one_line(error)}") from error
    set_model_preprocess_cfg(model, asdict(PreprocessCfg(**{"size": model.visual.image_size, **dict(preprocess)})))
    return _finish(CLIP(model), source)


def from_open_clip(name, download_root=None, quick_gelu=None):
    """Load an open_clip model, in fp32 and eval mode: a `CLIP` or, with another text tower, a `TextTowerCLIP`.

    Args:
        name: `local-dir:PATH` (a folder with open_clip_config.json and weights), `hf-hub:ORG/NAME` (such a folder on
            the Hugging Face Hub or in its cache), or `open_clip:ARCH/PRETRAINED`, where PRETRAINED is a tag of
            open_clip's table or a weight file.
        download_root: folder for downloads; default: open_clip's own.
        quick_gelu: the activation; default: what the architecture, the folder's config or the tag says. A weight file
            has the activation and preprocessing that the architecture's published weights agree on.
    Warns:
        UserWarning: they do not agree.
    Raises:
        MissingFile: folder or file missing.
        UnusableModel: unknown ARCH or PRETRAINED, unreadable files, or a text tower that makes no use of prompts.
        ClipError: weights, the tokenizer or the model's folder could not be downloaded.
    """
    if name.startswith(("local-dir:", "hf-hub:")):
        folder = _model_folder(name, download_root)
        arch, pretrained = f"local-dir:{folder}", None
        config = _local_config(name, folder)
    else:
        arch, _, pretrained = name.removeprefix("open_clip:").partition("/")
        config = open_clip.get_model_config(arch)
        if config is None:
            raise UnusableModel(f"{name}: open_clip has no model {arch!r}{_near(arch, open_clip.list_models())}")
        folder = None
    text = _text_config(name, config)
    difference, extra = _difference(text, config), {}
    if difference:  # small files before large ones
        try:
            tokenizer = make_tokenizer(text, folder, download_root)
            extra = _as_custom_text(text, config, folder, download_root)
        except ClipError as error:
            raise type(error)(f"{name} can't be used: {error}") from error
    if folder is None:
        pretrained, more = _open_clip_weights(name, arch, pretrained, download_root, quick_gelu)
        extra |= more
    if quick_gelu is not None:
        extra |= {"force_quick_gelu": False, "quick_gelu": quick_gelu}
    try:
        model = open_clip.create_model(arch, pretrained, require_pretrained=True, cache_dir=download_root, **extra)
    # open_clip lets the errors of JSON, zip, pickle, safetensors, timm and state dicts through as they are.
    except Exception as error:
        raise UnusableModel(f"{name} could not be loaded: {one_line(error)}") from error
    if text.hf_model_name:
        # It was the folder of the config, which digests of the model must not depend on.
        model.text.transformer.name_or_path = text.hf_model_name
    norms_in_float32(model)
    if not difference:
        return _finish(CLIP(model), name)
    try:
        return _finish(TextTowerCLIP(model, tokenizer, difference), name)
    except UnusableModel as error:
        raise UnusableModel(f"{name} can't be used: {error}") from error


def _model_folder(name, download_root):
    """Return the folder of `local-dir:PATH` or, from the Hub or its cache, `hf-hub:ORG/NAME`."""
    kind, _, place = name.partition(":")
    if kind == "local-dir":
        return Path(place).expanduser()
    try:
        return hub_folder(place, "model", ("open_clip_config.json",), HUB_WEIGHTS, cache_dir=download_root)
    except ClipError as error:
        raise ClipError(f"{name} can't be used: {error}") from error


def _local_config(name, folder):
    path = folder / "open_clip_config.json"
    if not path.is_file():
        raise MissingFile(f"{name} is no open_clip model folder: there is no {path}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnusableModel(f"{path} is no open_clip config with a model_cfg entry: {one_line(error)}") from error
    for file in folder.iterdir():
        if file.suffix in (".safetensors", ".bin", ".pth"):
            check_weight_file(file)
    return config


def _open_clip_weights(name, arch, pretrained, download_root, quick_gelu):
    """Return (file, extra arguments of create_model) for the PRETRAINED part; download a tag's file."""
    tags = list_pretrained_tags_by_model(arch)
    config = get_pretrained_cfg(arch, pretrained)
    if config:
        try:
            file = download_pretrained(config, cache_dir=download_root)
        except Exception as error:  # urllib's, huggingface_hub's and open_clip's own
            url = f"https://huggingface.co/{config['hf_hub']}" if config.get("hf_hub") else config["url"]
            raise ClipError(f"{name}: could not download {url} ({one_line(error)}); fetch it by hand and give the "
                            f"file instead, as open_clip:{arch}/PATH") from error
        settings = _published_settings(arch, config)
    else:
        file = Path(pretrained).expanduser()
        if not pretrained or not file.is_file():
            if file.suffix or "/" in pretrained:
                raise MissingFile(f"{name}: there is no weight file {file}")
            raise UnusableModel(f"{name}: open_clip has no weights {pretrained!r} for {arch}{_near(pretrained, tags)}")
        if file.suffix != ".npz":  # open_clip reads big_vision's
            read_content(file)  # refuses other files
        settings = _settings_of_file(name, arch, tags, quick_gelu)
    # open_clip would look for a tag's file on the network again. It only warns where weights trained with QuickGELU
    # meet an architecture without.
    return str(file), {"force_quick_gelu": settings.pop("quick_gelu"), "force_preprocess_cfg": settings}


def _published_settings(arch, config):
    """Return {"mean", "std", "interpolation", "resize_mode", "quick_gelu"} of a tag's `config`.

    Those that it lacks are OpenAI's preprocessing and the architecture's activation, as for open_clip.
    """
    default = asdict(PreprocessCfg()) | open_clip.get_model_config(arch)
    settings = {key: config.get(key, default.get(key)) for key in _READ_AS}
    return {**settings, "quick_gelu": bool(settings["quick_gelu"])}


def _settings_of_file(name, arch, tags, quick_gelu):
    """Return `_published_settings` of a weight file, which holds none: those that all published weights of ARCH have.

    Where they differ, those of a tag that says nothing count, as for open_clip, and a warning names all of them;
    without published weights they count, too. The activation is not in question if `quick_gelu` is given.
    """
    taken = _published_settings(arch, {})
    published = {tag: _published_settings(arch, get_pretrained_cfg(arch, tag)) for tag in tags}
    unclear = []
    for key, name_of_key in _READ_AS.items():
        by_value = {}
        for tag, settings in published.items():
            by_value.setdefault(settings[key], []).append(tag)
        if len(by_value) == 1:
            taken[key], = by_value
        elif by_value and (key != "quick_gelu" or quick_gelu is None):
            choices = " or ".join(f"{value} ({', '.join(found[:3])}{' ...' if len(found) > 3 else ''})"
                                  for value, found in by_value.items())
            unclear.append(f"{key} {choices}, of which {taken[key]} is taken (else set {name_of_key})")
    if unclear:
        warnings.warn(f"{name}: the file does not tell how its model was trained, and published weights of {arch} "
                      f"differ in {'; in '.join(unclear)}; the open_clip_config.json of a local-dir: would tell")
    return taken


def _near(word, choices):
    near = get_close_matches(word, choices, n=5, cutoff=0.5) or choices[:10]
    return f"; it has {', '.join(near)}" if near else ""


def _text_config(name, config):
    """Return an open_clip config's `CLIPTextCfg`; UnusableModel if its text tower gives no feature of a text."""
    try:
        text = CLIPTextCfg(**config["text_cfg"])
    except (KeyError, TypeError) as error:
        raise UnusableModel(f"{name} has no text_cfg that open_clip understands: {one_line(error)}") from error
    if text.pool_type == "none" and not text.hf_model_name:
        raise UnusableModel(f"{name} can't be used because its text tower does not pool: it gives a feature per "
                            "position, none of the text")
    if text.proj_type == "none" and text.width != config.get("embed_dim") and not text.hf_model_name:
        raise UnusableModel(f"{name} can't be used because its text tower has no projection from its width "
                            f"{text.width} to the image features' {config.get('embed_dim')}")
    return text


def _difference(text, config):
    """Say how a text tower (`CLIPTextCfg`) differs from CLIP's with CLIP's tokenizer; "" if it does not."""
    blocks = (text.block_type not in (None, "default"), text.qk_norm, text.scaled_cosine_attn,
              text.scale_heads, text.scale_attn_inner, text.scale_attn, text.scale_fc,
              text.ls_init_value is not None)
    eos = text.pool_type == "argmax" or (text.pool_type == "eos" and text.eos_id == EOT)
    differences = {
        f"is the Hugging Face model {text.hf_model_name}": text.hf_model_name,
        "has no causal attention mask": text.no_causal_mask,
        "adds a class-token embedding": text.embed_cls or "multimodal_cfg" in config,
        f"is pooled by {text.pool_type!r} instead of at CLIP's end-of-text token": not eos,
        "has blocks other than open_clip's default residual attention block": any(blocks),
        "has no projection": text.proj_type == "none",
        "has a projection with a bias": text.proj_bias,
        "does not use CLIP's tokenizer": (
            text.hf_tokenizer_name or text.tokenizer_mode or text.tokenizer_kwargs
            or text.vocab_size != VOCAB_SIZE),
    }
    return next((difference for difference, found in differences.items() if found), "")


def _as_custom_text(text, config, folder, download_root):
    """Return arguments of create_model that make the text tower the module `text`, without pretrained parts."""
    extra = {"force_custom_text": True}
    if text.hf_model_name:
        # Its layout stands in a config.json, in the model's folder or on the Hub.
        if folder is None or not (folder / "config.json").is_file():
            folder = named_folder(text.hf_model_name, "config of the text model", ["config.json"], download_root)
        extra["text_cfg"] = {**config["text_cfg"], "hf_model_name": str(folder), "hf_model_pretrained": False}
    return extra


def _finish(model, name):
    """Put a `DualEncoder` into eval mode and give its image tower OpenAI's attributes."""
    size = model.visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if height != width:
        raise UnusableModel(f"{name} takes images of {height}x{width}; only square input is supported")
    model.visual.input_resolution = height
    model.visual.output_dim = model.output_dim
    return model.eval()
