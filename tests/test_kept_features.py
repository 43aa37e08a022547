"""`python -m features`: what is kept on disk of image features, and its removal."""

import gc
import io
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from features import kept, store
from features.__main__ import main as features_main
from features.kept import list_kept
from features.store import FeatureCache, key_of
from tests import helpers
from tests.helpers import train_args


def call(root, backbone, output, trainer, *extra):
    return helpers.call(train_args(root, backbone, output, trainer, *extra, **{
        "DATASET.SPLIT_DIR": output.parent / "splits", "DATALOADER.FEATURE_CACHE_DIR": output.parent / "features"}))


def keep(folder, backbone="RN50", dataset="EuroSAT", root="/data", seed=None, days=0):
    """Keep three features of a dataset, last used so many days ago; returns their cache."""
    cache = FeatureCache(str(folder), {"backbone": backbone, "precision": "float32", "device": "cpu",
                                       "transforms": "Resize"}, {"dataset": dataset, "root": root})
    rows = cache.store(f"train-seed{seed}" if seed else "test", np.array(
        [key_of(dataset, seed, i) for i in range(3)], dtype="S16"), torch.randn(3, 2**17))
    os.utime(rows.args[0], (time.time() - 86400 * days,) * 2)
    return cache


def listed(capsys, *arguments):
    """What `python -m features` prints: the lines of the table without its header, and the last lines."""
    features_main(list(map(str, arguments)))
    lines = capsys.readouterr().out.splitlines()
    end = next(i for i, line in enumerate(lines) if " MB in " in line)
    return lines[1:end], lines[end:]


def test_list_says_what_is_kept(tmp_path, capsys):
    keep(tmp_path, days=3)
    keep(tmp_path, seed=1, days=3)
    keep(tmp_path, seed=2, days=40)
    keep(tmp_path, "ViT-B/16", "FolderTasks", str(tmp_path / "photos"))
    (tmp_path / "notes").mkdir()
    rows, (total,) = listed(capsys, "list", "--folder", tmp_path)
    rows = [" ".join(row.split()) for row in rows]
    assert sorted(rows) == sorted([
        "4.5 MB 9 3 days ago EuroSAT in /data test; training, seed 1 2 RN50 global float32 cpu",
        f"1.5 MB 3 0 hours ago FolderTasks in {tmp_path}/photos test ViT-B/16 global float32 cpu"])
    assert total == f"6.0 MB in {tmp_path}"
    next(path for path in tmp_path.glob("*/space.json") if "RN50" in path.read_text()).write_text("{")
    assert "space.json is damaged" in " ".join(listed(capsys, "list", "--folder", tmp_path)[0])
    assert listed(capsys, "list", "--folder", tmp_path / "none") == ([], [f"0.0 MB in {tmp_path / 'none'}"])


@pytest.mark.parametrize("choice, left", [
    ((), []), (("--dataset", "EuroSAT"), ["FolderTasks", "UCF101"]),
    (("--dataset", "/data/own/"), ["EuroSAT", "UCF101"]),
    (("--backbone", "RN50"), ["UCF101"]), (("--older-than", "7"), ["EuroSAT", "UCF101"]),
    (("--older-than", "7", "--dataset", "UCF101"), ["EuroSAT", "FolderTasks", "UCF101"])])
def test_clear_removes_what_was_chosen(choice, left, tmp_path, capsys):
    keep(tmp_path, dataset="EuroSAT", days=2)
    keep(tmp_path, dataset="FolderTasks", root="/data/own", days=9)
    keep(tmp_path, "ViT-B/16", "UCF101")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ("0" * 32)).mkdir()  # a run that had no room for its features leaves it
    (tmp_path / "photos").mkdir()
    _, said = listed(capsys, "clear", "--yes", "--folder", tmp_path, *choice)
    assert sorted(one.dataset for one in list_kept(tmp_path)) == left
    assert len(left) == 3 or said[1] == f"{1.5 * (3 - len(left))} MB removed"
    # a folder without features is gone, one with others is not
    assert len(list(tmp_path.glob("*/space.json"))) == min(2, len(left))
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1 + min(2, len(left)) + (len(left) == 3)
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "photos").exists()


def test_clear_asks(tmp_path, capsys, monkeypatch):
    keep(tmp_path)
    for answer, n in (("", 1), ("no", 1), ("y", 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{answer}\n"))
        listed(capsys, "clear", "--folder", tmp_path)
        assert len(list_kept(tmp_path)) == n
    keep(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(SystemExit):
        features_main(["clear", "--folder", str(tmp_path)])
    assert "Nobody answered: scripts say yes by --yes" in capsys.readouterr().err and len(list_kept(tmp_path)) == 1


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "²", "week"])
def test_days_are_a_number(text, capsys):
    with pytest.raises(SystemExit):
        features_main(["clear", "--older-than", text])
    assert f"{text!r} must be a number of days, 0 or more" in capsys.readouterr().err


def test_clear_leaves_what_a_process_uses(tmp_path, capsys):
    keep(tmp_path, "ViT-B/16")
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            cache = keep(tmp_path)
            cache.use()
            os.write(tell, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    os.read(ready, 1)
    try:
        _, said = listed(capsys, "clear", "--yes", "--folder", tmp_path)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    folder = FeatureCache(str(tmp_path), list_kept(tmp_path)[0].description).folder
    assert said[1:] == ["1.5 MB removed", f"The run with pid {pid} on {socket.gethostname()} uses {folder}, which is "
                        "left: clear it when that has ended"]
    other = keep(tmp_path)
    other.use()
    assert len(list(Path(folder).glob("*.use.lock"))) == 1  # that of the killed one is gone
    del other
    assert listed(capsys, "clear", "--yes", "--folder", tmp_path)[1][1:] == ["1.5 MB removed"]
    assert not os.path.exists(folder)


def test_nobody_begins_to_use_what_is_being_cleared(tmp_path, monkeypatch):
    guarded = []

    def note(*_):
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".lock").acquire(timeout=0)
        guarded.append(True)
        return [], []

    monkeypatch.setattr(store, "remove_abandoned_locks", note)
    monkeypatch.setattr(kept, "locks_of_users", note)
    keep(tmp_path).use()
    kept.remove(str(tmp_path), list_kept(tmp_path))
    assert guarded == [True, True] and not list_kept(tmp_path)


def test_a_run_uses_its_features_and_says_so(photo_root, backbone, tmp_path, capsys):
    call(photo_root, backbone, tmp_path / "one", "ZeroshotCLIP", "--eval-only")
    pack, = (tmp_path / "features").rglob("*.safetensors")
    os.utime(pack, (1e9, 1e9))
    trainer = call(photo_root, backbone, tmp_path / "two", "MTCoOpHard")
    assert time.time() - pack.stat().st_mtime < 3600
    capsys.readouterr()
    n = len(list_kept(tmp_path / "features"))
    _, said = listed(capsys, "clear", "--yes", "--folder", tmp_path / "features")
    assert n == 2 == len(list_kept(tmp_path / "features")) and " uses " in said[2]
    del trainer
    gc.collect()
    left = list_kept(tmp_path / "features")[0]
    assert (left.dataset, left.root) == ("FolderTasks", str(photo_root))
    listed(capsys, "clear", "--yes", "--folder", tmp_path / "features")
    assert not list_kept(tmp_path / "features")
