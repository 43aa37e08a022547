"""`python -m runs remove`: the runs of an experiment are removed, and nothing else is."""

import io
import os
import shutil

import pytest

from runs.__main__ import main
from runs.folder import RunFolder
from tests.helpers import call, call_until, train_args

EPOCHS = {"TEST.COMPUTE_CMAT": True, "TEST.SAVE_PREDICTIONS": True, "TEST.FINAL_MODEL": "best_val"}


@pytest.fixture(scope="module")
def made(photo_root, backbone, tmp_path_factory):
    """A folder with all files of a finished run, an unfinished and a tested one, and the chart of their table."""
    folder = tmp_path_factory.mktemp("made") / "experiment"
    options = {"DATASET.SPLIT_DIR": folder.parent / "splits", "TRAIN.RESUME_SECONDS": 0}
    call(train_args(photo_root, backbone, folder / "MTCoOpHard" / "seed1", "MTCoOpHard", **options, **EPOCHS))
    call(train_args(photo_root, backbone, folder / "ZeroshotCLIP", "ZeroshotCLIP", "--eval-only", **options))
    with pytest.MonkeyPatch.context() as patch:
        call_until(1, train_args(photo_root, backbone, folder / "MTCoOpHard" / "seed2", "MTCoOpHard", **options), patch)
    (folder / "accuracy.png").write_bytes(b"chart")
    (folder / "MTCoOpHard" / "seed2" / "prompt_learner").mkdir(exist_ok=True)
    (folder / "MTCoOpHard" / "seed2" / "prompt_learner" / ".model.pth.tar-2.7-0123abcd.tmp").write_bytes(b"half")
    return folder


@pytest.fixture
def experiment(made, tmp_path):
    return shutil.copytree(made, tmp_path / "experiment")


def removed(folder, *arguments):
    main(["remove", str(folder), *arguments])


def refused(folder, capsys):
    with pytest.raises(SystemExit) as status:
        removed(folder, "--yes")
    assert status.value.code == 1
    return capsys.readouterr().err


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))


def test_runs_are_removed(experiment, capsys):
    removed(experiment, "--yes")
    said = capsys.readouterr().out.splitlines()
    assert not experiment.exists() and experiment.parent.exists()
    assert said == [f"{experiment}/MTCoOpHard/seed1 (finished)", f"{experiment}/MTCoOpHard/seed2 (unfinished)",
                    f"{experiment}/ZeroshotCLIP (finished)", "3 removed"]


def test_one_run_is_removed(experiment, capsys):
    removed(f"{experiment}/MTCoOpHard/seed1/", "--yes")
    assert not (experiment / "MTCoOpHard" / "seed1").exists() and (experiment / "MTCoOpHard" / "seed2").exists()


def test_the_question(experiment, capsys, monkeypatch):
    before = len(files(experiment))
    for answer in ("n", "", "never"):
        asked = []
        monkeypatch.setattr("builtins.input", lambda text, answer=answer, asked=asked: asked.append(text) or answer)
        removed(experiment)
        assert asked[0].startswith("Remove 3 runs (") and asked[0].endswith(" MB)? [y/N] ")
    assert len(files(experiment)) == before - 1  # the half-written file of a killed run goes anyway
    monkeypatch.setattr("builtins.input", lambda text: "yes")
    removed(experiment)
    assert not experiment.exists()


def test_without_an_answer_nothing_is_removed(experiment, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(SystemExit):
        removed(experiment)
    assert "scripts say yes by --yes" in capsys.readouterr().err and (experiment / "MTCoOpHard" / "seed1").exists()


def test_a_run_that_works_is_left_with_all_others(experiment, capsys):
    before = files(experiment)[1:]
    with RunFolder(str(experiment / "ZeroshotCLIP")):
        said = refused(experiment, capsys)
    assert f"another process works in {experiment}/ZeroshotCLIP: pid {os.getpid()} on " in said
    assert len(files(experiment)) >= len(before) and (experiment / "MTCoOpHard" / "seed1" / "results.json").exists()


@pytest.mark.parametrize("place", ["notes.txt", "MTCoOpHard/seed1/notes.txt", "MTCoOpHard/seed1/prompt_learner/x.pt",
                                   "MTCoOpHard/seed1/confusion/mine.csv", "MTCoOpHard/seed1/accuracy.png",
                                   "photos/log/IMG_1.jpg", "MTCoOpHard/results.txt"])
def test_other_files_are_named_and_nothing_is_removed(place, experiment, capsys):
    (experiment / place).parent.mkdir(parents=True, exist_ok=True)
    (experiment / place).write_text("mine")
    before = files(experiment)
    said = refused(experiment, capsys)
    assert f"{experiment} holds what no run writes ({experiment / place}): move " in said
    assert files(experiment) == before


def test_links_are_not_followed(experiment, tmp_path, capsys):
    shutil.copytree(experiment / "ZeroshotCLIP", tmp_path / "elsewhere")
    (experiment / "link").symlink_to(tmp_path / "elsewhere")
    assert f"({experiment}/link)" in refused(experiment, capsys)
    (experiment / "link").unlink()
    (experiment / "ZeroshotCLIP" / "cmat.pt").symlink_to(tmp_path / "elsewhere" / "results.json")
    assert "cmat.pt)" in refused(experiment, capsys)
    (tmp_path / "way").symlink_to(tmp_path / "elsewhere")
    assert f"way is a link to {tmp_path}/elsewhere: " in refused(tmp_path / "way", capsys)
    assert (tmp_path / "elsewhere" / "results.json").exists()


def test_many_other_files_are_counted(experiment, capsys):
    for i in range(8):
        (experiment / f"{i}.txt").write_text("mine")
    assert "4.txt and 3 more): move it away" in refused(experiment, capsys)


def test_folders_without_runs(tmp_path, capsys):
    assert f"{tmp_path} holds no run: nothing to remove" in refused(tmp_path, capsys)
    assert f"{tmp_path}/x does not exist" in refused(tmp_path / "x", capsys)
