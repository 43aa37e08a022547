"""Temperatures: they are recovered, leave accuracies alone, and are those of prediction and export."""

import json

import numpy as np
import pytest
import torch
from scipy.special import softmax

from common.errors import UserError
from learned.loading import load_classifier
from runs.outcome import calibration_error, coverage_of, error_of_true, read_predictions, reliability_of
from tests.helpers import call, results, train_args
from trainers.evaluation import fit_temperatures

CALIBRATE = {"TEST.CALIBRATE": True, "TEST.SAVE_PREDICTIONS": True}


def drawn(n, n_cls, temperature, seed):
    """Logits (n, n_cls) and labels (n,) that are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(n, n_cls))
    labels = np.array([rng.choice(n_cls, p=p) for p in softmax(logits / temperature, axis=1)])
    return logits, labels


def test_temperatures_are_recovered():
    known = [0.5, 1.0, 2.0, 4.0]
    found = fit_temperatures([drawn(3000, 5, t, seed) for seed, t in enumerate(known)])
    np.testing.assert_allclose(found, known, rtol=0.1)
    scaled = fit_temperatures([(100 * logits, labels) for logits, labels in
                               (drawn(3000, 5, t, seed) for seed, t in enumerate(known))])
    np.testing.assert_allclose(scaled, 100 * np.array(found), rtol=1e-3)


def test_a_task_of_few_images_has_the_temperature_of_the_others():
    few, many = drawn(5, 4, 1, 9), drawn(3000, 4, 3.0, 1)
    alone, beside = fit_temperatures([few])[0], fit_temperatures([few, many])[0]
    assert abs(np.log(beside / 3)) < abs(np.log(alone / 3))


def test_temperatures_are_finite_where_all_is_right_and_a_class_is_never_predicted():
    logits = np.array([[4.0, 1, -np.inf], [0, 3, -np.inf], [5, 2, -np.inf]])
    found, = fit_temperatures([(logits, np.array([0, 1, 0]))])
    assert 0.1 < found < 10
    missed, = fit_temperatures([(logits, np.array([0, 1, 2]))])  # the last is wrong by whatever temperature
    assert np.isfinite(missed)


def test_reliability_and_coverage_by_hand():
    probabilities, right = np.array([0.55, 0.95, 0.95, 0.3]), np.array([True, True, False, False])
    bins = reliability_of(probabilities, right, bins=2)
    assert bins == [(1, 30.0, 0.0), (3, pytest.approx(81.6667), pytest.approx(66.6667))]
    error = sum(n * abs(mean - accuracy) for n, mean, accuracy in bins) / 4
    assert error == pytest.approx(100 * calibration_error(probabilities, right, bins=2), abs=1e-3)
    found = {least: (share, accuracy) for least, share, accuracy in coverage_of(probabilities, right)}
    assert found[0] == (100, 50) and found[50] == (75, pytest.approx(66.6667)) and found[95] == (50, 50)
    assert found[99] == (0, None)


def test_even_true_probabilities_have_an_error():
    rng = np.random.default_rng(1)
    probabilities = rng.uniform(0.3, 0.9, 120)
    found = [calibration_error(probabilities, rng.random(120) < probabilities) for _ in range(500)]
    assert error_of_true(probabilities) == pytest.approx(np.mean(found), rel=0.1)
    assert error_of_true(np.repeat(probabilities, 100)) < error_of_true(probabilities) / 5


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "MTCoOp", "LinearProbe"])
def test_a_run_fits_temperatures_for_its_probabilities_alone(trainer, photo_root, backbone, tmp_path):
    options = {"OPTIM.MAX_EPOCH": 1} if trainer == "MTCoOp" else {}
    for name, own in (("plain", {"TEST.SAVE_PREDICTIONS": True}), ("calibrated", CALIBRATE)):
        call(train_args(photo_root, backbone, tmp_path / name, trainer, **options, **own))
    plain, found = (results(tmp_path / name) for name in ("plain", "calibrated"))
    assert found["tasks"] == plain["tasks"] and plain["validation"] is None
    temperatures = found["validation"]["temperatures"]
    assert len(temperatures) == len(found["tasks"]) and min(temperatures) > 0
    figures = json.loads((tmp_path / "calibrated" / "metrics.json").read_text())["tasks"]
    before = json.loads((tmp_path / "plain" / "metrics.json").read_text())["tasks"]
    for task, other, temperature in zip(figures, before, temperatures):
        assert task["uncalibrated_error"] == pytest.approx(other["expected_calibration_error"], abs=1e-3)
        assert task["temperature"] == pytest.approx(temperature)
    # what a user gets of the run has the probabilities that were tested
    classifier = load_classifier(tmp_path / "calibrated")
    logits = load_classifier(tmp_path / "plain").logits
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    divided = logits(pixels).split(classifier.sizes, dim=1)
    for own, temperature, expected in zip(divided, temperatures, classifier.probabilities(pixels)):
        torch.testing.assert_close((own / temperature).double().softmax(dim=1), expected, atol=1e-5, rtol=0)
    assert any(a.probability != b.probability for a, b in zip(
        *(read_predictions(tmp_path / name) for name in ("plain", "calibrated"))))


def test_another_epoch_than_the_tested_has_no_temperature(photo_root, backbone, tmp_path):
    call(train_args(photo_root, backbone, tmp_path / "run", "MTCoOp", **CALIBRATE, **{"TRAIN.CHECKPOINT_FREQ": 1}))
    assert load_classifier(tmp_path / "run").temperatures.unique().numel() > 1
    assert load_classifier(tmp_path / "run", "1").temperatures.unique().tolist() == [1.0]


def test_what_is_tested_is_not_what_temperatures_are_fitted_on(photo_root, backbone, tmp_path):
    with pytest.raises(UserError, match="TEST.SPLIT val tests on them"):
        call(train_args(photo_root, backbone, tmp_path / "run", "ZeroshotCLIP",
                        **{"TEST.CALIBRATE": True, "TEST.SPLIT": "val"}))
