"""Methods with prompts inside the towers: whole runs, prompts by task, pooling, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.plain import PlainTextEncoder
from clip import load
from common.errors import UserError
from datasets.base import Task
from learned import standalone
from learned.exporting import export
from learned.loading import load_classifier
from runs.methods import TRAINERS
from tests import parity
from tests.helpers import call, call_until, make_cfg, results, train_args
from trainers.deep_prompts import encode_with_prompts
from trainers.text_encoder import kept_for_backward

DEPTHS = {"VPT": {"PROMPT_DEPTH_VISION": 2}, "IVLP": {"PROMPT_DEPTH_VISION": 1, "PROMPT_DEPTH_TEXT": 2},
          "MaPLe": {"PROMPT_DEPTH": 2}, "PromptSRC": {"PROMPT_DEPTH_VISION": 2, "PROMPT_DEPTH_TEXT": 1, "GPA_MEAN": 2}}
TASKS = [Task("letters", ("U.S.", "tulip"), "the text {}."), Task("colours", ("dark_blue", "red", "grey", "green"))]


def options_of(name, **options):
    """{config key: value} of a method on a tower of two layers; options are its own, or whole keys."""
    return {key if "." in key else f"TRAINER.{TRAINERS[name].node}.{key}": value
            for key, value in {**DEPTHS[name], **options}.items()}


def make(name, backbone, tasks=TASKS, **options):
    torch.manual_seed(0)
    trainer = parity.build_trainer(name, backbone, tasks, 32, options_of(name, PREC="fp64", **options))
    for value in trainer.trained:  # larger than they start, so that tasks and layers differ
        value.data.copy_(0.3 * torch.randn(value.shape))
    return trainer


def pixels(n, seed=1):
    return torch.randn(n, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(trainer, images, labels):
    trainer.optimizer.zero_grad()
    metrics = trainer.add_gradients(images, labels)
    return {name: p.grad.clone() for name, p in trainer.model.prompt_learner.named_parameters()}, metrics


# ---------------------------------------------------------------------------- whole runs
@pytest.mark.parametrize("name, tsc", [("VPT", False), ("VPT", True), ("IVLP", True), ("MaPLe", True),
                                       ("PromptSRC", False)])
def test_a_run_is_stopped_resumed_tested_predicted_and_exported(name, tsc, photo_root, words, tmp_path, monkeypatch):
    def arguments(output, *extra):
        return train_args(photo_root, words, tmp_path / output, name, *extra, **{
            "DATASET.SPLIT_DIR": tmp_path / "splits", "TRAIN.RESUME_SECONDS": 0, **options_of(name, TSC=tsc)})

    calm = call(arguments("calm"))
    started = call(arguments("started", "--no-train")).model.prompt_learner.state_dict()
    assert all(not torch.equal(value, started[key]) for key, value in calm.model.prompt_learner.state_dict().items())
    call_until(2, arguments("stopped"), monkeypatch)
    resumed = call(arguments("stopped"))
    assert "Resuming from" in (tmp_path / "stopped" / "log.txt").read_text()
    assert resumed.digest_of_learned() == calm.digest_of_learned()
    tested = call(arguments("tested", "--eval-only", "--model-dir", str(tmp_path / "calm")))
    assert tested.digest_of_learned() == calm.digest_of_learned()
    assert results(tmp_path / "tested")["tasks"] == results(tmp_path / "calm")["tasks"]

    paths = [datum.impath for datum in calm.plain_images["test"].data_source][::6]
    batch = torch.stack([calm.plain_images["test"][6 * i] for i in range(len(paths))])
    labels = torch.tensor([datum.label for datum in calm.plain_images["test"].data_source])[::6]
    with torch.no_grad():
        expected = calm.model(batch, labels)[0].softmax(1)
    probabilities = load_classifier(str(tmp_path / "calm")).probabilities(batch)
    export(str(tmp_path / "calm"), str(tmp_path / "exported"))
    exported = standalone.Classifier(tmp_path / "exported").predict(paths)
    for row, label, there, i in zip(expected, labels, exported, range(len(paths))):
        task = int(calm.model.task_of_class[label])
        own = row[calm.model.task_of_class == task]
        torch.testing.assert_close(probabilities[task][i].float(), own, atol=1e-5, rtol=0)
        found = dict(there[calm.tasks[task].name])
        assert [found[key] for key in calm.tasks[task].classnames] == pytest.approx(own.tolist(), abs=1e-5)


# ---------------------------------------------------------------------------- suites
@pytest.mark.parametrize("name", DEPTHS)
def test_a_mixed_batch_is_its_tasks_by_their_shares(name, words):
    """With TSC each task's prompts get what the task alone would give them, and its images read them alone."""
    suite, labels, images = make(name, words, TSC=True), torch.tensor([1, 3, 0, 5, 1, 4]), pixels(6)
    mixed, metrics = gradients(suite, images, labels)
    with torch.no_grad():
        logits = suite.model(images, labels)[0]
    total = 0
    for t, (task, first) in enumerate(zip(TASKS, (0, 2))):
        alone, own = make(name, words, [task], TSC=True), suite.model.task_of_class[labels] == t
        for key, value in alone.model.prompt_learner.named_parameters():
            there = suite.model.prompt_learner.get_parameter(key)
            value.data.copy_(there if key.startswith("maps") else there[t:t + 1])
        single, its_metrics = gradients(alone, images[own], labels[own] - first)
        share = float(own.double().mean())
        for key, gradient in single.items():
            if not key.startswith("maps"):  # one for all tasks
                assert gradient.abs().max() > 0
                torch.testing.assert_close(mixed[key][t:t + 1], share * gradient, msg=key)
        total += share * float(its_metrics["loss"])
        with torch.no_grad():
            torch.testing.assert_close(logits[own, first:first + len(task.classnames)],
                                       alone.model(images[own], labels[own] - first)[0])
    assert float(metrics["loss"]) == pytest.approx(total)


# ---------------------------------------------------------------------------- the image tower
def test_pooling_reads_no_prompt(words):
    """Their outputs are taken away: a mean over the tokens is that over the patches, and hooks stay for a call."""
    trainer = make("VPT", words)
    tower, images, prompts = trainer.model.image_encoder, pixels(2), 0.3 * torch.randn(2, 5, 64, dtype=torch.float64)
    plain, seen = tower(images), []
    pool = tower._pool
    tower._pool = lambda x: (seen.append(x.shape[1]), pool(x))[1]
    prompted = encode_with_prompts(tower, images, [prompts])
    assert not torch.allclose(plain, prompted)
    torch.testing.assert_close(tower(images), plain, rtol=0, atol=0)
    tower.pool_type = "avg"
    encode_with_prompts(tower, images, [prompts, prompts])
    assert seen == [5, 5, 5]


def test_each_layer_has_its_own_prompts(words):
    """The tower of two layers by hand: tokens, then prompts, in the second layer its own instead."""
    trainer = make("VPT", words)
    tower, images = trainer.model.image_encoder, pixels(2)
    first, second = (layer.detach().expand(2, -1, -1) for layer in trainer.model.prompt_learner["image"].layers)
    x = tower.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([tower.class_embedding.expand(2, 1, -1), x], dim=1) + tower.positional_embedding
    x = tower.transformer.resblocks[0](tower.ln_pre(torch.cat([x, first], dim=1)))
    x = tower.transformer.resblocks[1](torch.cat([x[:, :5], second], dim=1))
    with torch.no_grad():
        found = trainer.model.image_features(images, None)
    torch.testing.assert_close(found, tower.ln_post(x[:, 0]) @ tower.proj)


def test_without_visual_prompts_the_image_tower_is_as_it_was(words):
    trainer, images, labels = make("IVLP", words, PROMPT_DEPTH_VISION=0, TSC=True), pixels(3), torch.tensor([0, 1, 4])
    assert torch.equal(trainer.model.image_features(images, labels), trainer.model.image_encoder(images))
    assert gradients(trainer, images, labels)[0].keys() == {"text.layers.0", "text.layers.1"}


@pytest.mark.parametrize("name", ["MaPLe", "PromptSRC"])
def test_recomputing_the_image_tower_changes_nothing_and_keeps_less(name, words):
    images, labels, found, kept = pixels(6), torch.tensor([1, 3, 0, 5, 2, 4]), [], []
    for recomputed in (False, True):
        trainer = make(name, words, **{"MODEL.CHECKPOINT_IMAGE": recomputed})
        found.append(list(gradients(trainer, images, labels)[0].values()))
        model = trainer.model
        kept.append(kept_for_backward(lambda: model.image_features(images, labels), model.parameters()))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found))
    assert kept[1] < kept[0] / 3


# ---------------------------------------------------------------------------- refused
@pytest.mark.parametrize("name, options, message", [
    ("VPT", {"PROMPT_DEPTH_VISION": 3}, r"TRAINER.VPT.PROMPT_DEPTH_VISION is 3.*, but the image tower of .* 2 layers"),
    ("IVLP", {"PROMPT_DEPTH_TEXT": 3}, r"TRAINER.IVLP.PROMPT_DEPTH_TEXT is 3.*, but the text tower of .* has 2 layers"),
    ("MaPLe", {"N_CTX": 5}, r"CTX_INIT begins with 'a photo of a', which is 4 tokens, but there are 5 text prompts"),
    ("VPT", {"TEMPLATE": "a photo"}, r"TRAINER.VPT.TEMPLATE is 'a photo'.*, but must hold \{\}")])
def test_clear_errors(name, options, message, backbone):
    with pytest.raises(UserError, match=message):
        make(name, backbone, **options)


@pytest.mark.parametrize("name", DEPTHS)
def test_an_image_tower_that_is_no_vision_transformer_is_refused(name):
    with pytest.raises(UserError, match="MODEL.BACKBONE.NAME is 'tiny'.* its image tower is ModifiedResNet: use an"):
        parity.make(name, "tiny", TASKS, 64, options_of(name))


def test_recomputing_a_tower_without_such_layers_is_refused():
    with pytest.raises(UserError, match="MODEL.CHECKPOINT_IMAGE is True.* image tower of tiny is ModifiedResNet"):
        parity.make("ZeroshotCLIP", "tiny", TASKS, 64, {"MODEL.CHECKPOINT_IMAGE": True})


def test_a_tower_of_timm_is_named():
    timm = type("Eva", (), {})()
    trainer = object.__new__(TRAINERS["VPT"])
    trainer.cfg = make_cfg(options={"MODEL.BACKBONE.NAME": "open_clip:EVA"})
    with pytest.raises(UserError, match="its image tower is Eva: use another"):
        trainer.build_clip_model(SimpleNamespace(visual=SimpleNamespace(trunk=timm)))


@pytest.mark.parametrize("name", ["IVLP", "MaPLe"])
def test_the_plain_encoder_reads_the_same_prompts(name, words):
    """What benchmarks compare with has the same class features and gradients."""
    options = {"PROMPT_DEPTH_TEXT": 2} if name == "IVLP" else {"PROMPT_DEPTH": 2}
    trainer = make(name, words, TSC=True, **options)
    features, labels = pixels(4), torch.tensor([0, 1, 2, 5])
    ours, _ = gradients(trainer, features, labels)
    clip_model = load(words, device="cpu")[0].requires_grad_(False)
    trainer.model.text_encoder = PlainTextEncoder(clip_model)
    trainer.model.to_double()
    plain, _ = gradients(trainer, features, labels)
    for key, value in ours.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-8, atol=1e-10)
