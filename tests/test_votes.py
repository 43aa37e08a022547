"""Methods where training images vote, and ProLIP: faults that their check must find, suites, and towers."""

import numpy as np
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer

from common.errors import UserError
from datasets.base import Task
from features.unprojected_features import UnprojectedImageEncoder
from tests.parity import TOLERANCE
from tests.parity_new import Case, check_case
from tests.test_parity_new import FOLDER, weights  # noqa: F401  a fixture
from trainers import voting_trainer
from trainers.voting_trainer import VotingTrainer


def raw_keys(monkeypatch):
    prepare = VotingTrainer.prepare

    def faulty(self):
        prepare(self)
        self.model.cache.keys.data = sum(self.features("train", view)[0] for view in range(3)) / 3

    monkeypatch.setattr(VotingTrainer, "prepare", faulty)


def grid_with_its_end(monkeypatch):
    monkeypatch.setattr(voting_trainer, "grid", lambda scale, n, first: np.linspace(first, scale, n).tolist())


@pytest.mark.parametrize("fault, found", [(raw_keys, "cache_keys"), (grid_with_its_end, "grid_accuracy")])
def test_check_finds_a_fault(fault, found, monkeypatch, weights):  # noqa: F811
    fault(monkeypatch)
    errors = check_case(FOLDER, "tip_adapter/default", weights)
    assert errors[found] > TOLERANCE and errors["best"] > TOLERANCE and errors["test_logits"] > TOLERANCE


OPTIONS = {"TipAdapter": {"VIEWS": 3}, "APE": {"VIEWS": 3, "SEARCH_STEP": (20, 10, 5)},
           "ProLIP": {"SEARCH": True, "OPTIM.MAX_EPOCH": 3, "OPTIM.NAME": "adam", "OPTIM.ADAM_EPS": 1e-4}}


@pytest.mark.parametrize("name, case", [
    ("TipAdapter", "tip_adapter/default"), ("APE", "ape/training_free"), ("ProLIP", "prolip/search")])
def test_suite_of_two_tasks_is_two_runs(name, case, weights):  # noqa: F811
    method, stored = case.split("/")

    def run(*classes):
        """Settings (n_tasks, ...) and logits (n, n_cls) of test images of a suite of tasks with these classes."""
        case = Case(FOLDER / method, stored, weights)
        names, template = case.about["classes"], case.about["templates"][0]
        case.tasks = [Task(f"task {own}", tuple(names[c] for c in own), template) for own in classes]
        first, last = classes[0][0], classes[-1][-1] + 1
        whole = case.features

        def features(part, view=None):
            found, labels = whole(part, view)
            rows = (labels >= first) & (labels < last)
            return found[rows], labels[rows] - first

        case.features = features
        trainer = case.trainer(name, **OPTIONS[name])
        trainer.prepare()
        trainer.build_optimizer()
        if trainer.optimizer:
            for view in range(3):
                trainer.step(*features("train", view), trainer.repeats)
        trainer.calibrate()
        learned = next(iter(trainer.saved.values()))
        with torch.no_grad():
            return learned.settings, trainer.model.score(case["in/test"], trainer.model.class_features())

    (settings, logits), *singles = run((0, 1, 2), (3, 4, 5)), run((0, 1, 2)), run((3, 4, 5))
    assert torch.equal(settings, torch.cat([single[0] for single in singles]))
    torch.testing.assert_close(logits, torch.cat([single[1] for single in singles], 1), rtol=1e-12, atol=1e-12)
    assert not torch.equal(settings[0], settings[1])  # each task chose its own


@pytest.mark.parametrize("tower", [
    lambda: ModifiedResNet([1, 1, 1, 1], output_dim=24, heads=4, image_size=32, width=8),
    lambda: VisionTransformer(32, 16, 16, 1, 2, 2.0, output_dim=8)])
def test_unprojected_features_lack_the_projection_alone(tower):
    torch.manual_seed(0)
    visual, images = tower().eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        whole, encoder = visual(images), UnprojectedImageEncoder(visual)
        features = encoder(images)
        projected = features @ encoder.projection + encoder.bias
    assert features.shape[1] > whole.shape[1]
    torch.testing.assert_close(projected, whole, rtol=1e-5, atol=1e-5)


def test_other_towers_are_refused():
    with pytest.raises(UserError, match="some-model has no projection .*: its image tower is Linear, but must be a "):
        UnprojectedImageEncoder(torch.nn.Linear(2, 2), "some-model")
