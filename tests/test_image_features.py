"""Images are encoded once: what the cache keeps, shares, remakes, and that it changes no number."""

import copy
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import MissingFile, NotFinite
from features import image_features, images as images_module, store as feature_store
from features.image_features import ImageFeatures, describe
from features.images import Images, seeded
from features.store import FeatureCache, TemporaryPack, key_of
from tests import helpers
from tests.helpers import make_cfg, results, train_args
from trainers.multitask import MultiTaskTrainer

KEYS = np.array([key_of(i) for i in range(6)])


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
    images = trainer.plain_images["test"]
    before = trainer.encode(images)
    changed = images.data_source[3].impath
    reads.clear()
    original = Path(changed).read_bytes()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 36, 3), np.uint8)).save(changed)
    trainer.encode.make(images, [0])
    after = trainer.encode(images)
    assert reads == [changed]
    assert not torch.equal(after[3], before[3]) and torch.equal(np.delete(after, 3, 0), np.delete(before, 3, 0))
    Path(changed).write_bytes(original)  # its features are known
    trainer.encode.make(images, [0])
    assert torch.equal(trainer.encode(images), before) and reads == [changed]


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
    images, encode = trainer.plain_images["test"], trainer.encode.encode
    whole = torch.cat(list(encode(images, range(20))))
    parts = torch.cat([torch.cat(list(encode(images, index))) for index in ([7], [0, 19, 3], list(range(20)))])
    assert torch.equal(parts, whole[[7, 0, 19, 3, *range(20)]])


def test_features_that_are_not_finite_name_their_image(photos, backbone, tmp_path):
    trainer = call(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only")
    images, encoder = trainer.plain_images["test"], trainer.encode.encoder

    def broken(pixels):
        features = encoder(pixels)
        features[3, 0] = float("inf")
        return features

    trainer.encode.encoder = broken
    with pytest.raises(NotFinite, match=f"the features of {images.data_source[3].impath} are NaN or infinite"):
        list(trainer.encode.encode(images, range(20)))


def test_known_and_unknown_features(tmp_path):
    cache = FeatureCache(str(tmp_path), {"a": 1})
    assert len(cache.find("test", KEYS).missing) == 6
    features = torch.arange(12.0).view(6, 2)
    cache.store("test", KEYS[:2], features[:2])
    cache.store("test", KEYS[[4, 3]], features[[4, 3]])
    rows = cache.find("test", KEYS)
    assert rows.missing.tolist() == [2, 5]
    assert torch.equal(rows.take(np.array([4, 0, 3, 1])), features[[4, 0, 3, 1]])
    assert torch.equal(rows.select(np.array([1, 3, 1])).take(np.array([2, 1])), features[[1, 3]])
    assert torch.equal(cache.find("test", KEYS[[3, 0]]).take(np.arange(2)), features[[3, 0]])
    assert len(cache.find("other", KEYS).missing) == 6
    assert len(FeatureCache(str(tmp_path), {"a": 2}).find("test", KEYS).missing) == 6


def test_keys_that_end_in_zeros(tmp_path):
    keys = np.array([bytes([1, *[0] * 15]), bytes(16), bytes([1, 0, 2, *[0] * 13])], dtype="S16")
    cache, features = FeatureCache(str(tmp_path), {}), torch.randn(3, 2)
    cache.store("test", keys, features)
    assert torch.equal(cache.find("test", keys[[2, 0, 1]]).take(np.arange(3)), features[[2, 0, 1]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_are_kept(dtype, tmp_path):
    cache, features = FeatureCache(str(tmp_path), {}), torch.randn(6, 3).to(dtype)
    temporary = TemporaryPack(features[0])
    cache.store("test", KEYS, features)
    assert [temporary.put(first, features[first:first + 4]).tolist() for first in (4, 0)] == [[4, 5], [0, 1, 2, 3]]
    for found in (cache.find("test", KEYS).take(np.arange(6)), temporary()):
        assert torch.equal(found, features) and found.dtype == dtype


@pytest.mark.parametrize("damage", [
    lambda data: data[:-5], lambda data: data[:-5] + bytes([data[-5] ^ 4]) + data[-4:], lambda data: b""])
def test_a_damaged_pack_is_made_again(damage, tmp_path, capsys):
    cache = FeatureCache(str(tmp_path), {})
    cache.store("test", KEYS, torch.randn(6, 3))
    pack, = tmp_path.rglob("*.safetensors")
    pack.write_bytes(damage(pack.read_bytes()))
    assert len(cache.find("test", KEYS).missing) == 6 and not pack.exists()
    assert "damaged" in capsys.readouterr().out


def test_a_pack_that_is_deleted_while_it_is_used_is_one_sentence(tmp_path):
    cache = FeatureCache(str(tmp_path), {})
    cache.store("test", KEYS, torch.randn(6, 3))
    rows = cache.find("test", KEYS)
    shutil.rmtree(cache.folder)
    with pytest.raises(MissingFile, match="were deleted while this run used them"):
        rows.take(np.arange(2))


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

    def folder(weight=1.0, activation=torch.nn.GELU, dtype=torch.float32, size=32, is_train=False,
               transforms=("random_flip",)):
        encoder = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), activation())
        encoder[0].weight.data.fill_(weight)
        local = cfg.clone()
        local.defrost()
        local.INPUT.SIZE, local.INPUT.TRANSFORMS, local.VERBOSE = (size, size), transforms, False
        images = Images(local, [], build_transform(local, is_train), is_train)
        return ImageFeatures(local, encoder, torch.device("cpu"), dtype).cache_for(images).folder

    assert folder() == folder()
    variants = [folder(), folder(weight=1.0001), folder(activation=torch.nn.ReLU), folder(dtype=torch.bfloat16), folder(size=64),
                folder(is_train=True), folder(transforms=("normalize",)), folder(is_train=True, transforms=("colorjitter",))]
    assert len(set(variants)) == len(variants)


@pytest.mark.parametrize("groups, expected", [(1, torch.contiguous_format), (4, torch.channels_last)])
def test_on_a_cpu_grouped_convolutions_compute_channels_last(photos, backbone, tmp_path, groups, expected):
    seen = []
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=groups),
                                  torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    usual = copy.deepcopy(encoder)
    encoder[1].register_forward_hook(lambda module, inputs, output: seen.extend([module.weight, *inputs]))
    trainer = call(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only")
    encode, images = ImageFeatures(trainer.cfg, encoder, torch.device("cpu")), trainer.plain_images["test"]
    features = encode(images)
    assert len(seen) >= 2 and all(value.is_contiguous(memory_format=expected) for value in seen)
    pixels = torch.stack([images[i] for i in range(len(images))])
    torch.testing.assert_close(features, usual(pixels).detach(), rtol=1e-5, atol=1e-6)
    assert encode.cache_for(images).description["memory_format"] == str(expected).removeprefix("torch.")


@pytest.mark.parametrize("given, expected", [(100, 25), (3, 3)])
def test_on_a_cpu_few_images_are_encoded_at_once(photos, backbone, tmp_path, given, expected):
    options = {"DATALOADER.FEATURE_CACHE": False, "DATALOADER.TEST.BATCH_SIZE": given}
    trainer = call(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only", **options)
    images, sizes = trainer.plain_images["test"], []
    trainer.encode.encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    features = torch.cat(list(trainer.encode.encode(images, range(len(images)))))
    assert set(sizes) == {expected}
    pixels = torch.stack([images[i] for i in range(len(images))])
    torch.testing.assert_close(features, trainer.encode.encoder(pixels).detach(), rtol=1e-5, atol=1e-5)


def test_transforms_are_told_apart_by_their_exact_values():
    from torchvision.transforms import Normalize, RandomResizedCrop

    class Threshold:
        def __init__(self, level):
            self.level = level

    assert describe(Threshold(1)) == describe(Threshold(1)) != describe(Threshold(2))
    # torchvision's own texts round them to four digits
    assert len({describe(RandomResizedCrop(32, scale=(scale, 1.0))) for scale in (0.08, 0.080001, 0.08)}) == 2
    assert len({describe(RandomResizedCrop(32, ratio=(0.75, ratio))) for ratio in (4 / 3, 1.3333)}) == 2
    assert len({describe(Normalize(torch.tensor([mean]), 1)) for mean in (0.5, 0.5000001)}) == 2


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


def test_space_says_what_it_holds(photos, backbone, tmp_path):
    call(photos, backbone, tmp_path / "run", "ZeroshotCLIP", "--eval-only")
    space, = (tmp_path / "features").glob("*/space.json")
    described = json.loads(space.read_text())
    assert described["precision"] == "float32"
    assert described["transforms"].startswith("Resize({") and "'size': 32" in described["transforms"]


# ---------------------------------------------------------------- one pass
ALL = {"DATASET.NUM_SHOTS": -1, "DATALOADER.TEST.BATCH_SIZE": 8}  # 30 images in batches of 8: they span epochs


def plain_features(trainer, epochs):
    """Slow: every image on its own, in a batch that is filled up with zeros. (epochs, n, dim)."""
    images, size = trainer.train_images, trainer.cfg.DATALOADER.TEST.BATCH_SIZE
    rows = []
    for images.epoch in epochs:
        for i in range(len(images)):
            pixels = torch.zeros(size, *images[i].shape)
            pixels[0] = images[i]
            with torch.no_grad():
                rows.append(trainer.encode.encoder(pixels)[0])
    return torch.stack(rows).unflatten(0, (len(epochs), -1))


@pytest.mark.parametrize("options", [{}, {"DATALOADER.FEATURE_CACHE": False}, {"DATALOADER.NUM_WORKERS": 2}],
                         ids=["kept", "temporary", "workers"])
def test_a_pass_gives_every_epochs_features_bit_for_bit(options, photos, backbone, tmp_path, monkeypatch):
    trainer = call(photos, backbone, tmp_path / "run", "MTCoOpHard", "--no-train", **{**ALL, **options})
    monkeypatch.setattr(image_features, "PACK_BYTES", 24 * trainer.encode.row.nbytes)  # three batches
    expected, images = plain_features(trainer, range(3)), trainer.train_images
    trainer.encode.make(images, range(3))
    for images.epoch in (2, 0, 1):
        assert torch.equal(trainer.encode(images), expected[images.epoch])
    packs = list(tmp_path.rglob("features/*/train-seed1/*.safetensors"))
    assert len(packs) == (0 if "DATALOADER.FEATURE_CACHE" in options else -(-3 * len(images) // 24))


def test_batches_are_full_across_epochs_and_workers_are_few(photos, backbone, tmp_path, monkeypatch):
    trainer = call(photos, backbone, tmp_path / "run", "MTCoOpHard", "--no-train", **ALL,
                   **{"DATALOADER.NUM_WORKERS": 8})
    loaders, loader = [], image_features.DataLoader
    monkeypatch.setattr(image_features, "DataLoader", lambda *args, **kw: loaders.append(kw) or loader(*args, **kw))
    sizes, encoder = [], trainer.encode.encoder
    trainer.encode.encoder = lambda pixels: sizes.append(len(pixels)) or encoder(pixels)
    trainer.encode.make(trainer.train_images, range(3))
    assert sizes == [1] + [8] * -(-3 * len(trainer.train_images) // 8)  # the first tells how much a row takes
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert len(loaders) == 1 and loaders[0]["num_workers"] <= 8
    assert [trainer.encode.workers(batches) for batches in (1, 2, 3, 100)] == [0, 2, 3, 8]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    assert trainer.encode.workers(100) == 2


@pytest.mark.parametrize("kept", [True, False])
def test_training_opens_no_image(kept, photos, backbone, tmp_path, monkeypatch):
    seen, read, step = [], images_module.read_image, MultiTaskTrainer.step
    monkeypatch.setattr(images_module, "read_image", lambda path, upright: seen.append(path) or read(path, upright))

    def last_look(self, *args):
        seen.append("step")
        if photos.exists():
            photos.rename(tmp_path / "away")  # neither read nor asked for
        return step(self, *args)

    monkeypatch.setattr(MultiTaskTrainer, "step", last_look)
    call(photos, backbone, tmp_path / "run", "MTCoOpHard", **{"DATALOADER.FEATURE_CACHE": kept, "TEST.NO_TEST": True})
    first = seen.index("step")
    assert first == 10 and set(seen[first:]) == {"step"}  # 5 classes x 2, each read once for its three views


def test_a_killed_pass_loses_one_pack(photos, backbone, tmp_path, monkeypatch, reads):
    """SIGKILL before the second pack is written; the first is not made again, and nothing differs."""
    monkeypatch.setattr(image_features, "PACK_SECONDS", 0)  # a pack for every batch
    options = {**ALL, "DATASET.SPLIT_DIR": tmp_path / "splits"}
    calm = call(photos, backbone, tmp_path / "calm", "MTCoOpHard",
                **{**options, "DATALOADER.FEATURE_CACHE_DIR": tmp_path / "calm_features"})
    n = len(reads) - 20
    pid = os.fork()
    if pid == 0:
        stored, store = [], FeatureCache.store

        def killed(self, draw, keys, features):
            stored.append(draw)
            if len(stored) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return store(self, draw, keys, features)

        try:
            FeatureCache.store = killed
            call(photos, backbone, tmp_path / "run", "MTCoOpHard", **options)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL and len(list(tmp_path.rglob("features/*/train*/*.safetensors"))) == 1
    reads.clear()
    trainer = call(photos, backbone, tmp_path / "run", "MTCoOpHard", **options)
    assert len(reads) - 20 == n - 8
    assert all(torch.equal(a, b) for a, b in zip(learned(trainer), learned(calm)))


def test_runs_side_by_side_encode_every_image_once(photo_root, backbone, tmp_path):
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "DATASET.NUM_SHOTS": 4}
    call(photo_root, backbone, tmp_path / "draws", "MTCoOpHard", "--no-train", **options)  # the same for all
    read = Images.__getitem__

    def noted(self, idx):
        with open(tmp_path / "read.txt", "a") as f:
            f.write(f"{self.seed_of(idx)} {self.data_source[idx].impath}\n")
        time.sleep(0.02)  # so that all want them at once
        return read(self, idx)

    pids = []
    for i, (trainer, shots) in enumerate([("MTCoOpHard", 2), ("MTCoOpHard", 4), ("KgCoOp", 4)]):
        pids.append(os.fork())
        if pids[-1] == 0:
            try:
                Images.__getitem__ = noted
                call(photo_root, backbone, tmp_path / str(i), trainer, **{**options, "DATASET.NUM_SHOTS": shots})
            finally:
                os._exit(not (tmp_path / str(i) / "results.json").exists())
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    lines = (tmp_path / "read.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 3 * 20 + 20
    logs = [(tmp_path / str(i) / "log.txt").read_text() for i in range(3)]
    assert any("makes features of these images now: waiting for it" in log for log in logs)


def test_who_is_waited_for_is_said_once_and_a_dead_holder_lets_go(tmp_path, capsys):
    cache = FeatureCache(str(tmp_path), {})
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with cache.alone("test"):
            os.write(tell, b"x")
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
    os.read(ready, 1)
    with cache.alone("other"):  # is free
        pass
    with cache.alone("test"):
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert capsys.readouterr().out == (f"The run with pid {pid} on {socket.gethostname()} makes features of these "
                                       "images now: waiting for it\n")


def test_nothing_is_left_of_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pack = TemporaryPack(torch.empty(2))
    pack.put(0, torch.ones(5, 2))
    assert torch.equal(pack(), torch.ones(5, 2)) and not os.listdir(tmp_path)  # so a kill leaves nothing either


@pytest.mark.parametrize("room", ["none in the cache", "none", "none after the first pack"])
def test_disks_without_room(room, photos, backbone, tmp_path, monkeypatch, capsys):
    expected = call(photos, backbone, tmp_path / "calm", "MTCoOpHard", **ALL)
    monkeypatch.setattr(image_features, "PACK_SECONDS", 0)
    other = tmp_path / "features2"
    if room == "none after the first pack":
        store, left = FeatureCache.store, [1]

        def once(self, *args):
            if not left:
                monkeypatch.setattr(feature_store, "SPARE", 2**62)
            left.clear()
            return store(self, *args)

        monkeypatch.setattr(FeatureCache, "store", once)
    else:
        monkeypatch.setattr(feature_store, "has_room", lambda folder, size: False)
        monkeypatch.setattr(image_features, "has_room", lambda folder, size: room != "none")
    capsys.readouterr()
    trainer = call(photos, backbone, tmp_path / "run", "MTCoOpHard", **{**ALL, "DATALOADER.FEATURE_CACHE_DIR": other})
    assert all(torch.equal(a, b) for a, b in zip(learned(trainer), learned(expected)))
    assert results(tmp_path / "run")["tasks"] == results(tmp_path / "calm")["tasks"]
    said = {"none in the cache": "kept in a temporary file in ", "none after the first pack": "going on without",
            "none": "in every epoch anew; a smaller DATALOADER.VIEWS takes less"}
    assert said[room] in capsys.readouterr().out


# ---------------------------------------------------------------- views
def test_views(photos, backbone, tmp_path, reads):
    """View e of k is epoch e's of a full run, in whichever order they are made."""
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 5}
    two = call(photos, backbone, tmp_path / "two", "MTCoOpHard", **options, **{"DATALOADER.VIEWS": 2})
    assert len(reads) == 2 * 10 + 20
    images = two.train_images
    drawn = []
    for images.epoch in range(5):
        drawn.append(two.encode(images))
    assert all(torch.equal(drawn[e], drawn[e % 2]) for e in range(5)) and not torch.equal(drawn[0], drawn[1])
    reads.clear()
    full = call(photos, backbone, tmp_path / "full", "MTCoOpHard", **options)
    assert len(reads) == 3 * 10
    images = full.train_images
    for images.epoch in range(2):
        assert torch.equal(full.encode(images), drawn[images.epoch])
    assert not all(torch.equal(a, b) for a, b in zip(learned(two), learned(full)))
    for k, n in ((3, 0), (5, 0), (9, 0)):
        reads.clear()
        trainer = call(photos, backbone, tmp_path / str(k), "MTCoOpHard", **options, **{"DATALOADER.VIEWS": k})
        assert len(reads) == n
        assert (k >= 5) == all(torch.equal(a, b) for a, b in zip(learned(trainer), learned(full)))


def test_views_go_on_after_an_interruption(photos, backbone, tmp_path, monkeypatch, reads):
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "DATALOADER.VIEWS": 2, "TRAIN.RESUME_SECONDS": 0,
               "DATALOADER.FEATURE_CACHE": False, "OPTIM.MAX_EPOCH": 4}
    calm = call(photos, backbone, tmp_path / "calm", "MTCoOpHard", **options)
    helpers.call_until(3, train_args(photos, backbone, tmp_path / "run", "MTCoOpHard", **options), monkeypatch)
    reads.clear()
    resumed = call(photos, backbone, tmp_path / "run", "MTCoOpHard", **options)
    assert len(reads) == 10 + 20  # of the epoch that is left
    assert all(torch.equal(a, b) for a, b in zip(learned(resumed), learned(calm)))


def test_encoding_is_part_of_the_training_time(photos, backbone, tmp_path, monkeypatch):
    read = Images.__getitem__
    monkeypatch.setattr(Images, "__getitem__", lambda self, i: time.sleep(0.02) or read(self, i))
    call(photos, backbone, tmp_path / "run", "MTCoOpHard")
    written = results(tmp_path / "run")
    assert written["train_seconds"] > 0.6 and written["encode_seconds"] > 1.0  # test images, too


def test_no_images_have_no_features(photos, backbone, tmp_path):
    trainer = call(photos, backbone, tmp_path / "run", "MTCoOpHard", "--no-train", **ALL)
    assert trainer.encode(Images(trainer.cfg, [], trainer.plain_images["test"].transform)).shape == (0, 64)


@pytest.mark.parametrize("trainer", ["MTCoOpHard", "PLOT"])
def test_a_cache_that_is_deleted_while_a_run_trains_costs_features_alone(trainer, photos, backbone, tmp_path,
                                                                         monkeypatch, capsys):
    options = {"DATASET.SPLIT_DIR": tmp_path / "splits"}
    calm = call(photos, backbone, tmp_path / "calm", trainer, **options)
    cache, check = tmp_path / "deleted", MultiTaskTrainer.check_learned

    def delete(self):
        if self.epoch == 0:
            shutil.rmtree(cache)
        check(self)

    monkeypatch.setattr(MultiTaskTrainer, "check_learned", delete)
    capsys.readouterr()
    run = call(photos, backbone, tmp_path / "run", trainer, **options, **{"DATALOADER.FEATURE_CACHE_DIR": cache})
    assert "were deleted while this run used them: they are made again" in capsys.readouterr().out
    assert run.digest_of_learned() == calm.digest_of_learned()
    assert results(tmp_path / "run")["tasks"] == results(tmp_path / "calm")["tasks"]


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0, 0.05, 0.1, 0.2])
def test_ctrl_c_while_workers_read_is_one_line(wait, photos, backbone, tmp_path):
    """As a terminal sends it, to all processes; at any moment, also while workers start."""
    command = [sys.executable, "train.py", *train_args(photos, backbone, tmp_path / "run", "MTCoOpHard", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.MAX_EPOCH": 300, "DATALOADER.NUM_WORKERS": 2,
        "DATALOADER.TEST.BATCH_SIZE": 32})]
    log = tmp_path / "log"
    with open(log, "w") as f:
        process = subprocess.Popen(command, cwd=helpers.REPOSITORY, stdout=f, stderr=f, start_new_session=True,
                                   preexec_fn=helpers.hear_ctrl_c)
    while "encoding images" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.005)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 130
    said = log.read_text().replace("\r", "\n").splitlines()
    assert said[-1] == "interrupted; the same command goes on from the last saved epoch"
    assert "Traceback" not in log.read_text() and "ignored" not in log.read_text()
