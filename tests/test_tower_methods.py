"""TCP, DePT and CLIP-LoRA: faults that their checks must find, suites, and settings that do not fit a backbone."""

import pytest
import torch

from common.errors import UserError
from datasets.base import Task
from tests import parity
from tests.parity import TOLERANCE
from tests.parity_new import check_case
from tests.test_parity_new import FOLDER, weights  # noqa: F401  a fixture
from trainers import dept
from trainers.tcp import without_first_words

TASKS = [Task("flowers", ("daisy", "bird_of_paradise", "rose"), "a photo of a {}, a flower."),
         Task("letters", ("u", "tulip"), "the text {}.")]


@pytest.mark.parametrize("template, n, expected", [
    ("a photo of a {}, a type of flower.", 4, "{}, a type of flower."), ("a photo of a person doing {}.", 4, "person doing {}."),
    ("{} texture.", 4, "{} texture."), ("itap of a {}.", 2, "a {}.")])
def test_the_context_replaces_the_first_words_of_a_template(template, n, expected):
    assert without_first_words(template, n) == expected


def test_a_layer_that_the_text_tower_lacks_is_named(backbone):
    with pytest.raises(UserError, match=r"TRAINER.TCP.LAYER is 8, but the text tower of .* has 2 blocks, counted from 0"):
        parity.make("TCP", backbone, TASKS, 32, {})


@pytest.mark.parametrize("name", ["TCP", "DePT"])
def test_a_suite_scores_as_its_tasks_alone(name, backbone):
    """A task's logits depend on what is its own alone.
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


def test_scale_and_shift_of_texts_are_their_own(monkeypatch, weights):  # noqa: F811
    """Fault: texts go through the scale of images."""
    monkeypatch.setattr(dept.ChannelHead, "of_texts", dept.ChannelHead.of_images)
    with pytest.raises(AttributeError):  # no gradient reaches the other
        check_case(FOLDER, "dept/coop_words", weights)
