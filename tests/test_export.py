"""export.py: onnxruntime, Pillow and numpy alone classify as predict.py does, whatever the method."""

import csv
import importlib.metadata
import io
import json
import os
import re
import subprocess
import venv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import open_clip
import pytest
import torch
import yaml
from packaging.requirements import Requirement
from PIL import Image

import export
from common.images import read_image
from dassl.data.transforms import build_transform
from learned import standalone
from learned.exporting import PixelsToLogits, describe, write_onnx
from learned.loading import load_classifier
from learned.model_card import licence_of, text as text_of
from tests.helpers import call, make_cfg, metrics, results, train_args
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
                                  "ProtoNet", "TCP", "DePT", "CLIPLoRA", "TipAdapterF", "SharedMap"])
def test_methods(name, make_run, backbone, pictures, tmp_path):
    """Whatever kind of image is given and however many are computed at once."""
    run, out = make_run(backbone, name), tmp_path / "out"
    export.main([str(run), str(out)])
    assert sorted(os.listdir(out)) == ["README.md", "classifier.onnx", "classifier.py"]
    classifier, wanted = standalone.Classifier(out), expected(run, pictures)
    check_same(classifier.predict(pictures), wanted)
    image, path = Image.open(pictures[0]), pictures[0]
    task, = (found := classifier.predict([image, path], task="lightness", topk=1))[0]
    assert task == "lightness" and len(found[0][task]) == 1 and found[0] == found[1]
    upright = np.asarray(Image.open(pictures[-1]).convert("RGB"))
    check_same(classifier.predict(np.stack([upright] * 70)), wanted[-1:] * 70)  # in three batches


@pytest.mark.parametrize("name", ["MTCoOp", "CLIPLoRA"])
def test_the_same_by_pytorch(name, make_run, backbone, pictures, tmp_path):
    run, out = make_run(backbone, name), tmp_path / "out"
    export.main([str(run), str(out), "--torch"])
    classifier, by_torch = standalone.Classifier(out), standalone.Classifier(out, torch=True)
    assert by_torch.about == classifier.about
    check_same(by_torch.predict(pictures), expected(run, pictures))
    pixels = np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32)
    for n in (1, 5):
        ours, theirs = classifier.logits(pixels[:n]), by_torch.logits(pixels[:n])
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    # the text encoder, of which a class's features alone are needed, is not written
    assert (out / "classifier.pt2").stat().st_size < (out / "classifier.onnx").stat().st_size + 2**20


@pytest.mark.parametrize("name", ["MTCoOp", "LinearProbe"])
def test_temperatures_are_inside(name, make_run, backbone, pictures, tmp_path):
    run = make_run(backbone, name, **{"TEST.CALIBRATE": True})
    export.main([str(run), str(tmp_path / "out")])
    temperatures, classifier = results(run)["validation"]["temperatures"], standalone.Classifier(tmp_path / "out")
    check_same(classifier.predict(pictures), expected(run, pictures))
    assert classifier.about["calibrated"] is True and len(set(temperatures)) == 2
    assert [task["temperature"] for task in classifier.about["tasks"]] == pytest.approx(temperatures)


@pytest.mark.parametrize("name", ["CoCoOp", "PLOT"])
def test_methods_that_follow_the_images(name, make_run, backbone, tmp_path, capsys):
    line = error_of(capsys, make_run(backbone, name), tmp_path / "out")
    assert re.search(rf"error: {name} can't be exported: .* depends on the images \(trainers/{name.lower()}\.py, line",
                     line)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def environment(tmp_path):
    """environment(names) is the environment of processes that can import these distributions and what they need."""
    def make(*names):
        left, found = list(names), set()
        venv.create(tmp_path / "venv", clear=True)
        site, = (tmp_path / "venv").glob("lib/python*/site-packages")
        while left:
            if (name := left.pop()) in found:
                continue
            found.add(name)
            for top in {file.parts[0] for file in importlib.metadata.files(name)} - {"..", "__pycache__"}:
                if not (site / top).exists():  # several may share a folder
                    (site / top).symlink_to(Path(importlib.metadata.distribution(name).locate_file(top)).resolve())
            needs = map(Requirement, importlib.metadata.requires(name) or ())
            left += [need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
        return {"PATH": f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return make


def test_a_process_without_this_repository(make_run, backbone, pictures, environment, tmp_path):
    """The README's lines as they stand there, where neither PyTorch nor this repository can be imported."""
    run, out = make_run(backbone, "MTCoOp"), tmp_path / "out"
    export.main([str(run), str(out)])
    allowed = environment("onnxruntime", "pillow", "numpy")

    def execute(*command):
        return subprocess.run([*map(str, command)], cwd=out, text=True, capture_output=True, env=allowed)

    for module in ("torch", "clip", "trainers", "learned"):
        assert f"No module named '{module}'" in execute("python", "-c", f"import {module}").stderr
    text = (out / "README.md").read_text(encoding="utf-8")
    (python, shell), shown = (re.findall(f"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "bash")), None
    Image.open(pictures[0]).save(out / "photo.jpg", exif=Image.open(pictures[0]).getexif(), quality=95)
    wanted = expected(run, [out / "photo.jpg"])
    done = execute("python", "-c", *python)
    assert done.returncode == 0, done.stderr
    check_same([{task: found + [*wanted[0][task].items()][3:] for task, found in row.items()}
                for row in eval(done.stdout)], wanted)
    done = execute("bash", "-euc", *shell)
    assert done.returncode == 0, done.stderr
    table, lines = done.stdout.split("{", 1)
    assert [(row["task"], row["rank"]) for row in csv.DictReader(io.StringIO(table))] == [
        (task, str(rank)) for task in wanted[0] for rank in range(1, 1 + len(wanted[0][task]))]
    rows, kinds = [json.loads(line) for line in f"{{{lines}".splitlines()], set()
    for row, (task, classes) in zip(rows, wanted[0].items(), strict=True):
        assert (row["image"], row["task"]) == ("photo.jpg", task)
        assert {found["class"]: found["probability"] for found in row["classes"]} == pytest.approx(classes, abs=1e-5)
        best, sure = row["classes"][0]["class"], row["classes"][0]["probability"] >= 0.5
        assert row["prediction"] == (best if sure else "unknown")
        kinds.add(sure)
    assert kinds == {True, False}, "the test should see both"
    # an image that can't be read leaves the others
    Image.new("I;16", (9, 9)).save(tmp_path / "deep.png")
    done = execute("python", "classifier.py", pictures[0], "README.md", tmp_path / "deep.png", pictures[1], "--topk",
                   "1", "--task", "lightness")
    assert [line.split(",")[:2] for line in done.stdout.splitlines()] == [["image", "task"], *(
        [str(path), "lightness"] for path in pictures[:2])] and done.returncode == 1
    assert re.match("error: README.md can't be read: .*\nerror: .*deep.png has more than 8 bits a value", done.stderr)
    for arguments, words in ([("--task", "moods"), "error: there is no task 'moods', but colour naming, "],
                             [("--torch",), "classifier.pt2 is not there: export the run with --torch"]):
        refused = execute("python", "classifier.py", pictures[0], *arguments)
        assert refused.returncode == 1 and words in refused.stderr and not refused.stdout
    model = onnx.load(out / "classifier.onnx")
    onnx.helper.set_model_props(model, {"classifier": json.dumps({"layout": 7})})
    onnx.save(model, out / "classifier.onnx")
    assert "has metadata of layout 7, and this classifier.py reads layout 1" in execute(
        "python", "classifier.py", "photo.jpg").stderr


def test_pytorch_alone(make_run, backbone, pictures, environment, tmp_path):
    """Also of a run with temperatures."""
    run, out = make_run(backbone, "LinearProbe", **{"TEST.CALIBRATE": True}), tmp_path / "out"
    export.main([str(run), str(out), "--torch"])
    (out / "classifier.onnx").unlink()
    done = subprocess.run(["python", "classifier.py", "--torch", "--json", *map(str, pictures)], cwd=out, text=True,
                          capture_output=True, env=environment("torch", "pillow", "numpy"))
    assert done.returncode == 0, done.stderr
    found = [{} for _ in pictures]
    for line in map(json.loads, done.stdout.splitlines()):
        found[[*map(str, pictures)].index(line["image"])][line["task"]] = {
            entry["class"]: entry["probability"] for entry in line["classes"]}
    check_same(found, expected(run, pictures))


def front_matter(folder):
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def cells(text):
    """The rows of the tables in a text of Markdown, by their first cell."""
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|")
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("calibrated", [False, True])
def test_model_card(calibrated, make_run, backbone, tmp_path):
    run = make_run(backbone, "MTCoOp", **{"TEST.CALIBRATE": calibrated, "TRAIN.CHECKPOINT_FREQ": 1,
                                          "OPTIM.MAX_EPOCH": 2})
    export.main([str(run), str(tmp_path / "out")])
    head, text = front_matter(tmp_path / "out")
    assert head["pipeline_tag"] == "image-classification" and head["library_name"] == "onnx"
    assert head["license"] == "unknown" and "MTCoOp" in head["tags"] and "accuracy" in head["metrics"]
    assert ("probabilities are calibrated:" in text) is calibrated
    assert "FolderTasks, 2 shots a class, seed 1: 10 images of training, " in text
    temperature = results(run)["validation"]["temperatures"][0] if calibrated else 1
    assert f"| colour naming | 0:3 | {temperature:.3g} | dark blue, green, red |" in re.sub(" +", " ", text)
    rows = cells(text)
    assert rows["images"][0].startswith("32x32, bicubic, resize mode shortest")
    assert rows["backbone"][0].replace("\\", "") == backbone and torch.__version__ in rows["versions"][0]
    for task, own in zip(results(run)["tasks"], metrics(run)):
        error = own["expected_calibration_error"]
        before, after = (f"{own['uncalibrated_error']:.2f}", f"{error:.2f}") if calibrated else (f"{error:.2f}", "-")
        assert rows[task["name"]]== [
            str(task["total"]), f"{task['metric']:.2f}", f"{own['macro_f1']:.2f}", before, after]
    # another epoch than the tested one has no figures, and without metrics.json there are fewer
    export.main([str(run), str(tmp_path / "first"), "--epoch", "1"])
    text = front_matter(tmp_path / "first")[1]
    assert "did not test this epoch" in text and "macro F1" not in text and "are not calibrated" in text
    (run / "metrics.json").unlink()
    export.main([str(run), str(tmp_path / "fewer")])
    assert cells(front_matter(tmp_path / "fewer")[1])["lightness"][2:] == ["-"] * 3


@pytest.mark.parametrize("backbone, licence", [
    ("ViT-B/32", "mit"), ("tiny", "mit"), ("open_clip:ViT-B-32/laion2b_s34b_b79k", "mit"),
    ("open_clip:ViT-B-32/weights/laion2b_mine.pt", "unknown"), ("open_clip:ViT-H-14-CLIPA/datacomp1b", "unknown"),
    ("hf-hub:timm/ViT-B-16-SigLIP", "unknown"), ("/weights/ViT-B-32.pt", "unknown")])
def test_licence(backbone, licence):
    assert licence_of(backbone) == licence


def test_names_that_a_spreadsheet_or_markdown_would_read_otherwise():
    assert [*map(standalone.guard, ("=1+1", "'=1", "-x", "-", "red"))] == ["'=1+1", "''=1", "'-x", "-", "red"]
    assert text_of("a|b_c") == "a\\|b\\_c"


@pytest.mark.parametrize("array", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))])
def test_other_arrays_are_refused(array):
    ours = object.__new__(standalone.Classifier)
    ours.about = describe(SimpleNamespace(cfg=make_cfg(), tasks=[], upright=True, calibrated=False))
    with pytest.raises(ValueError, match=re.escape(f"must be (H, W, 3), uint8, not {array.shape}, {array.dtype}")):
        ours.pixels(array)


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
    ours.about = describe(SimpleNamespace(cfg=cfg, tasks=[], upright=True, calibrated=False))
    sizes = [(32, 32), *rng.integers(9, 120, (40, 2)).tolist()]
    images = [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    for image, theirs in [*zip(images, images), *((path, read_image(path, upright=True)) for path in pictures)]:
        np.testing.assert_allclose(ours.pixels(image), transform(theirs), rtol=0, atol=1e-6)
    ours.about["preprocessing"]["turned_by_exif"] = False
    np.testing.assert_allclose(ours.pixels(pictures[0]), transform(read_image(pictures[0])), rtol=0, atol=1e-6)


def test_no_pixels_of_a_thumbnail_or_of_half_the_bits(tmp_path):
    ours = object.__new__(standalone.Classifier)
    ours.about = describe(SimpleNamespace(cfg=make_cfg(options={"INPUT.SIZE": (32, 32)}), tasks=[], upright=True,
                                          calibrated=False))
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
    write_onnx(PixelsToLogits(classifier).eval(), tmp_path / "classifier.onnx", describe(classifier))
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
    with monkeypatch.context() as patch:
        patch.setattr("torch.export.export", lambda *args, **options: 1 / 0)
        assert "MTCoOpHard can't be exported by --torch: division by zero" in error_of(capsys, run, out, "--torch")
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
