"""An image tower alone as a folder that open_clip loads: `open_clip.create_model("local-dir:PATH")`."""

import json

import open_clip
import torch
from safetensors.torch import save

from .files import UnusableModel, one_line

# open_clip makes both towers. Nobody asks this one: what it would say stands in the classes' features.
_SMALLEST_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}


def save_image_tower(visual, folder, preprocess):
    """Write `open_clip_config.json` and `open_clip_model.safetensors` of an image tower, fp32.

    open_clip's folders hold a text tower, too; this one's is a single layer of width 1.

    Args:
        visual: that of a `clip` model, on the CPU in fp32.
        folder: a `Path` that does not exist.
        preprocess: {"size", "mean", "std", "interpolation", "resize_mode"}, how images are read.

    Raises:
        UnusableModel: open_clip does not load the same tower from there.
    """
    folder.mkdir()
    sizes = {**visual.model_cfg, "text_cfg": _SMALLEST_TEXT}
    model = open_clip.CLIP(**sizes)
    try:
        model.visual.load_state_dict(visual.state_dict())
    except RuntimeError as error:
        raise UnusableModel(f"open_clip makes another image tower of its config: {one_line(error)}") from error
    values = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    # Not save_file: what it writes only its owner can read.
    (folder / "open_clip_model.safetensors").write_bytes(save(values, {"format": "pt"}))
    (folder / "open_clip_config.json").write_text(json.dumps(
        {"model_cfg": sizes, "preprocess_cfg": preprocess}, indent=2) + "\n", encoding="utf-8")
    pixels = torch.randn(1, 3, preprocess["size"], preprocess["size"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = visual(pixels)
        theirs = open_clip.create_model(f"local-dir:{folder}").eval().visual(pixels)
    if not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(ours.abs().max())):
        raise UnusableModel("open_clip makes another image tower of its config: the features differ by up to "
                            f"{float((ours - theirs).abs().max()):.2g}")
