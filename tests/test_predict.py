"""predict.py against testing: image by image for every method, new tasks, and what it says of bad input."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import export
import predict
from common.errors import UserError
from datasets.base import Task
from learned import load, standalone
from learned.classifier import choose_tasks
from learned.finding import find_images
from learned.loading import load_classifier, read_classes
from learned.writing import copy_images
from tests.helpers import REPOSITORY, call, results, run, train_args
from trainers.evaluation import ClassificationMT
from trainers.prompts import check_classnames, clip_tokenizer

SOFT = {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 3, "TRAINER.MTCOOP.CLASS_N_CTX": 2}
CASES = {
    "NATA": ("MTCoOp", SOFT), "NATS": ("MTCoOp", {**SOFT, "TRAINER.MTCOOP.TASK_CSC": True}),
    "CATA": ("MTCoOp", {**SOFT, "TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.CLASS_CSC": False}),
    "CSTS": ("MTCoOp", {**SOFT, "TRAINER.MTCOOP.CSC": True, "TRAINER.MTCOOP.TASK_CSC": True,
                        "TRAINER.MTCOOP.CLASS_CSC": True}),
    "CoOp": ("MTCoOpHard", {"TEST.FINAL_MODEL": "best_val"}),
    "CoOp-CA": ("MTCoOpHard", {"TRAINER.MTCOOPH.TSC": True}), "CoOp-CS": ("MTCoOpHard", {"TRAINER.MTCOOPH.CSC": True}),
    "KgCoOp": ("KgCoOp", {}), "ProGrad": ("ProGrad", {}), "CoCoOp": ("CoCoOp", {}), "PLOT": ("PLOT", {}),
    "ZeroshotCLIP": ("ZeroshotCLIP", {}), "ZeroshotCLIP2": ("ZeroshotCLIP2", {}), "ProtoNet": ("ProtoNet", {}),
    "LinearProbe": ("LinearProbe", {}), "SharedMap": ("SharedMap", {"TRAINER.SHAREDMAP.SHARE": "names"}),
    "TCP": ("TCP", {"TRAINER.TCP.LAYER": 1}), "DePT": ("DePT", {}),
    "CLIPLoRA": ("CLIPLoRA", {"TRAINER.CLIPLORA.STEPS": 0, "OPTIM.LR": 0.1}),
    "ProtoNet, learned": ("ProtoNet", {"TRAINER.PROTONET.DIM": 8, "TRAINER.PROTONET.EPISODES": 4}),
}


@pytest.fixture
def tested(monkeypatch):
    """[(labels, predictions)] of every batch that is tested; cleared by whoever wants only later ones."""
    found = []

    def process(self, mo, gt, original=ClassificationMT.process):
        found.append((gt, mo.argmax(dim=1)))
        original(self, mo, gt)

    monkeypatch.setattr(ClassificationMT, "process", process)
    return found


@pytest.fixture
def dim_root(photo_root, tmp_path):
    """`photo_root`, which a test may remove after the run; with templates, which zero-shot runs must keep."""
    root = tmp_path / "photos"
    shutil.copytree(photo_root, root)
    (root / "tasks.yaml").write_text('template: "a blurred {}, seen from afar."\n')
    return root


def options_of(tmp_path, **options):
    return {"DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 1, **options}


def predictions(capsys, *arguments):
    """Rows that predict.py writes as JSON, and what it printed on stderr; its status must be 0."""
    output = Path(arguments[0]).parent / "predictions.json"
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        predict.main([*map(str, arguments), "--output", str(output)])
    assert stop.value.code == 0, capsys.readouterr().err
    return json.loads(output.read_text())


def check_equal(rows, tasks, paths, labels, predicted):
    """The first classes of rows for images `paths`, in the task of each label, are those of testing."""
    classes = [(task["name"], name) for task in tasks for name in task["classes"]]
    best = {(row["image"], row["task"]): row["classes"][0]["class"] for row in rows}
    assert len(best) == len(paths) * len(tasks)
    for path, label, found in zip(paths, labels, predicted, strict=True):
        task, name = classes[found]
        assert classes[label][0] == task and best[path, task] == name, (path, task)
    hits = {task["name"]: [p == t for t, p in zip(labels, predicted) if classes[t][0] == task["name"]]
            for task in tasks}
    return {name: (len(hit), sum(hit)) for name, hit in hits.items()}


@pytest.mark.parametrize("case", CASES)
def test_predictions_are_those_of_testing(case, dim_root, photo_root, backbone, tmp_path, capsys, tested):
    name, options = CASES[case]
    extra = ["--eval-only"] if name.startswith("Zeroshot") else []
    trainer = call(train_args(dim_root, backbone, tmp_path / "run", name, *extra, **options_of(tmp_path, **options)))
    datums = trainer.plain_images["test"].data_source
    labels, predicted = (torch.cat(column)[-len(datums):].tolist() for column in zip(*tested))
    paths = [datum.impath.replace(str(dim_root), str(photo_root)) for datum in datums]
    shutil.rmtree(dim_root)  # the run's folder and its backbone are all that is read
    shutil.rmtree(tmp_path / "splits")
    rows = predictions(capsys, tmp_path / "run", *paths, "--topk", "9", "--batch", "100")
    written = results(tmp_path / "run")
    found = check_equal(rows, written["suite"], paths, labels, predicted)
    assert found == {task["name"]: (task["total"], task["correct"]) for task in written["tasks"]}
    for row in rows:
        values = [entry["probability"] for entry in row["classes"]]
        assert sum(values) == pytest.approx(1) and values == sorted(values, reverse=True)
        assert len(values) == {"colour naming": 3, "lightness": 2}[row["task"]]


@pytest.mark.parametrize("name, options, more", [
    ("MTCoOp", SOFT, []), ("MTCoOpHard", {}, []),
    ("ZeroshotCLIP", {}, ["--template", "a blurred {}, seen from afar."])])
def test_a_new_task_of_names_alone_is_what_eval_only_tests(name, options, more, dim_root, backbone, tmp_path, capsys,
                                                           tested):
    zero_shot = name == "ZeroshotCLIP"
    call(train_args(dim_root, backbone, tmp_path / "run", name, *["--eval-only"] * zero_shot,
                    **options_of(tmp_path, **options, **{"DATASET.SUBSAMPLE_TASKS": "task0"})))
    tested.clear()
    trainer = call(train_args(
        dim_root, backbone, tmp_path / "other", name, "--eval-only",
        *[] if zero_shot else ["--model-dir", str(tmp_path / "run")],
        **options_of(tmp_path, **options, **{"DATASET.SUBSAMPLE_TASKS": "task1"})))
    paths = [datum.impath for datum in trainer.plain_images["test"].data_source]
    labels, predicted = (torch.cat(column).tolist() for column in zip(*tested))
    rows = predictions(capsys, tmp_path / "run", *paths, "--new-task", "lightness", "--classes", "dark, light", *more)
    written = results(tmp_path / "other")
    found = check_equal(rows, written["suite"], paths, labels, predicted)
    assert found == {"lightness": (written["tasks"][0]["total"], written["tasks"][0]["correct"])}
    assert predictions(capsys, tmp_path / "other", *paths) == rows  # a run with --eval-only has the model's classifiers
    if not zero_shot:  # but those of the model that it tested alone
        call(train_args(dim_root, backbone, tmp_path / "run", name, **options_of(tmp_path, **options, **{
            "DATASET.SUBSAMPLE_TASKS": "task0", "OPTIM.MAX_EPOCH": 3, "OUTPUT_DIR": tmp_path / "longer"})))
        written["model_dir"] = str(tmp_path / "longer")
        (tmp_path / "other" / "results.json").write_text(json.dumps(written))
        for more in ([], ["--new-task", "lightness", "--classes", "dark, light"]):
            assert "is not the one that" in error_of(capsys, tmp_path / "other", paths[0], *more)[1]


def error_of(capsys, *arguments):
    """(status, last line of stderr) of a call that prints no table."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        predict.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert not out
    return stop.value.code, err.splitlines()[-1]


@pytest.mark.parametrize("name, options, words", [
    ("MTCoOp", {**SOFT, "TRAINER.MTCOOP.TASK_CSC": True}, "TRAINER.MTCOOP.TASK_CSC learns something of its own for every task"),
    ("CoCoOp", {}, "CoCoOp learns something of its own for every task"),
    ("ProtoNet", {}, "ProtoNet learns something of its own for every class"),
    ("DePT", {}, "DePT learns something of its own for every class"),
    ("ZeroshotCLIP", {}, 'such as --template "a photo of a {}."')])
def test_new_tasks_that_are_refused(name, options, words, photo_root, backbone, tmp_path, capsys):
    extra = ["--eval-only"] if name.startswith("Zeroshot") else []
    call(train_args(photo_root, backbone, tmp_path / "run", name, *extra, **options_of(tmp_path, **options)))
    status, line = error_of(capsys, tmp_path / "run", photo_root, "--new-task", "x", "--classes", "a,b")
    assert status == 1 and line.startswith("error: --new-task: ") and words in line


def test_calls_and_bad_input(photo_root, backbone, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    call(train_args(photo_root, backbone, folder, "MTCoOpHard", **options_of(tmp_path)))
    image = photo_root / "lightness" / "dark" / "00.png"

    # a folder with a broken file, into a pipe
    mixed = tmp_path / "mixed"
    (mixed / "below").mkdir(parents=True)
    shutil.copy(image, mixed / "below" / "good.png")
    (mixed / "bad.jpg").write_text("no image")
    (mixed / "notes.txt").write_text("not looked at")
    for hidden in ("IMG_1.xcf", ".git/object"):
        (mixed / hidden).parent.mkdir(exist_ok=True)
        (mixed / hidden).touch()
    done = run([sys.executable, "predict.py", str(folder), str(mixed), "--task", "lightness", "--topk", "1"])
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["image"] == f"{mixed}/below/good.png"
    assert done.stderr.splitlines()[-2:] == ["1 image can't be read:", f"  {mixed}/bad.jpg is damaged, or no image of "
                                             "a kind that is read (JPEG, PNG, WebP, BMP, TIFF, AVIF): convert it to PNG, "
                                             "or extract or download it again"]

    assert [line for line in done.stderr.splitlines() if "not read" in line] == [
        f"Warning: 1 file is not read (1 .xcf): {mixed}/IMG_1.xcf; convert images to PNG or JPEG"]

    # paths on stdin, CSV; the batch changes nothing
    paths = sorted(map(str, (photo_root / "lightness").rglob("*.png")))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(paths) + "\n\n"))
    with pytest.raises(SystemExit) as stop:
        predict.main([str(folder), "-", "--long", "--output", str(tmp_path / "x.csv"), "--batch", "5"])
    assert stop.value.code == 0
    lines = list(csv.DictReader(open(tmp_path / "x.csv", newline="")))
    with pytest.raises(SystemExit):
        predict.main([str(folder), *paths, "--long", "--output", str(tmp_path / "excel.csv"), "--excel", "--batch",
                      "5"])
    assert (tmp_path / "excel.csv").read_bytes() == b"\xef\xbb\xbf" + (tmp_path / "x.csv").read_bytes()
    rows = predictions(capsys, folder, photo_root / "lightness")
    flat = [(row["image"], row["task"], entry["class"]) for row in rows for entry in row["classes"]]
    assert [(line["image"], line["task"], line["class"]) for line in lines] == flat
    assert [float(line["probability"]) for line in lines] == pytest.approx(
        [entry["probability"] for row in rows for entry in row["classes"]], abs=1e-5)
    assert [line["rank"] for line in lines[:5]] == ["1", "2", "3", "1", "2"]

    (tmp_path / "empty").mkdir()
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mov").touch()
    text = tmp_path / "text.txt"
    text.write_text("words")
    for arguments, words in {
            (tmp_path, image): "is not the folder of a run", (folder, tmp_path / "empty"): "empty holds no image",
            (folder, tmp_path / "films"): "films holds no image (.jpg, ",
            (folder, tmp_path / "nowhere"): f"there is no image and no folder {tmp_path / 'nowhere'}",
            (folder, text): "text.txt is damaged, or no image",
            (folder, image, "--task", "sizes"): "the task is 'sizes', but must be one of colour naming, lightness",
            (folder, image, "--task", "lightnes"): "colour naming, lightness: did you mean lightness?",
            (folder, image, "--epoch", "7"): "model.pth.tar-7 does not exist",
            (folder, image, "--new-task", "x", "--classes", "a,a"): "two classes have the same name: a",
            (folder, image, "--new-task", "x", "--classes", "a,b", "--template", "{}"): "MTCoOpHard reads no template",
            (folder, image, "--new-task", "x", "--classes", "dog"): "of a single class the probability is 1 for any",
            (folder, image, "--new-task", "x", "--classes", "red fox,owl,Red_Fox"):
                "the classes 'red fox' and 'Red_Fox' are the same to the text encoder",
    }.items():
        status, line = error_of(capsys, *arguments)
        assert status == 1 and words in line
    for wrong in (["--topk", "0"], ["--batch", "0"], ["--output", "x.txt"], ["--new-task", "x"], ["--classes", "a"],
                  ["--excel"], ["--excel", "--output", "x.json"], ["--min-probability", "50"],
                  ["--min-probability", "nan"]):
        assert error_of(capsys, folder, image, *wrong)[0] == 2
    (tmp_path / "folder.csv").mkdir()
    assert error_of(capsys, folder, image, "--output", tmp_path / "folder.csv")[0] == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{image}\n{tmp_path / 'nowhere'}\n"))
    assert f"there is no image and no folder {tmp_path / 'nowhere'}" in error_of(capsys, folder, "-")[1]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert "stdin gave no path" in error_of(capsys, folder, "-")[1]

    def walk(place, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", place))

    with monkeypatch.context() as patch:  # the superuser, who may run the tests, may read all
        patch.setattr("os.walk", walk)
        assert "can't be read (Permission denied)" in error_of(capsys, folder, mixed)[1]

    other = shutil.copytree(folder, tmp_path / "unfinished")
    (other / "results.json").unlink()
    assert "is unfinished: call the command" in error_of(capsys, other, image)[1]


@pytest.mark.slow
def test_file_names_of_any_bytes(photo_root, backbone, tmp_path):
    """From a folder and from stdin, into CSV and JSON; without an image that can be read none of before stays."""
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOpHard", **options_of(tmp_path)))
    images = tmp_path / "images"
    images.mkdir()
    paths = [os.fsencode(images) + name for name in (b"/caf\xe9.png", "/a\u2028b\x0c.png".encode())]
    for path in paths:
        shutil.copy(photo_root / "lightness" / "dark" / "00.png", path)
    command = [sys.executable, "predict.py", str(tmp_path / "run"), "--topk", "1", "--task", "lightness"]
    for place, given, name in ((str(images), b"", "x.csv"), ("-", b"\r\n".join([*paths, b""]), "x.json")):
        done = subprocess.run([*command, place, "--output", str(tmp_path / name)], input=given, cwd=REPOSITORY,
                              capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
        assert done.returncode == 0, done.stderr
    with open(tmp_path / "x.csv", encoding="utf-8", errors="surrogateescape", newline="") as f:
        listed = [line["image"] for line in csv.DictReader(f)]
    done = subprocess.run([*command, str(images)], cwd=REPOSITORY, capture_output=True, check=True)
    piped = [json.loads(line)["image"] for line in done.stdout.splitlines()]
    for names in (listed, piped, [row["image"] for row in json.loads((tmp_path / "x.json").read_text())]):
        assert sorted(map(os.fsencode, names)) == sorted(paths)
    for path in paths:
        open(path, "wb").close()
    done = subprocess.run([*command, str(images), "--output", str(tmp_path / "x.csv")], cwd=REPOSITORY,
                          capture_output=True)
    assert done.returncode == 1 and (tmp_path / "x.csv").read_text() == "image,lightness,p\n"


def test_names_that_stand_twice(photo_root, backbone, tmp_path):
    """They are told apart as in the files of testing."""
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOpHard", **options_of(tmp_path)))
    classifiers = load_classifier(str(tmp_path / "run"))
    first, second = classifiers.tasks
    classifiers.tasks = [first, replace(second, name=first.name, classnames=("dark", "dark"), repeated_names=True)]
    image = str(photo_root / "lightness" / "dark" / "00.png")
    numbers = choose_tasks(classifiers.tasks, f"{first.name} (2)")
    row, = classifiers.rows([image], numbers, 2)
    assert numbers == [1] and row["task"] == "colour naming (2)"
    assert sorted(entry["class"] for entry in row["classes"]) == ["dark", "dark (2)"]
    assert choose_tasks(classifiers.tasks, first.name) == [0, 1]


def test_a_task_of_a_single_class_is_said(photo_root, backbone, tmp_path, capsys):
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOpHard", **options_of(tmp_path, **{
        "DATASET.SUBSAMPLE_CLASSES": "base"})))
    assert "task 'lightness' has the single class 'dark': its accuracy is always 100%" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        predict.main([str(tmp_path / "run"), str(photo_root / "lightness")])
    assert "task 'lightness' has the single class 'dark': its probability is 1 for any" in capsys.readouterr().err


def test_classes_that_the_text_encoder_can_not_tell_apart(dim_root, backbone, tmp_path):
    """They are refused by what reads their names."""
    (dim_root / "tasks.yaml").write_text(
        "tasks: [{folder: lightness, classes: {dark: The_dim one, light: the  DIM one}}]")
    places = [dim_root, backbone, tmp_path / "run"]
    with pytest.raises(UserError, match="task 'lightness': the classes 'The_dim one' and 'the  DIM one' are the same to"):
        call(train_args(*places, "MTCoOpHard", "--no-train", **options_of(tmp_path)))
    call(train_args(*places, "LinearProbe", "--no-train", **options_of(tmp_path)))
    check_classnames([Task("cranes", ("crane", "Crane"), repeated_names=True), Task("birds", ("crane",))],
                     clip_tokenizer())  # of a benchmark; of two tasks


def test_runs_that_lack_something(photo_root, backbone, tmp_path, capsys):
    """Folders of older versions, and backbones that were replaced, are told from whole ones."""
    image = photo_root / "lightness" / "dark" / "00.png"
    folder = tmp_path / "run"
    own = tmp_path / "own.pt"
    shutil.copy(backbone, own)
    call(train_args(photo_root, own, folder, "ProtoNet", **options_of(tmp_path)))
    (folder / "support").rename(tmp_path / "kept")
    assert f"the run {folder} has no checkpoints" in error_of(capsys, folder, image)[1]
    (tmp_path / "kept").rename(folder / "support")
    state = torch.load(backbone, weights_only=True)
    state["visual.proj"] = state["visual.proj"] * 2
    torch.save(state, own)
    assert f"the backbone {own} has other values than when" in error_of(capsys, folder, image)[1]
    written = results(folder)
    del written["suite"]
    (folder / "results.json").write_text(json.dumps(written))
    assert "results.json has no 'suite', since an older version" in error_of(capsys, folder, image)[1]


def test_prototypes_are_those_of_the_model_that_predicts(photo_root, backbone, tmp_path, capsys):
    options = {**CASES["ProtoNet, learned"][1], "OPTIM.MAX_EPOCH": 2, "OPTIM.LR": 0.5, "TRAIN.CHECKPOINT_FREQ": 1}
    call(train_args(photo_root, backbone, tmp_path / "run", "ProtoNet", **options_of(tmp_path, **options)))
    image = photo_root / "lightness" / "dark" / "00.png"
    last, first = (predictions(capsys, tmp_path / "run", image, "--epoch", epoch) for epoch in ("last", "1"))
    assert len(last) == len(first) == 2 and last != first


def test_links_to_folders_are_followed_once(photo_root, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "tones").symlink_to(photo_root / "lightness")
    (tmp_path / "below" / "loop").symlink_to(tmp_path)
    found = find_images([str(tmp_path)])
    assert len(found) == 24 == len({Path(path).resolve() for path in found})


@pytest.fixture(scope="module")
def calibrated(photo_root, backbone, tmp_path_factory):
    """The folder of a run with temperatures and usual scores, beside a list of its validation images."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    trainer = call(train_args(photo_root, backbone, folder, "LinearProbe", **{"TEST.CALIBRATE": True}))
    (folder.parent / "val.json").write_text(json.dumps(
        [datum.impath for datum in trainer.plain_images["val"].data_source]))
    return folder


@pytest.fixture
def terminal(monkeypatch, capsys):
    """terminal(arguments of predict.py ...) is what it prints on stdout and stderr if these are terminals."""
    def printed(*arguments, tty=True):
        capsys.readouterr()
        for stream in (sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: tty)
        with pytest.raises(SystemExit) as stop:
            predict.main(list(map(str, arguments)))
        found = capsys.readouterr()
        assert stop.value.code == 0, found.err
        return found
    return printed


def test_a_line_an_image_and_a_line_an_image_and_task(calibrated, photo_root, tmp_path, terminal, capsys):
    images = [photo_root / "lightness" / "dark" / "00.png", photo_root / "colour_naming" / "red" / "00.png"]
    rows = predictions(capsys, calibrated, *images)
    best = [[(row["classes"][0]["class"], row["classes"][0]["probability"]) for row in rows[i:i + 2]] for i in (0, 2)]
    headers, _, *lines = terminal(calibrated, *images).out.splitlines()
    assert headers.split() == ["image", "colour", "naming", "p", "lightness", "p"]
    assert [line.split() for line in lines] == [
        [str(image), *(word for name, p in own for word in [*name.split(), f"{p:.3f}"])]
        for image, own in zip(images, best)]
    terminal(calibrated, *images, "--output", tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        assert list(csv.reader(file)) == [["image", "colour naming", "p", "lightness", "p (2)"], *(
            [str(image), *(cell for name, p in own for cell in (name, f"{p:.6f}"))]
            for image, own in zip(images, best))]

    headers, _, *lines = terminal(calibrated, *images, "--long", "--topk", "2").out.splitlines()
    assert headers.split() == ["image", "task", "score", "unusual", "1", "2"] and len(lines) == 4
    assert lines[1].split()[:5] == [
        str(images[0]), "lightness", f"{rows[1]['score']:.3f}", str(rows[1]["unusual"]), best[0][1][0]]
    terminal(calibrated, *images, "--long", "--output", tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["image", "task", "rank", "class", "probability", "score", "unusual"] and len(lines) == 10
    assert float(lines[0]["score"]) == pytest.approx(rows[0]["score"], abs=1e-6)

    piped = [json.loads(line) for line in terminal(calibrated, *images, tty=False).out.splitlines()]
    assert piped == [{"image": str(image), "tasks": {row["task"]: {
        key: row[key] for key in ("classes", "score", "unusual")} for row in rows if row["image"] == str(image)}}
        for image in images]


def test_scores_are_those_whose_quantile_the_run_has(calibrated, photo_root, backbone, tmp_path, capsys):
    """Mistake: a log-sum-exp of logits that were divided by the temperature."""
    validation = results(calibrated)["validation"]
    assert min(validation["temperatures"]) > 1.5
    paths = json.loads((calibrated.parent / "val.json").read_text())
    rows = predictions(capsys, calibrated, *paths)
    for name, folder, usual in zip(("colour naming", "lightness"), ("colour_naming", "lightness"),
                                   validation["usual_scores"], strict=True):
        own = [row for row in rows if row["task"] == name and f"/{folder}/" in row["image"]]
        scores = [row["score"] for row in own]
        assert usual == pytest.approx(np.quantile(scores, 0.05), abs=1e-5)
        assert [row["unusual"] for row in own] == [score < usual for score in scores] and any(scores < np.array(usual))
    call(train_args(photo_root, backbone, tmp_path / "run", "LinearProbe"))
    row = predictions(capsys, tmp_path / "run", paths[0])[0]
    assert row["score"] == pytest.approx(rows[0]["score"], abs=1e-5) and "unusual" not in row


def test_images_below_a_probability_are_unknown(calibrated, photo_root, terminal, capsys):
    args = calibrated, photo_root / "colour_naming", "--task", "colour naming"
    rows = predictions(capsys, *args)
    probabilities = [row["classes"][0]["probability"] for row in rows]
    least = float(np.median(probabilities))
    cut = predictions(capsys, *args, "--min-probability", least)
    for row, other, probability in zip(rows, cut, probabilities, strict=True):
        assert other == (row if probability >= least else
                         {**row, "classes": [{"class": "unknown", "probability": probability}]})
    found = terminal(*args, "--min-probability", least)
    assert found.out.count("unknown") == 18
    assert f"Of 36 images 18 are unknown in colour naming: their probability is below {least:g}\n" in found.err


def test_accuracy_is_said_where_folders_are_labels(calibrated, photo_root, tmp_path, terminal, capsys):
    said = "Of {} images in folders with class names of {} {} are right ({}%)\n"
    assert said.format(36, "colour naming", 36, "100.0") in terminal(calibrated, photo_root).err
    for folder in ("dark_blue", "green", "lightness/green", "others"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(photo_root / "colour_naming" / "red" / "00.png", tmp_path / folder / "red.png")
    shutil.copy(photo_root / "colour_naming" / "dark_blue" / "00.png", tmp_path / "dark_blue")
    found = terminal(calibrated, tmp_path).err  # a green below "lightness" is no label of colours
    assert said.format(3, "colour naming", 1, "33.3") in found and "class names of lightness" not in found
    assert "folders" not in terminal(calibrated, tmp_path / "others").err


def test_copies_lie_in_a_folder_of_each_class(calibrated, photo_root, tmp_path, terminal, capsys):
    """Nothing is overwritten, and the same call again adds nothing."""
    red = photo_root / "colour_naming" / "red"
    (tmp_path / "other").mkdir()
    shutil.copy(red / "01.png", tmp_path / "other" / "00.png")  # another image with the name
    images = red / "00.png", tmp_path / "other"
    out = tmp_path / "sorted"
    for made in (2, 0):
        found = terminal(calibrated, *images, "--task", "colour naming", "--copy-to", out)
        assert f"{made} copies of images are new in {out}\n" in found.err
        assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*")} == {
            "red/00.png": (red / "00.png").read_bytes(), "red/00 (2).png": (red / "01.png").read_bytes()}
    assert (red / "00.png").exists()
    row = predictions(capsys, calibrated, images[0], "--task", "lightness")[0]
    terminal(calibrated, images[0], "--min-probability", row["classes"][0]["probability"] + 1e-4, "--copy-to", out)
    assert (out / "lightness" / "unknown" / "00.png").exists() and (out / "colour naming").is_dir()


def test_copies_stay_in_the_folder_whatever_a_class_is_called(tmp_path):
    (tmp_path / "x.png").write_text("x")
    rows = [{"image": str(tmp_path / "x.png"), "task": "t", "classes": [{"class": name}]}
            for name in ("..", "a/b", "/c")]
    assert copy_images(rows, ["t"], str(tmp_path / "in" / "out")) == 3
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == [
        "in/out/_./x.png", "in/out/_c/x.png", "in/out/a_b/x.png", "x.png"]


def test_progress_is_shown_on_a_terminal_when_it_takes_a_while(calibrated, photo_root, terminal, monkeypatch):
    args = calibrated, photo_root / "colour_naming", "--batch", "4"
    assert "images/s" not in terminal(*args).err
    monkeypatch.setattr("learned.classifier.PATIENCE", 0)
    assert "predicting: 100%" in terminal(*args).err
    assert "images/s" not in terminal(*args, tty=False).err


def test_from_python_as_an_exported_classifier(calibrated, photo_root, tmp_path, capsys):
    """Paths, PIL images and arrays; nothing is printed."""
    path = photo_root / "lightness" / "dark" / "00.png"
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)).save(turned, exif=exif)
    images = [path, str(path), Image.open(path), np.asarray(Image.open(path)), turned, Image.open(turned)]
    rows = predictions(capsys, calibrated, path, turned)
    export.main([str(calibrated), str(tmp_path / "out")])
    classifiers = load(str(calibrated)), standalone.Classifier(tmp_path / "out")
    capsys.readouterr()
    ours, theirs = (classifier.predict(images) for classifier in classifiers)
    assert capsys.readouterr() == ("", "")
    assert [list(found) for found in ours] == [["colour naming", "lightness"]] * 6
    for found, other, first in zip(ours, theirs, [0] * 4 + [2] * 2, strict=True):
        for row in rows[first:first + 2]:
            wanted = {entry["class"]: entry["probability"] for entry in row["classes"]}
            assert dict(found[row["task"]]) == pytest.approx(wanted, abs=1e-5)
            assert dict(other[row["task"]]) == pytest.approx(wanted, abs=1e-5)
    (tmp_path / "bad.png").write_text("no image")
    for classifier in classifiers:
        assert classifier.predict([]) == []
        one, = classifier.predict([path], task="lightness", topk=1)
        assert list(one) == ["lightness"] and len(one["lightness"]) == 1
        for given, words in ((tmp_path / "no.png", "no.png"), (tmp_path / "bad.png", "bad.png"),
                             (np.zeros((4, 4)), "float64"), (np.zeros((4, 4, 4), np.uint8), "uint8")):
            with pytest.raises(ValueError, match=words):
                classifier.predict([path, given])
        with pytest.raises(ValueError, match="lightness"):
            classifier.predict([path], task="moods")
        assert len(classifier.predict([path])) == 1  # an image that could not be read before does no harm


def test_names_of_classes_from_text_and_files(tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffsweet, red\n\n sour \n", encoding="utf-8")
    (tmp_path / "names.json").write_text('["sweet, red", "sour"]')
    files = f"@{tmp_path}/names.txt", f"{tmp_path}/names.json", f"@{tmp_path}/names.json"
    for text in ('["sweet, red", "sour"]', *files):
        assert read_classes(text) == ["sweet, red", "sour"]
    assert read_classes("fly agaric, parasol") == ["fly agaric", "parasol"]
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes("Äpfel".encode("latin-1"))
    for text, words in {"a,,b": "has the name '': give names that hold a comma as a JSON list", '"a, b",c': "JSON list",
                        "[a, b]": "begins as a JSON list and is none", "[1, 2]": "must be a JSON list of names",
                        "[]": "names no class", f"@{tmp_path}/empty.txt": "names no class",
                        f"@{tmp_path}/latin.txt": "is not UTF-8 text",
                        "@nowhere.txt": "there is no file nowhere.txt", "nowhere.json": "No JSON file at"}.items():
        with pytest.raises(UserError, match=re.escape(words)):
            read_classes(text)
