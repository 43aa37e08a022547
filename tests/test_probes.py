"""Probes and adapters of image features on suites: what a task learns in one is what it learns alone."""

import pytest
import torch

from common.digests import digest_of_state
from common.errors import UserError
from tests.helpers import call, call_until, train_args
from tests.parity import relative_error

# On six images of one task and four of the other, so that one has more batches in an epoch.
SHORT = {"OPTIM.MAX_EPOCH": 3, "DATALOADER.TRAIN_X.BATCH_SIZE": 2, "DATALOADER.VIEWS": 2,
         "TEST.FINAL_MODEL": "last_step"}
SGD = {"OPTIM.NAME": "sgd", "OPTIM.LR": 0.1, "OPTIM.WEIGHT_DECAY": 0.01}
ADAM = {"OPTIM.NAME": "adamw", "OPTIM.LR": 0.01, "OPTIM.WEIGHT_DECAY": 0.01}
FEW = {"VIEWS": 2, "SEARCH_STEP": (4, 3)}
ALONE = {
    "CrossModal": {**ADAM, "STEPS": 5, "OPTIM.WARMUP_TYPE": "linear"},
    "LPplusplus": {**SGD, "OPTIM.MAX_EPOCH": 10, "OPTIM.LR": 1, "OPTIM.WARMUP_EPOCH": 0},
    "ZSLP": SGD, "CLAP": {**SGD, "MULTIPLIERS": "adaptive"}, "CLIPAdapter": SGD,
    "TaskRes": {**ADAM, "OPTIM.NAME": "adam"}, "TipAdapter": FEW, "TipAdapterF": {**ADAM, **FEW},
    "APE": {**FEW, "SEARCH_STEP": (4, 3, 2)}, "APET": {**ADAM, **FEW},
    "TipAdapterFixed": SGD, "ProLIP": {"OPTIM.NAME": "adam", "OPTIM.LR": 0.001}}


@pytest.mark.parametrize("name", ALONE)
def test_a_suite_learns_what_its_tasks_learn_alone(name, photo_root, backbone, tmp_path):
    node = f"TRAINER.{name.upper()}"

    def trained(place, **options):
        options = {"DATASET.SPLIT_DIR": tmp_path / "splits", f"{node}.PREC": "fp64", "TEST.NO_TEST": True, **SHORT, **{
            key if "." in key else f"{node}.{key}": value for key, value in ALONE[name].items()}, **options}
        return call(train_args(photo_root, backbone, tmp_path / place, name, **options))

    @torch.no_grad()
    def logits(trainer, task):  # of the task's test images
        features, labels = trainer.features("test")
        rows, model = trainer.model.task_of_class[labels] == task, trainer.model
        found = model.logits(model.image_features(features[rows], labels[rows]), labels[rows], model.class_features())
        return found[:, model.task_of_class == task]

    suite = trained("suite")
    assert len({len(task.classnames) for task in suite.tasks}) == 2
    for number in range(2):
        alone = logits(trained(f"task{number}", **{"DATASET.SUBSAMPLE_TASKS": f"task{number}"}), 0)
        assert alone.std() > 1e-3 and relative_error(logits(suite, number), alone) < 1e-12


def test_each_task_has_its_own_schedule_and_goes_on_with_it_after_a_stop(photo_root, backbone, tmp_path, monkeypatch):
    arguments = [train_args(photo_root, backbone, tmp_path / place, "TipAdapterF", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", **SHORT, **ADAM, "TRAIN.RESUME_SECONDS": 0,
        "OPTIM.WARMUP_EPOCH": 0, "TRAINER.TIPADAPTERF.VIEWS": 2}) for place in ("whole", "stopped")]
    whole = call(arguments[0])
    assert [each.last_epoch for each in whole.scheduler.each] == [9, 6]  # 3 epochs of 3 and of 2 batches
    call_until(2, arguments[1], monkeypatch)
    resumed = call(arguments[1])
    assert torch.equal(whole.model.cache.keys, resumed.model.cache.keys)
    assert digest_of_state(whole.optimizer.state_dict()) == digest_of_state(resumed.optimizer.state_dict())


@pytest.mark.parametrize("name", ["TaskRes", "CLAP", "LPplusplus"])
def test_a_task_without_training_images_is_named(name, photo_root, backbone, tmp_path):
    trainer = call(train_args(photo_root, backbone, tmp_path / "run", name, "--no-train", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", **SHORT}))
    trainer.train_images.data_source[:] = [datum for datum in trainer.train_images.data_source if datum.label < 3]
    with pytest.raises(UserError, match=f"task 'lightness' has no training images, which {name} needs"):
        trainer.train()


def test_missing_validation_images_are_named_before_anything_is_encoded_or_learned(photo_root, backbone, tmp_path):
    trainer = call(train_args(photo_root, backbone, tmp_path / "run", "TipAdapterF", "--no-train", **{
        "DATASET.SPLIT_DIR": tmp_path / "splits", "TEST.FINAL_MODEL": "last_step"}))
    trainer.plain_images["val"].data_source.clear()
    with pytest.raises(UserError, match="has no validation images, which TipAdapterF needs"):
        trainer.train()
    assert trainer.encode.seconds == 0


def test_where_an_adapter_starts_follows_from_the_task(photo_root, backbone, tmp_path):
    def start(**options):
        trainer = call(train_args(photo_root, backbone, tmp_path / "run", "CLIPAdapter", "--no-train", **{
            "DATASET.SPLIT_DIR": tmp_path / "splits", **options}))
        trainer.prepare()
        return trainer.model.adapter.down

    suite, second = start(), start(**{"DATASET.SUBSAMPLE_TASKS": "task1"})
    assert torch.equal(suite[1], second[0]) and not torch.equal(suite[0], suite[1])
    assert suite.abs().max() <= suite.shape[2] ** -0.5 < 1.1 * suite.abs().max()
