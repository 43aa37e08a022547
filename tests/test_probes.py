"""Probes and adapters of image features on suites: what a task learns in one is what it learns alone."""

import pytest
import torch

from common.errors import UserError
from tests.helpers import call, train_args

# What single runs learn exactly; in mixed batches of the others a task has its share.
ALONE = {"LPplusplus": {"OPTIM.MAX_EPOCH": 12, "OPTIM.LR": 1, "OPTIM.WARMUP_EPOCH": 0},
         "CrossModal": {"OPTIM.NAME": "adamw", "TRAINER.CROSSMODAL.STEPS": 7, "OPTIM.WARMUP_TYPE": "linear"}}


@pytest.mark.parametrize("name", ALONE)
def test_a_suite_learns_what_its_tasks_learn_alone(name, photo_root, backbone, tmp_path):
    def learned(place, *flags, **options):
        options = {"DATASET.SPLIT_DIR": tmp_path / "splits", "TEST.FINAL_MODEL": "last_step", **ALONE[name], **options,
                   "DATALOADER.VIEWS": 1}
        trainer = call(train_args(photo_root, backbone, tmp_path / place, name, *flags, **options))
        node = trainer.model.classifier
        return trainer, {key: value for key, value in node.state_dict().items()}

    suite, values = learned("suite")
    assert len(suite.tasks) > 1
    for number, task in enumerate(suite.tasks):
        own = suite.model.task_of_class == number
        alone = learned(f"task{number}", **{"DATASET.SUBSAMPLE_TASKS": f"task{number}"})[1]
        for key, value in alone.items():
            rows = values[key][..., own] if key == "rates" else values[key][own]
            torch.testing.assert_close(rows, value, rtol=1e-4, atol=1e-5)


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
