"""Turn the layouts in which people keep CLIP's weights into OpenAI's names."""

import json
from pathlib import Path

import torch

from .files import MissingFile, UnusableModel, one_line, read_content

_TRANSFORMERS = {  # beginnings of names in Hugging Face transformers -> in OpenAI's layout
    "logit_scale": "logit_scale",
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final.",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.post_layernorm.": "visual.ln_post.",
}
_BLOCK = {"layer_norm1.": "ln_1.", "layer_norm2.": "ln_2.", "mlp.fc1.": "mlp.c_fc.", "mlp.fc2.": "mlp.c_proj.",
          "self_attn.out_proj.": "attn.out_proj."}
_MARKS = {  # a name that only this layout has -> the layout; the longer ones end like the last
    "text_model.embeddings.token_embedding.weight": "transformers",
    "vision_model.embeddings.patch_embedding.weight": "transformers",
    "text.token_embedding.weight": "CustomTextCLIP",
    "token_embedding.weight": "OpenAI",
}
# Files of OpenAI, SWA and old transformers have these beside the weights; a bias of all logits changes no softmax.
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "n_averaged", "logit_bias",
              "text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


def find_clip(content, source):
    """Find the one CLIP in the content of a weight file.

    It may lie at any depth (under "state_dict", "model" ...), with one prefix before all of its names ("module.",
    "_orig_mod.", "model." ...).

    Args:
        content: what `read_content` returned.
        source: its file, for the error message.
    Returns:
        (state_dict, layout): name -> tensor by OpenAI's names; "OpenAI", "CustomTextCLIP" or "transformers". Without
        a CLIP, the largest state dict there is, and "OpenAI".
    Raises:
        UnusableModel: no tensors, several CLIPs, tensors outside the CLIP, or a layout that lacks a part.
    """
    groups = list(_groups(content))
    found = {(place, prefix): (layout, tensors) for place, tensors in groups for prefix, layout in _prefixes(tensors)}
    if not groups:
        raise UnusableModel(f"{source} holds no state dict (names with tensors) but {type(content).__name__}")
    if len(found) > 1:
        places = ", ".join(repr(".".join([*place, f"{prefix}*"])) for place, prefix in found)
        raise UnusableModel(f"{source} holds {len(found)} CLIPs, {places}: save the state dict of the one you mean in "
                            "a file of its own")
    if not found:
        return max((tensors for _, tensors in groups), key=len), "OpenAI"
    ((_, prefix), (layout, tensors)), = found.items()
    outside = [name for name in tensors if not name.startswith(prefix) and name not in NO_WEIGHTS]
    if outside:
        raise UnusableModel(f"{source} holds a CLIP under {prefix}* and, beside it, {_some(outside)}: save the state "
                            "dict of the CLIP alone")
    tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    if layout == "CustomTextCLIP":
        tensors = {name.removeprefix("text."): value for name, value in tensors.items()}
    elif layout == "transformers":
        tensors = _from_transformers(tensors, source)
    return tensors, layout


def _groups(content, place=()):
    """Yield (place, {name: tensor}) of every dict in `content` that holds tensors by names."""
    if isinstance(content, dict):
        tensors = {key: value for key, value in content.items() if isinstance(key, str) and torch.is_tensor(value)}
        if tensors:
            yield place, tensors
        for key, value in content.items():
            yield from _groups(value, (*place, str(key)))


def _prefixes(names):
    """Return {(prefix, layout)} of the CLIPs among `names`, in their order."""
    marks = ((name, next((mark for mark in _MARKS if f".{name}".endswith(f".{mark}")), "")) for name in names)
    return dict.fromkeys((name.removesuffix(mark), _MARKS[mark]) for name, mark in marks if mark)


def _some(names):
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _from_transformers(tensors, source):
    """Rename the tensors of transformers' CLIPModel as OpenAI does; q, k and v of a block become one tensor."""
    missing = [name for name in _TRANSFORMERS if not any(there.startswith(name) for there in tensors)]
    if missing:
        raise UnusableModel(f"{source} is in the layout of Hugging Face transformers, but no whole CLIPModel: it lacks "
                            f"{_some([f'{name}*' if name.endswith('.') else name for name in missing])}")
    found = {}
    for name, value in tensors.items():
        old = next((old for old in _TRANSFORMERS if name.startswith(old)), None)
        name = name.replace(old, _TRANSFORMERS[old], 1) if old else name
        for old, new in _BLOCK.items():
            name = name.replace(f".{old}", f".{new}", 1)
        found[name] = value.T.contiguous() if name in ("text_projection", "visual.proj") else value
    for name in [name for name in found if ".self_attn.q_proj." in name]:
        parts = [found.pop(name.replace("q_proj", f"{part}_proj"), None) for part in "qkv"]
        if any(part is None for part in parts):
            raise UnusableModel(f"{source} has {name} without its k_proj or v_proj: get the file again")
        found[name.replace("self_attn.q_proj.", "attn.in_proj_")] = torch.cat(parts)
    return found


def is_transformers(folder):
    """Return whether Hugging Face transformers saved a folder: its config.json has a `model_type`."""
    try:
        return "model_type" in json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def transformers_config(folder):
    """Read config.json and the image processor's config in a folder of Hugging Face transformers.

    Returns:
        (config, preprocess): keyword arguments of `open_clip.CLIP`, and those of open_clip's `PreprocessCfg`.
    Raises:
        UnusableModel: another model_type than "clip", or settings that open_clip's CLIP does not have.
    """
    folder = Path(folder)
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind != "clip":
        raise UnusableModel(f"{folder} is a Hugging Face transformers folder of model_type {kind!r}, of which only "
                            "'clip' is read: give a CLIPModel's folder, or the same weights as open_clip has them, by "
                            "open_clip:ARCH/PRETRAINED")
    from transformers import CLIPConfig  # takes most of a second

    try:
        config = CLIPConfig.from_pretrained(folder)
    except Exception as error:  # of JSON, of huggingface_hub's checks and of transformers' own
        raise UnusableModel(f"{folder}/config.json is no config of a CLIPModel: {one_line(error)}") from error
    text, vision = config.text_config, config.vision_config
    # eos_token_id 2 stands in old configs and means the highest token, which is the same as 49407.
    for name, values, known in (("hidden_act", {text.hidden_act, vision.hidden_act}, ({"quick_gelu"}, {"gelu"})),
                                ("layer_norm_eps", {text.layer_norm_eps, vision.layer_norm_eps}, ({1e-5},)),
                                ("eos_token_id", {text.eos_token_id}, ({2}, {49407}))):
        if values not in known:
            raise UnusableModel(f"{folder}/config.json has the {name} {' and '.join(map(str, sorted(values)))}, which "
                                "open_clip's CLIP has not: give a CLIPModel with OpenAI's settings")
    # int() of width * mlp_ratio must be the size: half a unit keeps it from falling below.
    sizes = {tower: {"layers": part.num_hidden_layers, "width": part.hidden_size,
                     "mlp_ratio": (part.intermediate_size + 0.5) / part.hidden_size}
             for tower, part in (("vision_cfg", vision), ("text_cfg", text))}
    sizes["vision_cfg"].update(head_width=vision.hidden_size // vision.num_attention_heads,
                               patch_size=vision.patch_size, image_size=vision.image_size)
    sizes["text_cfg"].update(heads=text.num_attention_heads, context_length=text.max_position_embeddings,
                             vocab_size=text.vocab_size)
    return ({"embed_dim": config.projection_dim, **sizes, "quick_gelu": text.hidden_act == "quick_gelu"},
            _transformers_preprocess(folder, vision.image_size))


def _transformers_preprocess(folder, size):
    """Return keyword arguments of `PreprocessCfg` but the size, from a folder's image processor; {} without one."""
    paths = [folder / "preprocessor_config.json", folder / "processor_config.json"]
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        return {}
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
        options = options.get("image_processor", options)
        crop, resize = (options.get(name) or size for name in ("crop_size", "size"))
        crop, resize = (set(value.values()) if isinstance(value, dict) else {value} for value in (crop, resize))
        squashes = isinstance(options.get("size"), dict) and "height" in options["size"]
        found = {"resize_mode": "squash" if squashes else "shortest",
                 "interpolation": {2: "bilinear", 3: "bicubic"}.get(options.get("resample", 3))}
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if options.get(theirs):
                found[ours] = tuple(map(float, options[theirs]))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UnusableModel(f"{path} is no config of an image processor: {one_line(error)}") from error
    for problem, there in (
            (f"resizes to {resize} and crops {crop}, but the model reads {size}x{size} images",
             {size} != crop | resize),
            (f"has the resample {options.get('resample')}, which is neither bilinear (2) nor bicubic (3)",
             not found["interpolation"]),
            ("neither crops nor gives a height", not squashes and not options.get("do_center_crop", True)),
            ("leaves out resizing, rescaling or normalising",
             not all(options.get(f"do_{step}", True) for step in ("resize", "rescale", "normalize")))):
        if there:
            raise UnusableModel(f"{path} {problem}: mend or remove it (without it images are read as OpenAI's CLIP "
                                "reads them)")
    return found


def read_transformers(folder):
    """Read the weight file of a folder, or its shards together.

    Raises:
        MissingFile, UnusableModel: there is none, or a shard is missing or damaged.
    """
    folder = Path(folder)
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return read_content(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return {name: value for shard in shards for name, value in read_content(folder / shard).items()}
    raise MissingFile(f"{folder} is a Hugging Face transformers folder without weights: it has neither "
                      "model.safetensors nor pytorch_model.bin")
