"""Exports a run's classifier to a folder that needs neither this repository nor PyTorch: an ONNX model and its caller.

PyTorch's tracer records the run's own model from pixels to logits, so any method can be exported whose computation does
not depend on the values that it computes.
"""

import json
import os
import shutil
import warnings
from pathlib import Path

import torch
from torch import nn

import trainers
from common.errors import UserError
from runs.outcome import distinct

from .classifier import Classifier
from .loading import NO_IMAGES, load_run

README = """\
# Classifier of {run}

Method {method}, backbone {backbone}. It classifies images for {tasks}. onnxruntime, Pillow and numpy are all it needs:

```python
from classifier import Classifier

print(Classifier(".").predict(["photo.jpg"], topk=3))
```

or `python classifier.py IMAGE ... [--task NAME] [--topk 5]`. `classifier.onnx` takes `pixels` (n, 3, {size}, {size})
and gives `logits` (n, {n_cls}), float32; its metadata `classifier` is JSON: the classes of each task with their
columns, and how images are read.
"""
TOLERANCE = 1e-4  # largest difference of ONNX's logits from PyTorch's, relative to the largest logit


class PixelsToLogits(nn.Module):
    """Maps pixels (B, 3, H, W), float32, to `Classifier.logits` (B, n_cls); features of classes are constants."""

    def __init__(self, classifier):
        super().__init__()
        # Pixels are fp32, so all else must be; rounded values stay rounded.
        self.model = classifier.trainer.model.float()
        self.model.requires_grad_(False)
        features = classifier.class_features
        self.class_features = features if features is None else features.detach().float()
        self.temperatures = classifier.temperatures

    def forward(self, pixels):
        return self.model.logits_of_all_tasks(pixels, self.class_features) / self.temperatures


def export(run, out, which=None):
    """Write the classifier of the finished run in the folder `run` into the folder `out`, whole or not at all.

    Raises:
        MissingFile, UserError: `out` is not empty; `load_run` or `write_onnx` refuses the run.
    """
    out = Path(out).resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there and not empty: give another folder, or remove it")
    # On the CPU, fp16 is fp32.
    classifier = Classifier(load_run(run, which, {"USE_CUDA": False, **NO_IMAGES}))
    about = describe(classifier)
    made = out.with_name(f".{out.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    made.mkdir(parents=True)
    try:
        write_onnx(classifier, made / "classifier.onnx", about)
        shutil.copyfile(Path(__file__).with_name("standalone.py"), made / "classifier.py")
        (made / "README.md").write_text(README.format(
            run=Path(run).resolve().name, **{key: about[key] for key in ("method", "backbone")},
            tasks=", ".join(task["name"] for task in about["tasks"]), size=about["preprocessing"]["size"],
            n_cls=about["tasks"][-1]["end"]), encoding="utf-8")
        if out.exists():
            out.rmdir()
        made.rename(out)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def describe(classifier):
    """The metadata of an exported classifier, see `standalone.Classifier.about`."""
    cfg, tasks, first = classifier.cfg, [], 0
    for name, task in zip(distinct(task.name for task in classifier.tasks), classifier.tasks):
        end = first + len(task.classnames)
        tasks.append({"name": name, "classes": distinct(task.classnames), "first": first, "end": end})
        first = end
    normalised = "normalize" in cfg.INPUT.TRANSFORMS
    return {
        "method": cfg.TRAINER.NAME, "backbone": cfg.MODEL.BACKBONE.NAME, "tasks": tasks, "preprocessing": {
            "size": cfg.INPUT.SIZE[0], "mean": list(cfg.INPUT.PIXEL_MEAN) if normalised else [0.0] * 3,
            "std": list(cfg.INPUT.PIXEL_STD) if normalised else [1.0] * 3, "interpolation": cfg.INPUT.INTERPOLATION,
            "resize_mode": cfg.INPUT.RESIZE_MODE, "turned_by_exif": classifier.upright}}


@torch.no_grad()
def write_onnx(classifier, path, about):
    """Trace a classifier for batches of any size, write it as ONNX with `about`, and compare it on random images.

    Raises:
        UserError: the method can't be traced, PyTorch doesn't export it, or onnxruntime's logits differ.
    """
    import onnx
    import onnxruntime

    whole, size = PixelsToLogits(classifier).eval(), about["preprocessing"]["size"]
    draw, refused = torch.Generator().manual_seed(0), f"{about['method']} can't be exported: "
    batches = [scale * torch.randn(n, 3, size, size, generator=draw) for n in (1, 3) for scale in (0.3, 1, 3)]
    failed, methods = None, Path(trainers.__file__).parent
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            # PyTorch's newer exporter would need onnxscript.
            torch.onnx.export(whole, (batches[1],), str(path), input_names=["pixels"], output_names=["logits"],
                              dynamic_axes={"pixels": {0: "n"}, "logits": {0: "n"}}, dynamo=False)
            model = onnx.load(path, load_external_data=False)  # values of more than 2 GB are in files beside it
            onnx.helper.set_model_props(model, {"classifier": json.dumps(about, ensure_ascii=False)})
            onnx.save(model, path)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            found = [session.run(None, {"pixels": pixels.numpy()})[0] for pixels in batches]
        except Exception as error:  # PyTorch's exporter and onnxruntime have no common type
            failed = error
    for warning in said:  # warnings from other files are about sizes, which are fixed
        if issubclass(warning.category, torch.jit.TracerWarning) and methods in Path(warning.filename).parents:
            raise UserError(f"{refused}how it computes logits depends on the images (trainers/"
                            f"{Path(warning.filename).name}, line {warning.lineno}), which ONNX can't express")
    if failed:
        raise UserError(f"{refused}{' '.join(str(failed).split())[:200]}") from failed
    for pixels, logits in zip(batches, found):
        expected = whole(pixels)
        largest = float(expected.nan_to_num(neginf=0).abs().max())
        if not torch.allclose(torch.from_numpy(logits), expected, rtol=0, atol=TOLERANCE * largest):  # -inf equals -inf
            raise UserError(f"{refused}onnxruntime's logits differ from PyTorch's by more than {TOLERANCE:g} of the "
                            "largest")
