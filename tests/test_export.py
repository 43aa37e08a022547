"""export.py: open_clip and safetensors alone classify as predict.py does, by the lines of the exported README."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import export
from clip.model import _openai_vision_cfg
from learned.loading import load_classifiers
from learned.predicting import predict
from lpclip.linear_probe import parse_args, sweep
from tests.helpers import call, train_args
from tests.test_clip import TIMM, write_local_dir
from tests.test_lpclip import arguments as probe_arguments
from tests.test_text_towers import write_model

OPTIONS = {"OPTIM.MAX_EPOCH": 1, "TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 3}


@pytest.fixture
def make_run(photo_root, tmp_path):
    """make_run(backbone, trainer, **options) is the folder of a short run."""
    def make(backbone, trainer, size=32, **options):
        extra = ["--eval-only"] if trainer.startswith("Zeroshot") else []
        call(train_args(photo_root, backbone, tmp_path / "run", trainer, *extra, **{
            "DATASET.SPLIT_DIR": tmp_path / "splits", "INPUT.SIZE": f"({size}, {size})", **OPTIONS, **options}))
        return tmp_path / "run"
    return make


@pytest.fixture
def pictures(photo_root, tmp_path):
    """Images that a careless reader would read otherwise: one to be turned, one with a palette, a large and a tall."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (90, 140, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    noise.save(tmp_path / "turned.jpg", exif=exif)
    noise.quantize(16).save(tmp_path / "palette.png")
    noise.resize((50, 300)).save(tmp_path / "tall.webp")
    return [tmp_path / name for name in ("turned.jpg", "palette.png", "tall.webp")] + [
        photo_root / "lightness" / "dark" / "00.png"]


def lines_of(out):
    return re.search("```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[1]


def parse(printed):
    """{task: {class: probability}} of what the README's lines print."""
    found = {}
    for line in printed.splitlines():
        name, pairs = re.fullmatch(r"(.*?) (\[\(.*\)\])", line).groups()
        found[name] = {label: value for value, label in eval(pairs)}
    return found


def expected(run, paths):
    """[{task: {class: probability}}] of each image, by predict.py's own path."""
    classifiers = load_classifiers(str(run))
    rows = predict(classifiers, list(map(str, paths)), range(len(classifiers.tasks)), 5)
    found = {}
    for row in rows:
        found.setdefault(row["image"], {})[row["task"]] = {
            entry["class"]: entry["probability"] for entry in row["classes"]}
    return list(found.values())


def check_same(found, wanted):
    assert len(found) == len(wanted)
    for ours, theirs in zip(wanted, found):
        assert ours.keys() == theirs.keys()
        for task in ours:
            assert theirs[task] == pytest.approx(ours[task], abs=1e-5)


def by_readme(out, paths, monkeypatch):
    """What the lines print for each image, in this process."""
    code, found = compile(lines_of(out), "README.md", "exec"), []
    for path in paths:
        with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
            patch.chdir(out)
            patch.setattr(sys, "argv", ["classify.py", str(path)])
            exec(code, {})
        found.append(parse(printed.getvalue()))
    return found


def test_a_process_without_this_repository(make_run, backbone, pictures, tmp_path):
    """A weight file, which open_clip alone could not name, in an isolated process that starts in the folder."""
    run = make_run(backbone, "MTCoOp")
    out = tmp_path / "there" / "out"
    export.main([str(run), str(out)])
    assert sorted(os.listdir(out.parent)) == ["out"]
    assert len(lines_of(out).splitlines()) <= 10
    (out / "classify.py").write_text(lines_of(out) + "assert 'trainers' not in sys.modules and 'clip' not in "
                                     "sys.modules\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-I", "classify.py", str(pictures[0])], cwd=out, env=environment, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    check_same([parse(done.stdout)], expected(run, pictures[:1]))


@pytest.mark.parametrize("name", ["tiny", "timm", "resnet", "siglip", "coca"])
def test_other_backbones(name, make_run, pictures, tmp_path, monkeypatch):
    place = tmp_path / "backbone"
    size = {"tiny": 64, "timm": 64}.get(name, 32)
    if name == "timm":
        place.mkdir()
        name = write_local_dir(place, TIMM)
    elif name == "resnet":  # a weight file of OpenAI's layout
        vision = {"layers": [1, 2, 1, 1], "width": 16, "image_size": 32, "patch_size": None}
        text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
        torch.manual_seed(0)
        name = str(tmp_path / "resnet.pt")
        torch.save(open_clip.CLIP(32, vision, text, quick_gelu=True).state_dict(), name)
    elif name != "tiny":
        name = write_model(place, name)
    run = make_run(name, "ZeroshotCLIP2", size)
    export.main([str(run), str(tmp_path / "out")])
    check_same(by_readme(tmp_path / "out", pictures, monkeypatch), expected(run, pictures))


@pytest.mark.parametrize("options", [
    {"INPUT.RESIZE_MODE": "longest", "INPUT.INTERPOLATION": "bilinear", "INPUT.PIXEL_MEAN": "(0.1, 0.2, 0.3)"},
    {"INPUT.TRANSFORMS": "('random_flip',)", "INPUT.RESIZE_MODE": "squash"},
    {"MODEL.BACKBONE.QUICK_GELU": "False"}])
def test_settings_of_the_run(options, make_run, backbone, pictures, tmp_path, monkeypatch):
    """How images are read, and the activation, are the run's and not the backbone's."""
    run = make_run(backbone, "MTCoOpHard", **options)
    export.main([str(run), str(tmp_path / "out")])
    check_same(by_readme(tmp_path / "out", pictures, monkeypatch), expected(run, pictures))


def test_files(make_run, backbone, tmp_path, monkeypatch):
    """What stands in them, into a folder that is there and empty; and ONNX for another number of images."""
    run, out = make_run(backbone, "KgCoOp"), tmp_path / "out"
    out.mkdir()
    export.main([str(run), str(out), "--onnx"])
    about, classes = json.loads((out / "about.json").read_text()), load_file(out / "classes.safetensors")
    trainer = load_classifiers(str(run)).trainer
    assert about["backbone"] == backbone and about["logit_scale"] == pytest.approx(
        float(trainer.model.logit_scale.exp()))
    assert about["tasks"] == [{"name": "colour naming", "classes": ["dark blue", "green", "red"]},
                              {"name": "lightness", "classes": ["dark", "light"]}]
    assert about["preprocessing"]["size"] == 32 and about["preprocessing"]["resize_mode"] == "shortest"
    features = torch.nn.functional.normalize(trainer.model.class_features().detach(), dim=1).split([3, 2])
    for task, own in zip(about["tasks"], features):
        stored = classes.pop(task["name"])
        assert stored.dtype == torch.float32
        torch.testing.assert_close(stored, own)
    assert not classes
    pixels = torch.randn(5, 3, 32, 32)
    session = onnxruntime.InferenceSession(out / "image_tower.onnx", providers=["CPUExecutionProvider"])
    found, = session.run(None, {"pixels": pixels.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), trainer.model.image_encoder(pixels).detach(), rtol=1e-4,
                               atol=1e-4)


def error_of(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        export.main(list(map(str, arguments)))
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1 and line.startswith("error: ")
    return line


@pytest.mark.parametrize("name, words", [
    ("CoCoOp", "its class features depend on the image"), ("PLOT", "with the places of each image"),
    ("ProtoNet", "it compares distances to means")])
def test_methods_without_class_features(name, words, make_run, backbone, tmp_path, capsys):
    assert words in error_of(capsys, make_run(backbone, name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refusals_leave_nothing(make_run, photo_root, backbone, tmp_path, capsys, monkeypatch):
    sweep(parse_args(probe_arguments(photo_root, backbone, tmp_path / "lp", tmp_path, "--tasks", "0", "--shots", "1",
                                     "--seeds", "1")))
    out = tmp_path / "outs" / "out"
    assert "LP-CLIP can't be exported: it is a linear map" in error_of(
        capsys, tmp_path / "lp" / "task0" / "1shots" / "seed1", out)
    assert "is not the folder of a run" in error_of(capsys, tmp_path / "nowhere", out)
    run = make_run(backbone, "MTCoOpHard")

    with monkeypatch.context() as patch:  # a tower that open_clip makes otherwise, though of the same shapes
        patch.setattr("clip.model._openai_vision_cfg", lambda visual: {**_openai_vision_cfg(visual), "head_width": 32})
        assert "can't be exported: open_clip makes another image tower" in error_of(capsys, run, out)
    with monkeypatch.context() as patch:  # one that computes otherwise there
        patch.setattr("learned.exporting.TOLERANCE", 0)
        assert "onnxruntime's features differ from PyTorch's by" in error_of(capsys, run, out, "--onnx")
    assert not out.parent.exists() or not os.listdir(out.parent)
    out.mkdir(parents=True)
    (tmp_path / "link").symlink_to(out)
    export.main([str(run), str(tmp_path / "link")])
    assert (out / "about.json").exists() and os.listdir(out.parent) == ["out"]
    shutil.rmtree(out)
    out.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(out)
        export.main([str(run), "."])
    assert (out / "about.json").exists()
    shutil.rmtree(out)
    out.mkdir()
    (out / "mine").write_text("kept")
    assert "is there and not empty" in error_of(capsys, run, out)
    assert os.listdir(out) == ["mine"] and os.listdir(out.parent) == ["out"]
