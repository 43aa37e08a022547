"""Files are known by what they hold; each is read once."""

import os
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from common import file_digests
from common.errors import UserError
from common.file_digests import digest_files
from datasets.base import Task
from runs.identity import digests_of
from tests.helpers import call, results, train_args


@pytest.fixture(autouse=True)
def own_database(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTCPT_CACHE", str(tmp_path / "cache"))


def write(path, content, time=1):
    path.write_bytes(content)
    os.utime(path, (time, time))
    return str(path)


def test_a_file_of_the_same_name_size_and_time_has_another_digest(tmp_path):
    path = write(tmp_path / "a", b"old")
    first = digest_files([path])[path]
    assert digest_files([path])[path] == first
    write(tmp_path / "a", b"new")
    second = digest_files([path])[path]
    assert second != first
    other = write(tmp_path / "b", b"old", time=7)
    assert digest_files([other, path]) == {other: first, path: second}
    gone = str(tmp_path / "gone")
    assert digest_files([gone]) == {gone: ""} and digest_files([]) == {}


def test_a_file_is_read_once(tmp_path, monkeypatch):
    path, read, digest = write(tmp_path / "a", b"x"), [], file_digests._digest
    monkeypatch.setattr(file_digests, "_digest", lambda path: read.append(path) or digest(path))
    found = [digest_files([path]) for _ in range(3)]
    assert read == [path] and found[0] == found[1] == found[2]
    os.rename(path, tmp_path / "moved")
    moved = str(tmp_path / "moved")
    assert digest_files([moved])[moved] == found[0][path] and read == [path, moved]
    (tmp_path / "cache" / "file_digests.sqlite").write_bytes(b"no database" * 100)
    assert digest_files([moved])[moved] == found[0][path]  # without one, all are read


def test_replaced_images_are_another_run_with_other_features(photo_root, backbone, tmp_path):
    """Images out of an archive may have the same size and time as those that they replace."""
    root = shutil.copytree(photo_root, tmp_path / "photos", ignore=shutil.ignore_patterns("split_fewshot"))
    for path in list(root.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        os.utime(path.with_suffix(".bmp"), (1, 1))
        path.unlink()

    def run(output, cache):
        call(train_args(root, backbone, tmp_path / output, "MTCoOpHard", **{
            "DATASET.SPLIT_DIR": tmp_path / "splits", "DATALOADER.FEATURE_CACHE_DIR": tmp_path / cache}))
        return results(tmp_path / output)

    old = run("old", "kept")
    for path in root.rglob("*.bmp"):
        turned = Image.open(path).point(lambda value: 255 - value)
        turned.save(path)
        os.utime(path, (1, 1))
    with pytest.raises(UserError, match=r"data.train \(the images\) is '\w+' there and '\w+' here"):
        run("old", "kept")
    new, fresh = run("new", "kept"), run("fresh", "empty")
    assert new["tasks"] == fresh["tasks"] and new["learned"] == fresh["learned"] != old["learned"]


def test_images_that_were_moved_find_their_features(photo_root, backbone, tmp_path, capsys):
    root = shutil.copytree(photo_root, tmp_path / "photos", ignore=shutil.ignore_patterns("split_fewshot"))
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "DATALOADER.FEATURE_CACHE_DIR": tmp_path / "kept"}
    call(train_args(root, backbone, tmp_path / "run", "MTCoOpHard", **options))
    root.rename(tmp_path / "moved")
    capsys.readouterr()
    call(train_args(tmp_path / "moved", backbone, tmp_path / "again", "MTCoOpHard", **options))
    assert "they are made now" not in capsys.readouterr().out
    assert results(tmp_path / "again")["learned"] == results(tmp_path / "run")["learned"]


def test_tasks_that_differ_in_what_counts_have_other_digests():
    """Tables average, and runs go on with, only what has the same; each field is forgotten easily."""
    def digest(**changes):
        task = Task("colours", ("red", "blue"), "a photo of a {}.")
        return digests_of([replace(task, **changes)], [], None, [])["tasks"]

    found = [digest(), digest(name="hues"), digest(classnames=("blue", "red")), digest(classnames=("red", "navy")),
             digest(template="a {}."), digest(template=("a photo of a {}.", "a {}.")), digest(metric="mean_acc")]
    assert digest() == found[0] and len(set(found)) == len(found)
