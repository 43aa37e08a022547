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


def test_first_numbers_are_tight(parity_folder):
    """Before rounding can grow, all agree far below the tolerance: first logits, and two steps' losses."""
    suite = json.loads((parity_folder / "cases.json").read_text())
    for name in ("vit_soft_nata", "vit_soft_csts"):
        errors, ours = parity.check_case(str(parity_folder), suite, name)
        stored = np.load(parity_folder / f"{name}.npz")
        assert errors["logits"] < 1e-5 and errors["rates of 50 epochs"] < 1e-9
        np.testing.assert_allclose(ours["losses"][:3], stored["losses"][:3], rtol=2e-5)


def test_a_wrong_number_fails(parity_folder, tmp_path, capsys):
    for entry in parity_folder.iterdir():
        (tmp_path / entry.name).symlink_to(entry.resolve())
    (tmp_path / "vit_hard_shared.npz").unlink()
    stored = dict(np.load(parity_folder / "vit_hard_shared.npz"))
    stored["losses"][4] *= 1.001
    np.savez(tmp_path / "vit_hard_shared.npz", **stored)
    assert parity.main([str(tmp_path), "--case", "vit_hard_shared"]) == 1
    assert "FAIL vit_hard_shared" in capsys.readouterr().out
