"""A run's classifiers as a folder that open_clip and safetensors can use without this repository.

| file | what |
|---|---|
| `classes.safetensors` | a tensor (n, dim) per task: its classes' features at length 1, float32 |
| `about.json` | names of tasks and classes, logit scale, backbone, preprocessing |
| `image_tower/` | the image tower as `open_clip.create_model("local-dir:PATH")` loads it, fp32 |
| `image_tower.onnx` | the same as ONNX, if asked for |
| `README.md` | the Python lines that classify an image |
"""

import contextlib
import json
import os
import shutil
import sys
import warnings
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import save
from torch.nn import functional as F

from clip import ClipError
from clip.image_tower import save_image_tower
from common.errors import UserError
from runs.keys import refusal
from runs.outcome import distinct
from trainers.multitask_clip import MultiTaskCLIP

from .loading import NO_IMAGES, Classifier, load_run

USAGE = """\
import json, sys, open_clip, torch
from PIL import Image{ops}
from safetensors.torch import load_file
model, preprocess = open_clip.create_model_from_pretrained("local-dir:image_tower")
classes, about = load_file("classes.safetensors"), json.load(open("about.json", encoding="utf-8"))
image = preprocess({image}.convert("RGB"))
feature = torch.nn.functional.normalize(model.eval().visual(image[None]), dim=-1).detach()
for task in about["tasks"]:
    probabilities = (about["logit_scale"] * feature @ classes[task["name"]].T).softmax(1)[0].tolist()
    print(task["name"], sorted(zip(probabilities, task["classes"]), reverse=True)[:5])
"""
README = """\
# Classifiers of {run}

Method {method}, backbone {backbone}. These lines classify an image with open_clip and safetensors alone. Save them in
this folder as `classify.py`, and call `python classify.py IMAGE` here:

```python
{usage}```

`classes.safetensors` holds a tensor of class features per task, float32, of length 1; `about.json` their names, the
logit scale and how images are read. `image_tower/` is a folder of open_clip whose image tower is the backbone's in
fp32; the text tower in it is a placeholder of one small layer, since the texts are encoded already.
{onnx}"""
ONNX = """
`image_tower.onnx` is the image tower: input `pixels` (n, 3, {size}, {size}), float32, as `preprocess` makes them;
output `features` (n, dim), not normalised.
"""
TOLERANCE = 1e-4  # of ONNX's features against PyTorch's, relative to the largest


def export(run, out, which=None, onnx=False):
    """Write the folder `out` of the classifiers of a finished run, whole or not at all.

    Args:
        run: folder of the run. which: as in `load_run`. out: a folder that is empty or does not exist.
        onnx: whether the image tower is written as ONNX, too.

    Raises:
        MissingFile, UserError: as `load_run`; `out` is not empty; the method has no class features, two tasks have the
            same name, or images are read or the image tower is built in a way that open_clip or ONNX doesn't know.
    """
    out = Path(out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and not empty: give another folder, or remove it")
    # On the CPU: fp16 is fp32 there.
    settings = {"USE_CUDA": False, **NO_IMAGES}
    trainer = load_run(run, which, settings)
    kind = type(trainer.model)
    if kind.score is not MultiTaskCLIP.score or kind.logits is not MultiTaskCLIP.logits:
        raise UserError(f"{trainer.cfg.TRAINER.NAME} can't be exported: its logits are not cosines with class features")
    classifiers = Classifier(trainer)
    about = {**describe(trainer), "turned_by_exif": classifiers.upright}
    sizes = [len(task.classnames) for task in trainer.tasks]
    features = F.normalize(classifiers.class_features.float(), dim=-1).split(sizes)
    visual = deepcopy(trainer.model.image_encoder).float()  # of bf16, the rounded values
    made = out.with_name(f".{out.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    made.mkdir(parents=True)
    try:
        # Not save_file: what it writes only its owner can read.
        (made / "classes.safetensors").write_bytes(save(
            {task.name: feature.contiguous() for task, feature in zip(trainer.tasks, features)}))
        save_image_tower(visual, made / "image_tower", about["preprocessing"])
        if onnx:
            export_onnx(visual, made / "image_tower.onnx", about["preprocessing"]["size"])
        (made / "about.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        opened = "Image.open(sys.argv[1])"
        opened = f"ImageOps.exif_transpose({opened})" if classifiers.upright else opened
        (made / "README.md").write_text(README.format(
            run=Path(run).resolve().name, method=about["method"], backbone=about["backbone"],
            usage=USAGE.format(image=opened, ops=", ImageOps" * classifiers.upright),
            onnx=ONNX.format(size=about["preprocessing"]["size"]) if onnx else ""), encoding="utf-8")
        if out.exists():
            out.rmdir()
        made.rename(out)
    except ClipError as error:
        raise UserError(f"{run} can't be exported: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def describe(trainer):
    """`about.json` of a trainer, without what is known of its dataset.

    Raises:
        UserError: two tasks have the same name, or images are read in a way that open_clip doesn't know.
    """
    cfg, names = trainer.cfg, [task.name for task in trainer.tasks]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"two tasks are called {twice[0]!r}, so their features can't be told apart by name")
    if cfg.INPUT.INTERPOLATION == "nearest":
        raise refusal(cfg, "INPUT.INTERPOLATION", "open_clip reads images with bilinear or bicubic")
    normalised = "normalize" in cfg.INPUT.TRANSFORMS
    return {
        "method": cfg.TRAINER.NAME, "backbone": cfg.MODEL.BACKBONE.NAME,
        "logit_scale": float(trainer.model.logit_scale.detach().float().exp()),
        "preprocessing": {
            "size": cfg.INPUT.SIZE[0], "mean": list(cfg.INPUT.PIXEL_MEAN) if normalised else [0.0] * 3,
            "std": list(cfg.INPUT.PIXEL_STD) if normalised else [1.0] * 3, "interpolation": cfg.INPUT.INTERPOLATION,
            "resize_mode": cfg.INPUT.RESIZE_MODE},
        "tasks": [{"name": task.name, "classes": distinct(task.classnames)} for task in trainer.tasks]}


@torch.no_grad()
def export_onnx(visual, path, size):
    """Write an image tower as ONNX for batches of any size, and compare it on two images.

    Raises:
        UserError: PyTorch doesn't export it, or onnxruntime's features differ.
    """
    import onnxruntime

    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, whose result is compared below
            # PyTorch's newer exporter would need onnxscript.
            torch.onnx.export(visual, (pixels[:1],), str(path), input_names=["pixels"], output_names=["features"],
                              dynamic_axes={"pixels": {0: "n"}, "features": {0: "n"}}, dynamo=False)
        found, = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
            None, {"pixels": pixels.numpy()})
    except Exception as error:  # of torch.onnx and onnxruntime, which have no common type
        raise UserError(f"--onnx: the image tower can't be exported ({' '.join(str(error).split())[:200]}): leave "
                        "--onnx out") from error
    expected = visual(pixels)
    difference = float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:
        raise UserError(f"--onnx: onnxruntime's features differ from PyTorch's by {difference:.1g} of the largest, "
                        f"more than {TOLERANCE:g}: leave --onnx out")


def export_run(args):
    """What `export.py` does; `args` is the namespace of its options. Raises as `export`."""
    with contextlib.redirect_stdout(sys.stderr):
        export(args.run, args.out, args.epoch, args.onnx)
    print(f"The classifiers of {args.run} are in {args.out}; its README.md says how to use them")
