"""PLOT: local image features, Sinkhorn's plans, scores inside the sample's own task, and whole runs.

Agreement with stored numbers of the published code is tested in `test_methods.py`.
"""

import copy
import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from torch.nn import functional as F

from clip import clip
from datasets.base import Task
from features import image_features, store as feature_store
from features.images import Images
from features.local_features import LocalImageEncoder, attention_pool, last_of
from features.store import Rows
from tests import helpers
from tests.helpers import make_cfg, results, train_args
from trainers import plot
from trainers.plot import TransportCLIP, sinkhorn

TASKS = [Task("flower", ("daisy", "rose", "tulip")), Task("vegetable", ("tomato", "bitter_gourd"))]  # words it knows


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    tower = ModifiedResNet([1, 1, 1, 1], output_dim=24, heads=4, image_size=96, width=8).eval()
    return tower.requires_grad_(False)


def call(root, backbone, output, *extra, **options):
    options = {"TRAINER.PLOT.N_CTX": 2, "DATASET.SPLIT_DIR": output.parent / "splits",
               "DATALOADER.FEATURE_CACHE_DIR": output.parent / "features", "OPTIM.MAX_EPOCH": 2, **options}
    return helpers.call(train_args(root, backbone, output, "PLOT", *extra, **options))


# ---------------------------------------------------------------- local features
def test_first_position_of_the_attention_pool_is_the_image_feature(resnet):
    images = torch.randn(2, 3, 96, 96)
    everywhere = attention_pool(resnet.attnpool, last_of(resnet, images))
    assert everywhere.shape == (2, 1 + 9, 24)
    torch.testing.assert_close(everywhere[:, 0], resnet(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(LocalImageEncoder(resnet)(images), everywhere[:, 1:])


def test_attention_pool_is_plain_attention_at_every_position(resnet):
    pool, maps = resnet.attnpool, torch.randn(1, 256, 3, 3)
    x = torch.cat([maps.mean((2, 3))[:, :, None], maps.flatten(2)], dim=2)[0].T + pool.positional_embedding  # (10, 256)
    query, key, value = pool.q_proj(x), pool.k_proj(x), pool.v_proj(x)
    split = (t.split(64, dim=1) for t in (query, key, value))
    heads = torch.cat([torch.softmax(q @ k.T / 8, dim=1) @ v for q, k, v in zip(*split)], dim=1)
    torch.testing.assert_close(attention_pool(pool, maps)[0], pool.c_proj(heads), rtol=1e-4, atol=1e-5)


def test_patch_tokens_of_a_vision_transformer(backbone):
    visual = clip.load(backbone, device="cpu")[0].visual
    images = torch.randn(2, 3, 32, 32)
    tokens = visual.ln_post(visual.transformer(visual._embeds(images))) @ visual.proj  # the class token comes first
    torch.testing.assert_close(tokens[:, 0], visual(images))
    local = LocalImageEncoder(visual)(images)
    assert local.shape == (2, visual.grid_size[0] * visual.grid_size[1], visual.output_dim)
    torch.testing.assert_close(local, tokens[:, 1:])


@pytest.mark.parametrize("name, proj", [("test_efficientnet", "linear"), ("test_convnext", "linear"),
                                        ("test_resnet", "mlp")])
def test_positions_of_a_timm_tower(name, proj):
    torch.manual_seed(0)
    tower = TimmModel(name, embed_dim=12, image_size=96, pool="avg", proj=proj, proj_bias=True).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        local = LocalImageEncoder(tower)(images)
        assert local.shape == (2, 9, 12)
        if name == "test_efficientnet":  # all after the pool is linear: it may as well come before
            torch.testing.assert_close(local.mean(dim=1), tower(images), rtol=1e-4, atol=1e-5)
        maps = tower.trunk.forward_features(images)  # one position by itself:
        place = tower.head(tower.trunk.forward_head(maps[1:, :, 2:, :1]))
        torch.testing.assert_close(local[1, 6], place[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tower, what", [
    (lambda: TimmModel("test_vit", 12, 160, pool="token", proj="linear"), "timm's VisionTransformer"),
    (lambda: TimmModel("test_efficientnet", 12, 160, pool="rot_attn", proj="linear"), "timm's EfficientNet"),
    (lambda: open_clip.transformer.VisionTransformer(32, 16, 16, 1, 2, 2.0, output_dim=8, attentional_pool=True),
     "VisionTransformer"),
    (torch.nn.Flatten, "Flatten"),
])
def test_other_towers_are_refused(tower, what):
    with pytest.raises(ValueError, match=f"^some-model has no local image features .* its image tower is {what}, but"):
        LocalImageEncoder(tower(), "some-model")


# ---------------------------------------------------------------- transport
def slow_sinkhorn(kernel, max_iter):
    """The published loop, problem by problem but for the common stopping rule."""
    n_problems, m, n = kernel.shape
    u, v = np.ones((n_problems, m)), np.ones((n_problems, n))
    for iteration in range(max_iter):
        before = u.copy()
        for p in range(n_problems):
            for i in range(m):
                u[p, i] = (1 / m) / sum(kernel[p, i, j] * v[p, j] for j in range(n))
            for j in range(n):
                v[p, j] = (1 / n) / sum(kernel[p, i, j] * u[p, i] for i in range(m))
        if np.abs(u - before).mean() < 1e-2:
            break
    return u[:, :, None] * kernel * v[:, None], iteration + 1


@pytest.mark.parametrize("max_iter", [1, 3, 100])
def test_sinkhorn_against_a_plain_loop(max_iter):
    rng = np.random.RandomState(0)
    kernel = np.exp(-rng.rand(5, 7, 4) / 0.1)
    expected, iterations = slow_sinkhorn(kernel, max_iter)
    assert iterations == max_iter or max_iter == 100 and 3 < iterations < 100
    np.testing.assert_allclose(sinkhorn(torch.from_numpy(kernel), max_iter), expected, rtol=1e-10)


def test_marginals_are_uniform(monkeypatch):
    monkeypatch.setattr(plot, "THRESHOLD", 1e-12)
    plan = sinkhorn(torch.exp(-torch.rand(6, 9, 4, dtype=torch.float64) / 0.1), 1000)
    torch.testing.assert_close(plan.sum(1), torch.full((6, 4), 1 / 4, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(2), torch.full((6, 9), 1 / 9, dtype=torch.float64))


def test_a_flat_cost_gives_a_uniform_plan():
    torch.testing.assert_close(sinkhorn(torch.full((1, 5, 2), 0.3), 100), torch.full((1, 5, 2), 0.1))


# ---------------------------------------------------------------- the model
def small_clip(backbone, tasks, **options):
    torch.manual_seed(0)
    cfg = make_cfg(options={"TRAINER.PLOT.N_CTX": 3, **{f"TRAINER.PLOT.{k}": v for k, v in options.items()}})
    return TransportCLIP(clip.load(backbone, device="cpu")[0].requires_grad_(False), tasks, cfg.TRAINER.PLOT, backbone)


def test_logits_are_those_of_each_sample_among_its_own_classes(backbone):
    """Against the definition, with plans that are iterated to the end so that a batch's other samples do not count."""
    model = small_clip(backbone, TASKS, N=2)
    images, labels = torch.randn(4, 6, 64), torch.tensor([4, 0, 2, 3])
    texts = model.class_features()
    assert texts.shape == (5, 2, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "THRESHOLD", 0.0)
        logits = model.logits(images, labels, texts)
    for i, own in enumerate(([3, 4], [0, 1, 2], [0, 1, 2], [3, 4])):
        for c in range(5):
            if c not in own:
                assert logits[i, c] == float("-inf")
                continue
            sim = F.normalize(images[i], dim=1) @ F.normalize(texts[c], dim=1).T  # (6, 2)
            plan = torch.from_numpy(slow_sinkhorn(np.exp((sim.detach().double().numpy() - 1) / 0.1)[None], 100)[0])[0]
            for _ in range(200):  # to the end
                plan = plan / plan.sum(1, keepdim=True) / 6
                plan = plan / plan.sum(0) / 2
            torch.testing.assert_close(logits[i, c], model.logit_scale.exp() * (plan * sim).sum().float(), rtol=1e-4,
                                       atol=1e-4)


def test_the_plan_has_no_gradient(backbone):
    model = small_clip(backbone, TASKS)
    images, labels = torch.randn(2, 4, 64), torch.tensor([0, 1])
    texts = model.class_features().detach().requires_grad_()
    model.logits(images, labels, texts)[0, 1].backward()
    directions, unit = F.normalize(texts.detach(), dim=-1), F.normalize(images, dim=-1)
    sim = torch.einsum("bmd,cnd->bcmn", unit, directions)
    plan = sinkhorn(torch.exp((sim - 1) / 0.1)[:, :3].flatten(0, 1), 100).unflatten(0, (2, 3))
    probe = texts.detach().clone().requires_grad_()
    (model.logit_scale.exp() * plan[0, 1] * (unit[0] @ F.normalize(probe[1], dim=1).T)).sum().backward()
    torch.testing.assert_close(texts.grad, probe.grad)


def test_each_task_learns_from_its_own_samples(backbone):
    model = small_clip(backbone, TASKS)
    same = torch.randn(1, 4, 64).expand(2, -1, -1)  # of which one label must be wrong
    loss = model.losses(same, torch.tensor([0, 1]))[0]["loss"]
    loss.backward()
    first, second = (learner.ctx.grad for learner in model.prompt_learner.learners)
    assert (first != 0).any() and (second == 0).all()


@pytest.mark.parametrize("n_tasks, n, expected", [(6, 4, 196_608), (8, 4, 262_144), (20, 4, 655_360), (10, 2, 163_840)])
def test_numbers_of_learned_values(n_tasks, n, expected, backbone):
    """With the text tower's width of RN50, 512."""
    model = clip.load(backbone, device="cpu")[0].requires_grad_(False)
    wide = copy.copy(model)
    wide.token_embedding = torch.nn.Embedding(1, 512).requires_grad_(False)
    options = make_cfg(options={"TRAINER.PLOT.N": n}).TRAINER.PLOT
    made = TransportCLIP(wide, [Task(f"task {i}", ("a", "b")) for i in range(n_tasks)], options, backbone)
    assert sum(p.numel() for p in made.parameters() if p.requires_grad) == expected
    assert made.prompt_learner.learners[-1].ctx.shape == (n, 16, 512)


@pytest.mark.parametrize("key, value", [("N", 0), ("MAX_ITER", 0), ("EPS", -0.1), ("N_CTX", 0)])
def test_options_that_make_no_sense(key, value, backbone):
    with pytest.raises(ValueError, match=f"TRAINER.PLOT.{key} is "):
        small_clip(backbone, TASKS, **{key: value})


# ---------------------------------------------------------------- runs
def test_run_is_saved_tested_again_and_the_same_without_cache(photo_root, backbone, tmp_path):
    trainer = call(photo_root, backbone, tmp_path / "run")
    written = results(tmp_path / "run")
    assert written["n_params"] == 2 * 4 * 2 * 64 == sum(p.numel() for p in trainer.trained)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Finished training" in log and "20 images in 2 views have features of " in log
    call(photo_root, backbone, tmp_path / "test", "--eval-only", "--model-dir", str(tmp_path / "run"))
    assert results(tmp_path / "test")["tasks"] == written["tasks"]
    uncached = call(photo_root, backbone, tmp_path / "off", **{"DATALOADER.FEATURE_CACHE": False})
    assert results(tmp_path / "off")["tasks"] == written["tasks"]
    assert all(torch.equal(a, b) for a, b in zip(trainer.trained, uncached.trained))


def test_local_features_are_kept_and_made_once(photo_root, backbone, tmp_path, monkeypatch):
    read, paths = Images.__getitem__, []
    monkeypatch.setattr(Images, "__getitem__", lambda self, i: paths.append((self.is_train, i)) or read(self, i))
    for name, n_train, n_test in (("first", 2 * 10, 20), ("second", 0, 0)):
        paths.clear()
        call(photo_root, backbone, tmp_path / name)
        assert sum(is_train for is_train, _ in paths) == n_train and sum(not t for t, _ in paths) == n_test
    spaces = [json.loads(path.read_text()) for path in (tmp_path / "features").glob("*/space.json")]
    assert [space["features"] for space in spaces] == ["local"] * 2  # of training and of test transforms


@pytest.mark.parametrize("options, room", [({}, True), ({"DATALOADER.FEATURE_CACHE": False}, True), ({}, False)],
                         ids=["kept", "temporary", "anew"])
def test_batches_are_the_features_of_their_images(options, room, photo_root, backbone, tmp_path, monkeypatch, capsys):
    """In training and in testing; and no more rows than a batch has stand in memory."""
    monkeypatch.setattr(feature_store, "has_room", lambda folder, size: room)
    monkeypatch.setattr(image_features, "has_room", lambda folder, size: room)
    trainer = call(photo_root, backbone, tmp_path / "run", "--no-train", **{"DATALOADER.TEST.BATCH_SIZE": 3}, **options)
    taken, take = [], Rows.take
    monkeypatch.setattr(Rows, "take", lambda self, index: taken.append(len(index)) or take(self, index))
    for images, batches in ((trainer.train_images, [[7, 0, 3], [1, 2, 5], [6, 4]]),
                            (trainer.plain_images["test"], [[0, 1, 2], [18, 19]])):
        trainer.encode.make(images, range(2))
        for images.epoch in range(2):
            whole = torch.cat(list(trainer.encode.encode(images, range(len(images)))))
            assert whole.ndim == 3
            for index, (got, features) in zip(batches, trainer.encode.batches(images, batches), strict=True):
                assert got.tolist() == index and torch.equal(features, whole[index])
    assert max(taken, default=0) == 3 * room
    assert ("they are encoded when they are needed, in every epoch anew" in capsys.readouterr().out) == (not room)


@pytest.mark.filterwarnings("ignore:Detected call of")  # of the scheduler, where nothing was stepped
def test_a_batch_whose_plan_is_nan_is_skipped(photo_root, backbone, tmp_path, monkeypatch):
    calls = []

    def broken(kernel, max_iter):  # in the two batches of the first epoch
        calls.append(1)
        return sinkhorn(kernel * (float("nan") if len(calls) <= 2 else 1), max_iter)

    monkeypatch.setattr(plot, "sinkhorn", broken)
    options = {"DATALOADER.FEATURE_CACHE": False, "OPTIM.WARMUP_EPOCH": -1}
    before = call(photo_root, backbone, tmp_path / "start", "--no-train", **options)
    start = [p.detach().clone() for p in before.trained]
    trainer = call(photo_root, backbone, tmp_path / "run", **{**options, "OPTIM.MAX_EPOCH": 1})
    assert all(torch.equal(a, b) for a, b in zip(start, trainer.trained))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("A batch of epoch 1 is skipped: an optimal transport plan of PLOT holds NaN") == 2
    assert trainer.learning_rate() < 0.002
    calls.clear()
    trainer = call(photo_root, backbone, tmp_path / "two", **options)
    assert not any(torch.equal(a, b) for a, b in zip(start, trainer.trained))
