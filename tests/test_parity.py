"""Agreement with the published implementation, on a small copy of its stored numbers."""

import json

import numpy as np
import pytest

from tests import parity


def cases():
    from tests.conftest import DATA
    return list(json.loads((DATA / "parity" / "cases.json").read_text())["cases"])


@pytest.mark.parametrize("name", cases())
def test_case_agrees(parity_folder, name, capsys):
    assert parity.main([str(parity_folder), "--case", name]) == 0, capsys.readouterr().out


def test_float32_is_tight_before_training(parity_folder):
    suite = json.loads((parity_folder / "cases.json").read_text())
    for name in ("vit_soft_nata", "vit_soft_csts", "vit_hard_per_task"):
        errors = parity.check_float32(str(parity_folder), suite, name)
        assert max(errors.values()) < 1e-5 and errors["float32 epoch_lrs"] < 1e-9
        assert ("float32 loaded logits" in errors) == (name == "vit_hard_per_task")


def changed_copy(folder, target, name, **factors):
    """Links to the stored numbers, but for a file of arrays, of which some are multiplied, or (None) left out."""
    for entry in folder.iterdir():
        (target / entry.name).symlink_to(entry.resolve())
    (target / name).unlink()
    stored = dict(np.load(folder / name))
    for key, factor in factors.items():
        if factor is None:
            del stored[key]
        else:
            stored[key] = stored[key] * factor
    np.savez(target / name, **stored)


@pytest.mark.parametrize("changes", [{"losses": [1, 1, 1, 1, 1 + 1e-8, 1]}, {"final/prompt_learner.ctx": 1 + 1e-8},
                                     {"image_features": 1.001}])
def test_a_wrong_number_fails(changes, parity_folder, tmp_path, capsys):
    changed_copy(parity_folder, tmp_path, "vit_hard_shared.npz", **changes)
    assert parity.main([str(tmp_path), "--case", "vit_hard_shared"]) == 1
    out = capsys.readouterr().out
    assert "FAIL vit_hard_shared" in out and "0 of 1 cases agree to 1e-09\n" in out


def test_float32_numbers_are_no_check_of_training(parity_folder, tmp_path, capsys):
    """A folder without image features, whose numbers are float32: training is not looked at, which is said."""
    (tmp_path / "first").mkdir(), (tmp_path / "second").mkdir()
    changed_copy(parity_folder, tmp_path / "first", "batches.npz", features_vit=None)
    changed_copy(tmp_path / "first", tmp_path / "second", "vit_hard_shared.npz", losses=2)
    assert parity.main([str(tmp_path / "second"), "--case", "vit_hard_shared"]) == 0
    assert "1 of 1 cases agree to 0.0002 in first logits, rates and loaded checkpoints only" in capsys.readouterr().out


def test_packed_weights_are_unpacked(capsys):
    """The command of the docs works on the folder as it lies in the repository."""
    from tests.conftest import DATA
    assert parity.main([str(DATA / "parity"), "--case", "vit_hard_shared"]) == 0
    assert capsys.readouterr().out.endswith("1 of 1 cases agree to 1e-09\n")
    assert parity.main([str(DATA / "parity" / "methods")]) == 0
    assert capsys.readouterr().out.endswith("4 of 4 cases agree to 1e-09\n")
