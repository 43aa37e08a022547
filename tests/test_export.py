"""export.py: onnxruntime, Pillow and numpy alone classify as predict.py does, whatever the method."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from PIL import Image

import export
from common.images import read_image
from dassl.data.transforms import build_transform
from learned import standalone
from learned.exporting import describe, write_onnx
from learned.loading import load_classifier
from tests.helpers import call, make_cfg, train_args
from tests.test_clip import TIMM, write_local_dir
from tests.test_images import READ, REFUSED

OPTIONS = {"OPTIM.MAX_EPOCH": 1, "TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 3, "TRAINER.TCP.LAYER": 1,
           "TRAINER.CLIPLORA.STEPS": 0}


@pytest.fixture
def make_run(photo_root, tmp_path):
    """make_run(backbone, trainer, **options) is the folder of a short run."""
    def make(backbone, trainer, **options):
        call(train_args(photo_root, backbone, tmp_path / "run", trainer, **{
            "DATASET.SPLIT_DIR": tmp_path / "splits", **OPTIONS, **options}))
        return tmp_path / "run"
    return make


@pytest.fixture
def pictures(photo_root, tmp_path):
    """Images that a careless reader would read otherwise: to be turned, of a palette, grey, of odd sizes, small."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (90, 140, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    noise.save(tmp_path / "turned.jpg", exif=exif)
    noise.quantize(16).save(tmp_path / "palette.png")
    noise.convert("L").resize((67, 41)).save(tmp_path / "grey.png")
    noise.convert("RGBA").resize((50, 301)).save(tmp_path / "tall.webp")
    noise.resize((20, 13)).save(tmp_path / "small.bmp")
    return [tmp_path / name for name in ("turned.jpg", "palette.png", "grey.png", "tall.webp", "small.bmp")] + [
        photo_root / "lightness" / "dark" / "00.png"]


def expected(run, paths):
    """[{task: {class: probability}}] of each image, by predict.py's own path."""
    classifier = load_classifier(str(run))
    found = {}
    for row in classifier.rows(list(map(str, paths)), range(len(classifier.tasks)), 5):
        found.setdefault(row["image"], {})[row["task"]] = {
            entry["class"]: entry["probability"] for entry in row["classes"]}
    return list(found.values())


def check_same(found, wanted):
    assert len(found) == len(wanted)
    for theirs, ours in zip(found, wanted):
        assert theirs.keys() == ours.keys()
        for task in ours:
            assert dict(theirs[task]) == pytest.approx(ours[task], abs=1e-5)


def error_of(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        export.main(list(map(str, arguments)))
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1 and line.startswith("error: ")
    return line


@pytest.mark.parametrize("name", ["ZeroshotCLIP2", "MTCoOp", "MTCoOpHard", "KgCoOp", "ProGrad", "LinearProbe",
                                  "ProtoNet", "TCP", "DePT", "CLIPLoRA"])
def test_methods(name, make_run, backbone, pictures, tmp_path):
    run = make_run(backbone, name)
    export.main([str(run), str(tmp_path / "out")])
    assert sorted(os.listdir(tmp_path / "out")) == ["README.md", "classifier.onnx", "classifier.py"]
    classifier = standalone.Classifier(tmp_path / "out")
    check_same(classifier.predict(pictures), expected(run, pictures))
    image, path = Image.open(pictures[0]), pictures[0]
    task, = (found := classifier.predict([image, path], task="lightness", topk=1))[0]
    assert task == "lightness" and len(found[0][task]) == 1 and found[0] == found[1]


@pytest.mark.parametrize("name", ["CoCoOp", "PLOT"])
def test_methods_that_follow_the_images(name, make_run, backbone, tmp_path, capsys):
    line = error_of(capsys, make_run(backbone, name), tmp_path / "out")
    assert re.search(rf"error: {name} can't be exported: .* depends on the images \(trainers/{name.lower()}\.py, line",
                     line)
    assert not (tmp_path / "out").exists()


def test_a_process_without_this_repository(make_run, backbone, pictures, tmp_path):
    """In an isolated process that starts in the folder: the README's lines, and the command."""
    run, out = make_run(backbone, "MTCoOp"), tmp_path / "out"
    export.main([str(run), str(out)])
    lines = re.search("```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[1]
    (out / "lines.py").write_text(lines.replace("photo.jpg", str(pictures[0])) + "import sys\nassert not "
                                  "{'torch', 'trainers', 'learned'} & set(sys.modules)\n")

    def python(*arguments):
        return subprocess.run([sys.executable, *map(str, arguments)], cwd=out, text=True, capture_output=True,
                              env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"})

    done = python("lines.py")
    assert done.returncode == 0, done.stderr
    check_same(eval(done.stdout), expected(run, pictures[:1]))
    done = python("classifier.py", *pictures[:2], "--task", "lightness", "--topk", "1")
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [
        [str(path), "lightness"] for path in pictures[:2]], done.stderr
    Image.new("I;16", (9, 9)).save(tmp_path / "deep.png")
    for arguments, words in [([pictures[0], "--task", "moods"], "error: there is no task 'moods', but colour naming, "),
                             (["README.md"], "error: README.md can't be read: "),
                             ([tmp_path / "deep.png"], "has more than 8 bits a value")]:
        refused = python("classifier.py", *arguments)
        assert refused.returncode == 1 and words in refused.stderr


@pytest.mark.parametrize("name", ["tiny", "timm", "resnet"])
def test_other_backbones(name, make_run, pictures, tmp_path):
    size = 32 if name == "resnet" else 64
    if name == "timm":
        (tmp_path / "backbone").mkdir()
        name = write_local_dir(tmp_path / "backbone", TIMM)
    elif name == "resnet":  # a weight file of OpenAI's layout
        vision = {"layers": [1, 2, 1, 1], "width": 16, "image_size": 32, "patch_size": None}
        text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
        torch.manual_seed(0)
        name = str(tmp_path / "resnet.pt")
        torch.save(open_clip.CLIP(32, vision, text, quick_gelu=True).state_dict(), name)
    run = make_run(name, "ZeroshotCLIP", **{"INPUT.SIZE": f"({size}, {size})"})
    export.main([str(run), str(tmp_path / "out")])
    check_same(standalone.Classifier(tmp_path / "out").predict(pictures), expected(run, pictures))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("options", [{}, {"INPUT.INTERPOLATION": "bilinear", "INPUT.PIXEL_MEAN": (0.1, 0.2, 0.3)},
                                     {"INPUT.INTERPOLATION": "nearest", "INPUT.TRANSFORMS": ()}])
def test_pixels_are_those_of_testing(mode, options, pictures):
    cfg = make_cfg(options={"INPUT.SIZE": (32, 32), "INPUT.RESIZE_MODE": mode, **options})
    ours = object.__new__(standalone.Classifier)
    transform, rng = build_transform(cfg, is_train=False), np.random.default_rng(0)
    ours.about = describe(SimpleNamespace(cfg=cfg, tasks=[], upright=True))
    sizes = [(32, 32), *rng.integers(9, 120, (40, 2)).tolist()]
    images = [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    for image, theirs in [*zip(images, images), *((path, read_image(path, upright=True)) for path in pictures)]:
        np.testing.assert_allclose(ours.pixels(image), transform(theirs), rtol=0, atol=1e-6)
    ours.about["preprocessing"]["turned_by_exif"] = False
    np.testing.assert_allclose(ours.pixels(pictures[0]), transform(read_image(pictures[0])), rtol=0, atol=1e-6)


def test_no_pixels_of_a_thumbnail_or_of_half_the_bits(tmp_path):
    ours = object.__new__(standalone.Classifier)
    ours.about = describe(SimpleNamespace(cfg=make_cfg(options={"INPUT.SIZE": (32, 32)}), tasks=[], upright=True))
    for name, content, words in [
            *((name, READ[name][0], "has more than 8 bits a value") for name in ("rgb16.png", "rgb12_in_16.tif")),
            *((name, REFUSED[name][0], "holds a larger picture") for name in ("dng.tif", "nikon.tif"))]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=words):
            ours.pixels(str(tmp_path / name))


def test_precision_and_activation_of_the_run(make_run, backbone, pictures, tmp_path):
    run = make_run(backbone, "MTCoOpHard", **{"MODEL.BACKBONE.QUICK_GELU": "False", "TRAINER.MTCOOPH.PREC": "fp64"})
    export.main([str(run), str(tmp_path / "out")])
    check_same(standalone.Classifier(tmp_path / "out").predict(pictures), expected(run, pictures))


def test_equal_names_and_unknown_classes(make_run, backbone, tmp_path):
    """The second task of a name has a number, and a class without training images stays at -inf."""
    classifier = load_classifier(make_run(backbone, "LinearProbe"))
    for task in classifier.tasks:
        object.__setattr__(task, "name", "shade")
    classifier.trainer.model.classifier.known[1] = False
    write_onnx(classifier, tmp_path / "classifier.onnx", describe(classifier))
    found, = standalone.Classifier(tmp_path).predict([Image.new("RGB", (40, 40))])
    assert list(found) == ["shade", "shade (2)"] and dict(found["shade"])["green"] == 0
    session = onnxruntime.InferenceSession(tmp_path / "classifier.onnx")
    pixels = torch.randn(5, 3, 32, 32)
    logits, = session.run(None, {"pixels": pixels.numpy()})
    wanted = classifier.logits(classifier.encode.tower(pixels))
    torch.testing.assert_close(torch.from_numpy(logits), wanted, rtol=1e-4, atol=1e-4)
    assert np.isneginf(logits[:, 1]).all() and logits.dtype == np.float32


def test_refusals_leave_nothing(make_run, backbone, tmp_path, capsys, monkeypatch):
    out = tmp_path / "outs" / "out"
    assert "is not the folder of a run" in error_of(capsys, tmp_path / "nowhere", out)
    run = make_run(backbone, "MTCoOpHard")
    with monkeypatch.context() as patch:
        patch.setattr("learned.exporting.TOLERANCE", 0)
        assert "onnxruntime's logits differ from PyTorch's by more than" in error_of(capsys, run, out)
    with monkeypatch.context() as patch:
        patch.setattr("torch.onnx.export", lambda *args, **options: 1 / 0)
        assert "MTCoOpHard can't be exported: division by zero" in error_of(capsys, run, out)
    assert not os.listdir(out.parent)
    out.mkdir()
    (tmp_path / "link").symlink_to(out)
    with monkeypatch.context() as patch:
        patch.chdir(out)
        export.main([str(run), "."])
    assert (out / "classifier.onnx").exists() and os.listdir(out.parent) == ["out"]
    assert "is there and not empty" in error_of(capsys, run, tmp_path / "link")


def test_an_onnx_model_that_computes_something_else_is_refused(make_run, backbone, tmp_path, capsys, monkeypatch):
    """Mistake: a tolerance that lets a thousandth pass."""
    run, session = make_run(backbone, "MTCoOpHard"), onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda self, *args: [
        logits * 1.001 for logits in session(self, *args)])
    assert "onnxruntime's logits differ from PyTorch's by more than 0.0001" in error_of(capsys, run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
