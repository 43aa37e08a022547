"""interpret_prompt.py on runs whose contexts are known."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

import interpret_prompt
from clip import clip
from clip.simple_tokenizer import SimpleTokenizer
from tests.helpers import call, run, train_args
from tests.test_text_encoder import plain_features

SIZE = {"INPUT.SIZE": "(64, 64)"}  # of the backbone `tiny`, which has an embedding for every word
SOFT = {"TRAINER.MTCOOP.TASK_N_CTX": 2, "TRAINER.MTCOOP.N_CTX": 3, "TRAINER.MTCOOP.CLASS_N_CTX": 2}
TASKS = ["colour naming", "lightness"]
CLASSES = [["dark blue", "green", "red"], ["dark", "light"]]


@pytest.fixture
def make_run(photo_root, tmp_path):
    """make_run(trainer, change, ...) is the folder of a run that is finished, but whose values `change` has set."""
    def make(trainer, change=lambda model: None, **options):
        folder = tmp_path / "run"
        made = call(train_args(
            photo_root, "tiny", folder, trainer, "--no-train",
            **{"DATASET.SPLIT_DIR": tmp_path / "splits", "TRAINER.MTCOOPH.N_CTX": 3, **SIZE, **SOFT, **options}))
        with torch.no_grad():
            change(made.model)
        made.save_model(1)
        made.write_results(wall_seconds=0)
        return folder
    return make


def table(capsys, *arguments):
    """[cells] of the rows that a call prints; cells are two spaces apart."""
    capsys.readouterr()
    interpret_prompt.main([str(argument) for argument in arguments])
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[2:]]


@pytest.mark.parametrize("options, owners", [
    ({}, ["shared"]), ({"TRAINER.MTCOOPH.TSC": True}, TASKS),
    ({"TRAINER.MTCOOPH.CSC": True}, [f"{task}: {name}" for task, names in zip(TASKS, CLASSES) for name in names]),
])
def test_contexts_of_known_words_have_these_words_at_distance_0(options, owners, make_run, capsys):
    texts = ["a photo of", "the red sky", "many old houses", "one blue car", "two green leaves"][:len(owners)]
    tokenizer = SimpleTokenizer()

    def use_words(model):
        ids = torch.tensor([tokenizer.encode(text) for text in texts])  # (n, 3)
        vectors = model.text_encoder.token_embedding(ids)  # (n, 3, 64)
        per_parameter = vectors if "TRAINER.MTCOOPH.TSC" in options else [vectors]
        for ctx, own in zip(model.prompt_learner.parameters(), per_parameter, strict=True):
            ctx.copy_(own.view_as(ctx))

    rows = table(capsys, make_run("MTCoOpHard", use_words, **options), "--topk", "2")
    assert [row[:3] for row in rows] == [[owner, str(i), f"{word} 0.0000"] for owner, text in zip(owners, texts)
                                         for i, word in enumerate(text.split(), 1)]
    assert all(float(row[3].split()[-1]) > 0 for row in rows)


def plain_contexts(folder):
    """Contexts (2, 3, 64) that a NATA run makes, by the encoder that reads 77 positions."""
    ctx, proj = (torch.load(folder / part / "model.pth.tar-1", weights_only=True)["state_dict"][name]
                 for part, name in (("task_prompt_learner", "ctx"), ("prompt_gen", "proj")))
    model, _ = clip.load("tiny", device="cpu")
    with torch.no_grad():
        contexts = (plain_features(model, TASKS, ctx[None], [0, 0], "end") @ proj).view(2, 3, 64)
    return contexts.numpy().astype(np.float64), model.token_embedding.weight.detach().numpy().astype(np.float64)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_softcpt_words_and_picture(suffix, make_run, tmp_path, capsys, monkeypatch):
    folder = make_run("MTCoOp")
    drawn = []

    def draw(matrix, names, path, original=interpret_prompt.draw):
        drawn.append((matrix, names))
        original(matrix, names, path)

    monkeypatch.setattr(interpret_prompt, "draw", draw)
    output = [] if suffix == ".png" else ["--output", tmp_path / "made" / "picture.svg"]
    rows = table(capsys, folder, "--topk", "1", *output)
    contexts, vocabulary = plain_contexts(folder)
    expected = []
    for task, context in zip(TASKS, contexts):
        for i, vector in enumerate(context, 1):
            distances = np.sqrt(((vocabulary - vector) ** 2).sum(axis=1))
            expected.append((task, str(i), distances.min(), distances))
    tokenizer = SimpleTokenizer()
    for row, (task, i, smallest, distances) in zip(rows, expected, strict=True):
        word, distance = row[2].rsplit(" ", 1)
        assert row[:2] == [task, i] and float(distance) == pytest.approx(smallest, abs=1e-3)
        near = {tokenizer.decode([token]).strip() for token in np.flatnonzero(distances < smallest + 1e-4)}
        assert near & {word, word[:-1]}  # a part of a word ends in -
    flat = contexts.reshape(2, -1)
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    (matrix, names), = drawn
    assert names == TASKS
    np.testing.assert_allclose(matrix, [[1, cosine], [cosine, 1]], atol=1e-4)
    picture = (output[1] if output else folder / "contexts.png").read_bytes()
    if suffix == ".png":
        assert picture.startswith(b"\x89PNG")
    else:
        assert b"<svg" in picture and all(name.encode() in picture for name in TASKS)


def test_contexts_per_class_are_averaged_in_their_task(make_run, capsys):
    folder = make_run("MTCoOp", **{"TRAINER.MTCOOP.CSC": True})
    rows = table(capsys, folder, "--topk", "1")
    assert [row[:2] for row in rows] == [[task, str(i)] for task in TASKS for i in (1, 2, 3)]
    trainer = interpret_prompt.load_run(str(folder))
    kind, names, contexts = interpret_prompt.contexts_of(trainer)
    per_class = trainer.model.made_contexts().detach()  # (5, 3, 64)
    assert (kind, names) == ("task", TASKS)
    torch.testing.assert_close(contexts, torch.stack([per_class[:3].mean(0), per_class[3:].mean(0)]))


def test_a_trained_run_and_its_models(photo_root, tmp_path, capsys):
    """The script as a user calls it, without the images: on checkpoints of three epochs, and on the best of them."""
    root, folder = tmp_path / "photos", tmp_path / "run"
    root.symlink_to(photo_root)
    call(train_args(root, "tiny", folder, "MTCoOpHard", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", "TRAINER.MTCOOPH.N_CTX": 2, **SIZE, "TRAIN.CHECKPOINT_FREQ": 1}))
    root.unlink()
    first, third, last, default = (table(capsys, folder, *which) for which in (
        ["--epoch", "1"], ["--epoch", "3"], ["--epoch", "last"], []))
    assert third == last == default != first and [len(row) for row in last] == [7, 7]
    part = folder / "prompt_learner"
    shutil.copy(part / "model.pth.tar-1", part / "model-best.pth.tar")  # as TEST.FINAL_MODEL best_val keeps one
    assert table(capsys, folder) == table(capsys, folder, "--epoch", "best") == first
    assert table(capsys, folder, "--epoch", "last") == last
    done = run([sys.executable, "interpret_prompt.py", str(folder)])
    assert done.returncode == 0 and done.stdout.startswith("context  ")


def error_of(capsys, *arguments):
    """The sentence with which a call ends, or argparse's exit code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        interpret_prompt.main([str(argument) for argument in arguments])
    if stop.value.code == 2:
        return 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 1 and line.startswith("error: ")
    return line


def test_clear_errors(make_run, tmp_path, capsys):
    assert "is not the folder of a run: it has no results.json" in error_of(capsys, tmp_path)
    assert "/nowhere is not the folder of a run" in error_of(capsys, "/nowhere")
    shared = make_run("MTCoOpHard")
    assert "none per task" in error_of(capsys, shared, "--output", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
    for which, name in (("7", "model.pth.tar-7"), ("best", "model-best.pth.tar")):
        assert f"{name} does not exist: check the run's folder and the epoch" in error_of(
            capsys, shared, "--epoch", which)
    assert "--topk is 100000, but must be from 1 to 49408" in error_of(capsys, shared, "--topk", "100000")
    for wrong in (["--topk", "0"], ["--output", "x.gif"], ["--epoch", "first"]):
        assert error_of(capsys, shared, *wrong) == 2
    path = shared / "prompt_learner" / "model.pth.tar-1"
    checkpoint = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in checkpoint.items() if key != "state_dict"}, path)
    assert f"{path} has no 'state_dict'" in error_of(capsys, shared)
    path.write_bytes(b"half of a file")
    assert str(path) in error_of(capsys, shared)
    shutil.rmtree(shared / "prompt_learner")
    assert "has no checkpoints: give one that trained" in error_of(capsys, shared)
    (shared / "results.json").unlink()
    assert "is unfinished: call the command that started it again" in error_of(capsys, shared)


def test_results_of_other_versions_and_damaged_ones(make_run, capsys):
    """A sentence names the file and the key; what only newer versions write is not needed."""
    folder = make_run("MTCoOpHard")
    path = folder / "results.json"
    results = json.loads(path.read_text())
    expected = table(capsys, folder)

    def error_with(config):
        path.write_text(json.dumps({**results, "config": config}))
        return error_of(capsys, folder)

    config = results["config"]
    options = config["TRAINER"]["MTCOOPH"]
    assert f"there is no config key SEEDS (set in {path})" in error_with({**config, "SEEDS": 1})
    assert f"there is no config key TRAINER (set in {path})" in error_with({**config, "TRAINER": "MTCoOpHard"})
    wrong = {**config["TRAINER"], "MTCOOPH": {**options, "N_CTX": "many"}}
    assert f"TRAINER.MTCOOPH.N_CTX is 'many' (set in {path})" in error_with({**config, "TRAINER": wrong})
    unknown = {**config["TRAINER"], "NAME": "CoOpOfOld"}
    assert f"TRAINER.NAME is 'CoOpOfOld' (set in {path})" in error_with({**config, "TRAINER": unknown})
    path.write_text(json.dumps({"trainer": "MTCoOpHard"}))
    assert f"{path} has no 'config'" in error_of(capsys, folder)
    path.write_text("{")
    assert f'"{path}" is not valid JSON' in error_of(capsys, folder)
    path.write_text(json.dumps({"config": config, "suite": results["suite"]}))
    assert table(capsys, folder) == expected


def test_several_contexts_per_task(make_run, capsys):
    rows = table(capsys, make_run("PLOT", **{"TRAINER.PLOT.N": 2, "TRAINER.PLOT.N_CTX": 3}), "--topk", "1")
    assert [row[:2] for row in rows] == [[f"{task}, {i}", str(k)] for task in TASKS for i in (1, 2) for k in (1, 2, 3)]


def test_names_are_drawn_as_they_stand(tmp_path):
    """Not as formulas, which a `$` would begin."""
    interpret_prompt.draw(torch.eye(2), ["cost in $_$ a", "$x$"], str(tmp_path / "x.svg"))
    assert "cost in $_$ a" in (tmp_path / "x.svg").read_text()
