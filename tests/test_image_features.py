"""Images are encoded once: what the cache keeps, shares, remakes, and that it changes no number."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dassl.utils import NotFinite
from tests import helpers
from tests.helpers import REPOSITORY, make_cfg, results, train_args
from trainers import feature_store
from trainers.feature_store import FeatureCache, key_of
from trainers.image_features import ImageFeatures, Images, describe, seeded

KEYS = [key_of(i) for i in range(6)]


@pytest.fixture
def photos(photo_root, tmp_path):
    """A copy of the images that a test may change."""
    return shutil.copytree(photo_root, tmp_path / "photos", ignore=shutil.ignore_patterns("split_fewshot"))


@pytest.fixture
def reads(monkeypatch):
    """Paths of the images that are read."""
    paths, read = [], Images.__getitem__

    def counted(self, idx):
        paths.append(self.data_source[idx].impath)
        return read(self, idx)

    monkeypatch.setattr(Images, "__getitem__", counted)
    return paths


def call(root, backbone, output, trainer="MTCoOp", *extra, **options):
    options = {"TRAINER.MTCOOP.TASK_N_CTX": 2, "DATALOADER.FEATURE_CACHE_DIR": output.parent / "features", **options}
    return helpers.call(train_args(root, backbone, output, trainer, *extra, **options))


def learned(trainer):
    return [p.detach() for p in trainer.trained]


def test_results_are_the_same_with_and_without_cache(photos, backbone, tmp_path, reads):
    without = call(photos, backbone, tmp_path / "off", **{"DATALOADER.FEATURE_CACHE": False})
    assert not (tmp_path / "features").exists() and len(reads) == 3 * 10 + 20  # 3 epochs of 5 classes x 2, and test
    made = call(photos, backbone, tmp_path / "made")
    reads.clear()
    found = call(photos, backbone, tmp_path / "found")
    assert not reads
    for trainer in (made, found):
        assert all(torch.equal(a, b) for a, b in zip(learned(trainer), learned(without)))
    losses = [[line.split("loss")[1].split("eta")[0] for line in (tmp_path / name / "log.txt").read_text().splitlines()
               if line.startswith("epoch")] for name in ("off", "made", "found")]
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == 6
    assert results(tmp_path / "off")["tasks"] == results(tmp_path / "found")["tasks"]


def test_other_methods_read_no_image(photos, backbone, tmp_path, reads):
    call(photos, backbone, tmp_path / "a")
    reads.clear()
    call(photos, backbone, tmp_path / "b", "MTCoOpHard")
    call(photos, backbone, tmp_path / "c", "ZeroshotCLIP", "--eval-only", **{"DATASET.SUBSAMPLE_TASKS": "task1"})
    call(photos, backbone, tmp_path / "d", **{"DATASET.SUBSAMPLE_CLASSES": "base"})
    assert not reads


def test_a_changed_image_is_encoded_again_and_alone(photos, backbone, tmp_path, reads):
    trainer = call(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only")
    images = trainer.test_images["test"]
    before = trainer.encode(images).clone()
    changed = images.data_source[3].impath
    reads.clear()
    Path(changed).write_bytes(Path(images.data_source[15].impath).read_bytes())
    after = trainer.encode(images)
    assert reads == [changed]
    assert torch.equal(after[3], before[15]) and torch.equal(np.delete(after, 3, 0), np.delete(before, 3, 0))


def test_augmentation_depends_on_seed_epoch_and_image_alone(photos, backbone, tmp_path):
    def features(workers, epoch, seed=1):
        trainer = call(photos, backbone, tmp_path / "run", "MTCoOpHard", "--no-train", "--seed", str(seed),
                       **{"DATALOADER.NUM_WORKERS": workers, "DATALOADER.FEATURE_CACHE": False,
                          "DATASET.NUM_SHOTS": -1})
        images = trainer.train_images
        images.epoch = epoch
        return trainer.encode(images)

    expected = features(0, 1)
    torch.manual_seed(5)
    assert torch.equal(features(2, 1), expected)
    assert not torch.equal(features(0, 2), expected) and not torch.equal(features(0, 1, seed=2), expected)


def test_seeded_leaves_the_outside_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded("a"):
        inside = torch.rand(2), np.random.rand()
    assert torch.equal(torch.rand(2), expected)
    with seeded("a"):
        assert torch.equal(torch.rand(2), inside[0]) and np.random.rand() == inside[1]


def test_features_do_not_depend_on_their_batch(photos, backbone, tmp_path):
    """Which images share a batch, and how many, changes no bit."""
    trainer = call(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only",
                   **{"DATALOADER.FEATURE_CACHE": False})
    images, encode = trainer.test_images["test"], trainer.encode.encode
    whole = torch.cat(list(encode(images, range(20))))
    parts = torch.cat([torch.cat(list(encode(images, index))) for index in ([7], [0, 19, 3], list(range(20)))])
    assert torch.equal(parts, whole[[7, 0, 19, 3, *range(20)]])


def test_features_that_are_not_finite_name_their_image(photos, backbone, tmp_path):
    trainer = call(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only")
    images, encoder = trainer.test_images["test"], trainer.encode.encoder

    def broken(pixels):
        features = encoder(pixels)
        features[3, 0] = float("inf")
        return features

    trainer.encode.encoder = broken
    with pytest.raises(NotFinite, match=f"the features of {images.data_source[3].impath} are NaN or infinite"):
        list(trainer.encode.encode(images, range(20)))


def test_known_and_unknown_features(tmp_path):
    cache = FeatureCache(str(tmp_path), {"a": 1})
    assert cache.load("test", KEYS)[0] is None
    rows = torch.arange(12.0).view(6, 2)
    cache.store("test", KEYS[:2], rows[:2])
    cache.store("test", [KEYS[4], KEYS[3]], rows[[4, 3]])
    features, known = cache.load("test", KEYS)
    assert known.tolist() == [True, True, False, True, True, False]
    assert torch.equal(features[torch.from_numpy(known)], rows[[0, 1, 3, 4]])
    assert torch.equal(cache.load("test", [KEYS[3], KEYS[0]])[0], rows[[3, 0]])
    assert cache.load("other", KEYS)[0] is None
    assert FeatureCache(str(tmp_path), {"a": 2}).load("test", KEYS)[0] is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_are_kept(dtype, tmp_path):
    cache, rows = FeatureCache(str(tmp_path), {}), torch.randn(6, 3).to(dtype)
    cache.store("test", KEYS, rows)
    assert torch.equal(cache.load("test", KEYS)[0], rows) and cache.load("test", KEYS)[0].dtype == dtype


@pytest.mark.parametrize("damage", [
    lambda data: data[:-5], lambda data: data[:-5] + bytes([data[-5] ^ 4]) + data[-4:], lambda data: b""])
def test_a_damaged_pack_is_made_again(damage, tmp_path, capsys):
    cache = FeatureCache(str(tmp_path), {})
    cache.store("test", KEYS, torch.randn(6, 3))
    pack, = tmp_path.rglob("*.safetensors")
    pack.write_bytes(damage(pack.read_bytes()))
    assert cache.load("test", KEYS)[0] is None and not pack.exists()
    assert "damaged" in capsys.readouterr().out


def test_what_killed_runs_left_is_removed_and_what_others_write_is_not(tmp_path):
    cache = FeatureCache(str(tmp_path), {})
    cache.store("test", KEYS[:3], torch.randn(3, 3))
    pack, = tmp_path.rglob("*.safetensors")
    old, new = (pack.with_name(f".{pack.name}.7-{name}.tmp") for name in ("0123abcd", "4567cdef"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    cache.store("test", KEYS[3:], torch.randn(3, 3))
    assert new.exists() and not old.exists() and len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_a_full_disk_is_said_once_and_no_error(tmp_path, capsys, monkeypatch):
    cache = FeatureCache(str(tmp_path), {})
    monkeypatch.setattr(feature_store, "SPARE", 2**62)
    for view in ("test", "train"):
        cache.store(view, KEYS, torch.randn(6, 3))
    assert capsys.readouterr().out.count("can't be kept") == 1
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("*.tmp"))


def test_what_changes_a_feature_is_another_space(tmp_path):
    cfg = make_cfg(options={"DATALOADER.FEATURE_CACHE_DIR": str(tmp_path)})
    from dassl.data.transforms import build_transform

    def folder(weight=1.0, dtype=torch.float32, size=32, is_train=False, transforms=("random_flip",)):
        encoder = torch.nn.Linear(2, 2, bias=False)
        encoder.weight.data.fill_(weight)
        local = cfg.clone()
        local.defrost()
        local.INPUT.SIZE, local.INPUT.TRANSFORMS, local.VERBOSE = (size, size), transforms, False
        images = Images(local, [], build_transform(local, is_train), is_train)
        return ImageFeatures(local, encoder, torch.device("cpu"), dtype).cache_for(images).folder

    assert folder() == folder()
    variants = [folder(), folder(weight=1.0001), folder(dtype=torch.bfloat16), folder(size=64), folder(is_train=True),
                folder(transforms=("normalize",)), folder(is_train=True, transforms=("colorjitter",))]
    assert len(set(variants)) == len(variants)


def test_transforms_without_a_description_of_their_own_are_told_apart():
    class Threshold:
        def __init__(self, level):
            self.level = level

    assert describe(Threshold(1)) == describe(Threshold(1)) != describe(Threshold(2))


def test_a_sweep_over_shots_encodes_every_image_of_an_epoch_once(photo_root, backbone, tmp_path, monkeypatch):
    encoded = []
    read = Images.__getitem__

    def counted(self, idx):
        encoded.append((self.epoch if self.is_train else None, self.data_source[idx].name))
        return read(self, idx)

    monkeypatch.setattr(Images, "__getitem__", counted)
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "DATALOADER.FEATURE_CACHE_DIR": tmp_path / "features"}
    for shots in (1, 2, 4, 8, 16):
        call(photo_root, backbone, tmp_path / str(shots), "MTCoOpHard", **options, **{"DATASET.NUM_SHOTS": shots})
    assert len(encoded) == len(set(encoded))
    n_train = results(tmp_path / "16")["n_train"]
    assert sum(epoch is not None for epoch, _ in encoded) == 3 * n_train


def test_list_and_clear(tmp_path):
    cache = FeatureCache(str(tmp_path), {"backbone": "RN50", "precision": "float32", "device": "cpu",
                                         "transforms": "Resize"})
    cache.store("test", KEYS, torch.randn(6, 2**17))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "photos").mkdir()
    damaged, = tmp_path.glob("*/space.json")

    def run(command):
        return subprocess.run([sys.executable, "-m", "trainers.feature_cache", command, "--folder", str(tmp_path)],
                              cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout

    listed = run("list")
    assert "RN50, global, float32, cpu, Resize" in listed and listed.count("3.0 MB") == 2
    damaged.write_text("{")
    assert "its space.json is damaged" in run("list")
    assert "deleted" in run("clear") and sorted(os.listdir(tmp_path)) == ["notes.txt", "photos"]
    assert run("list").split() == ["0.0", "MB", "in", "all,", str(tmp_path)]


def test_space_says_what_it_holds(photos, backbone, tmp_path):
    call(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only")
    space, = (tmp_path / "features").iterdir()
    described = json.loads((space / "space.json").read_text())
    assert described["precision"] == "float32" and described["transforms"].startswith("Resize(size=32")
