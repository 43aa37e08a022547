"""TCP, DePT and CLIP-LoRA: faults that their checks must find, suites, and settings that do not fit a backbone."""

import pytest
import torch

import dassl.optim.lr_scheduler
from common.errors import UserError
from datasets.base import Task
from learned.loading import load_classifier
from tests import parity
from tests.helpers import call, call_until, results, train_args
from tests.parity import TOLERANCE
from tests.parity_new import check_case
from tests.test_parity_new import FOLDER, weights  # noqa: F401  a fixture
from trainers import clip_lora, dept
from trainers.tcp import without_first_words

TASKS = [Task("flowers", ("daisy", "bird_of_paradise", "rose"), "a photo of a {}, a flower."),
         Task("letters", ("u", "tulip"), "the text {}.")]


@pytest.mark.parametrize("template, n, expected", [
    ("a photo of a {}, a type of flower.", 4, "{}, a type of flower."),
    ("a photo of a person doing {}.", 4, "person doing {}."),
    ("{} texture.", 4, "{} texture."), ("itap of a {}.", 2, "a {}.")])
def test_the_context_replaces_the_first_words_of_a_template(template, n, expected):
    assert without_first_words(template, n) == expected


def test_a_layer_that_the_text_tower_lacks_is_named(backbone):
    with pytest.raises(UserError, match="TRAINER.TCP.LAYER is 8, but the text tower of .* has 2 blocks, counted"):
        parity.make("TCP", backbone, TASKS, 32, {})


@pytest.mark.parametrize("name", ["TCP", "DePT"])
def test_a_suite_scores_as_its_tasks_alone(name, backbone):
    """A task's logits depend on what is its own alone."""
    torch.manual_seed(0)
    options = {"TRAINER.TCP.LAYER": 1} if name == "TCP" else {}
    suite = parity.build_trainer(name, backbone, TASKS, 32, options)
    for value in suite.trained:
        value.data.copy_(0.3 * torch.randn(value.shape))
    features, first = torch.randn(6, 64), 0
    there = suite.learned()["prompt_learner"]
    with torch.no_grad():
        logits = suite.model.score(features, suite.model.class_features())
    for number, task in enumerate(TASKS):
        alone = parity.build_trainer(name, backbone, [task], 32, options)
        last = first + len(task.classnames)
        classes, own = slice(first, last), {}
        for key, value in alone.learned()["prompt_learner"].items():
            whole = there[key.replace("s.0.", f"s.{number}.")]
            own[key] = whole if whole.shape == value.shape else whole[classes if len(whole) > 2 else [number]]
        alone.set_learned({"prompt_learner": own})
        with torch.no_grad():
            expected = alone.model.score(features, alone.model.class_features())
        torch.testing.assert_close(logits[:, classes], expected, rtol=1e-4, atol=1e-4)
        first = last


def texts_through_the_scale_of_images(monkeypatch):
    def forgetful(head, tasks):
        return head.of_images(tasks) + 0 * head.rows(head.text_scale[tasks], head.text_shift[tasks])

    monkeypatch.setattr(dept.ChannelHead, "of_texts", forgetful)


def alpha_over_the_rank(monkeypatch):
    forward = clip_lora.LowRank.forward
    monkeypatch.setattr(clip_lora.LowRank, "forward", lambda self, x: forward(self, x) / len(self.a) ** 0.5)


def cosine_an_epoch_early(monkeypatch):
    build = dassl.optim.lr_scheduler.CosineAnnealingLR

    def early(optimizer, n, *args):
        scheduler = build(optimizer, n, *args)
        optimizer.step()  # torch wants it before the scheduler's
        scheduler.step()
        return scheduler

    monkeypatch.setattr(dassl.optim.lr_scheduler, "CosineAnnealingLR", early)


@pytest.mark.parametrize("fault, case, found", [
    (texts_through_the_scale_of_images, "dept/coop_words", "losses"), (cosine_an_epoch_early, "dept/coop_words", "lrs"),
    (cosine_an_epoch_early, "tcp/words", "lrs"), (cosine_an_epoch_early, "clip_lora/text_only", "lrs"),
    (alpha_over_the_rank, "clip_lora/text_only", "losses")])
def test_check_finds_a_fault(fault, case, found, monkeypatch, weights):  # noqa: F811
    fault(monkeypatch)
    assert check_case(FOLDER, case, weights)[found] > TOLERANCE


# ---------------------------------------------------------------------------- CLIP-LoRA
def lora(backbone, size=32, **options):
    """A trainer whose updates are not 0, in training mode."""
    torch.manual_seed(0)
    options = {f"TRAINER.CLIPLORA.{key}": value for key, value in options.items()}
    trainer = parity.make("CLIPLoRA", backbone, TASKS, size, {"TRAINER.CLIPLORA.PREC": "fp64", **options})
    trainer.make_train_loader = lambda: [None]  # one batch an epoch
    trainer.build_optimizer()
    for value in trainer.trained:
        value.data.copy_(0.1 * torch.randn(value.shape))
    trainer.set_mode(training=True)
    return trainer


PIXELS = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
LABELS = torch.tensor([0, 3, 4, 1])


def gradients(trainer):
    trainer.optimizer.zero_grad()
    torch.manual_seed(2)
    trainer.add_gradients(PIXELS, LABELS)
    return [value.grad.clone() for value in trainer.trained]


def test_each_projection_and_each_prompt_has_a_mask_of_its_own(backbone):
    trainer, seen = lora(backbone), {}
    for tower, blocks in trainer.model.updates.items():
        for name, update in blocks["0"].items():
            update.dropout.register_forward_hook(
                lambda module, args, made, key=(tower, name): seen.update({key: (args[0], made)}))
    trainer.add_gradients(PIXELS, LABELS)
    masks = {key: made != 0 for key, (_, made) in seen.items()}
    assert len(masks) == 6
    for tower in ("text", "image"):
        q, k, v = (masks[tower, name] for name in "qkv")
        for one, other in ((q, k), (k, v), (q, v)):
            assert 0.5 < float((one == other).double().mean()) < 0.75  # 0.625 where they are independent
    x, made = seen["text", "q"]
    torch.testing.assert_close(made[made != 0], (x / 0.75)[made != 0])
    assert len(x) == int(trainer.model.prompts.lengths.sum())  # [SOS] of every prompt, too
    trainer.set_mode(training=False)
    first, second = (trainer.model(PIXELS, LABELS)[0] for _ in range(2))
    assert torch.equal(first, second) and all(torch.equal(*pair) for pair in seen.values())


@pytest.mark.parametrize("towers", ["both", "text", "image"])
def test_each_task_has_updates_of_its_own(towers, backbone):
    """Logits and gradients are those of a model with the task's updates alone, on the task's images."""
    kwargs = {"DROPOUT": 0.0, "TOWERS": towers}
    own = lora(backbone, TSC=True, **kwargs)
    logits, (found, tasks) = own.model(PIXELS, LABELS)[0], (gradients(own), own.model.task_of_class[LABELS])
    found = {id(value): gradient for value, gradient in zip(own.trained, found)}
    for task in range(len(TASKS)):
        alone, rows = lora(backbone, **kwargs), tasks == task
        for tower, sets in own.model.updates.items():
            alone.model.updates[tower].load_state_dict(sets[task].state_dict())
        torch.testing.assert_close(alone.model(PIXELS[rows], LABELS[rows])[0], logits[rows])
        alone.optimizer.zero_grad()
        alone.add_gradients(PIXELS[rows], LABELS[rows], share=float(rows.double().mean()))
        for tower, sets in own.model.updates.items():
            for theirs, ours in zip(alone.model.updates[tower].parameters(), sets[task].parameters()):
                torch.testing.assert_close(found[id(ours)], theirs.grad, rtol=1e-9, atol=1e-12)
                assert theirs.grad.abs().max() > 0
    for key in ("MODEL.CHECKPOINT_IMAGE", "MODEL.COMPILE"):
        with pytest.raises(UserError, match=f"{key} .* is not for TRAINER.CLIPLORA.TSC"):
            parity.make("CLIPLoRA", backbone, TASKS, 32, {"TRAINER.CLIPLORA.TSC": True, key: True})


@pytest.mark.parametrize("tsc", [False, True])
@pytest.mark.parametrize("setting", ["MODEL.CHECKPOINT_TEXT", "chunk"])
def test_gradients_with_less_memory_are_the_same(setting, tsc, backbone):
    """Recomputed blocks draw the same masks again; in chunks the masks are others, so there is none."""
    trainer = lora(backbone, DROPOUT=0.0 if setting == "chunk" else 0.25, MATRICES=("q", "k", "v", "o"), TSC=tsc)
    expected = gradients(trainer)
    encoder = trainer.model.text_encoder
    encoder.chunk, encoder.checkpoint = (2, False) if setting == "chunk" else (0, True)
    for ours, theirs in zip(gradients(trainer), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        assert theirs.abs().max() > 0


@pytest.mark.parametrize("layers, numbers", [("all", "01"), ("half-bottom", "0"), ("half-up", "1"), ("up", "1")])
def test_layers_and_towers_that_learn(layers, numbers, backbone):
    trainer = lora(backbone, LAYERS=layers, TOWERS="text")
    assert "".join(trainer.model.updates["text"]) == numbers and list(trainer.model.updates) == ["text"]
    assert not trainer.learns_images and trainer.learns_texts


@pytest.mark.parametrize("options, message", [
    ({"LAYERS": "mid"}, "TRAINER.CLIPLORA.LAYERS is 'mid', which of 2 blocks are none: set it to all"),
    ({"MATRICES": ()}, r"TRAINER.CLIPLORA.MATRICES is \(\) .* but must have more values")])
def test_settings_that_are_refused(options, message, backbone):
    with pytest.raises(UserError, match=message):
        lora(backbone, **options)


def test_a_resnet_learns_in_its_text_tower_alone():
    with pytest.raises(UserError, match="TOWERS is 'both', but the image tower here is no transformer .* to text"):
        lora("tiny", 64)
    trainer = lora("tiny", 64, TOWERS="text")
    trainer.step(torch.randn(4, trainer.model.text_encoder.output_dim).double(), LABELS, 1)
    trainer.check_learned()


@pytest.mark.parametrize("towers, tsc", [("both", False), ("both", True), ("text", False), ("image", True)])
def test_a_run_is_stopped_resumed_and_loaded(towers, tsc, photo_root, words, tmp_path, monkeypatch):
    def arguments(place, *flags):
        return train_args(photo_root, words, tmp_path / place, "CLIPLoRA", *flags, **{
            "TRAINER.CLIPLORA.TOWERS": towers, "TRAINER.CLIPLORA.TSC": tsc, "TRAINER.CLIPLORA.STEPS": 4,
            "OPTIM.LR": 0.02, "OPTIM.NAME": "adamw", "OPTIM.WARMUP_EPOCH": 0, "OPTIM.COSINE_MIN_LR": 0.001,
            "TRAIN.RESUME_SECONDS": 0,
            "DATASET.SPLIT_DIR": tmp_path / "splits"})

    calm = call(arguments("calm"))
    assert calm.max_epoch == 3  # 8 steps for 2 shots, of 3 batches an epoch
    assert calm.learning_rate() == pytest.approx(0.001)
    call_until(2, arguments("stopped"), monkeypatch)
    resumed = call(arguments("stopped"))
    assert calm.digest_of_learned() == resumed.digest_of_learned()
    tested = call(arguments("tested", "--eval-only", "--model-dir", str(tmp_path / "calm")))
    assert results(tmp_path / "tested")["tasks"] == results(tmp_path / "calm")["tasks"]
    start, loaded = call(arguments("start", "--no-train")).model, load_classifier(str(tmp_path / "calm")).trainer.model
    pixels, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, -1])
    with torch.no_grad():
        for tower, features in (("text", lambda model: model.class_features()),
                                ("image", lambda model: model.image_features(pixels, labels))):
            assert torch.equal(features(loaded), features(tested.model))
            moved = (features(loaded) - features(start)).norm() / features(start).norm()
            assert (moved > 0.01) == (towers in (tower, "both")), tower
