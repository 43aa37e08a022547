"""Further methods against stored numbers of their published code, as `python -m tests.parity tests/data/parity_new`."""

import json

import pytest

from runs.methods import TRAINERS
from tests.helpers import REPOSITORY
from tests.parity import TOLERANCE, unpack
from tests.parity_new import check_case

FOLDER = REPOSITORY / "tests" / "data" / "parity_new"
CASES = sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.json"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    unpack(FOLDER / "common", folder)
    return str(folder / "clip_vit.pt")


@pytest.mark.parametrize("name", CASES)
def test_method_agrees_with_published_numbers(name, weights):
    errors = check_case(FOLDER, name, weights)
    assert errors and {quantity: error for quantity, error in errors.items() if error > TOLERANCE} == {}


@pytest.mark.parametrize("folder, method", [("taskres", "TaskRes"), ("clip_adapter", "CLIPAdapter"), ("clap", "ZSLP"),
                                            ("clap", "CLAP"), ("dept", "DePT")])
def test_default_optimizers_are_those_of_the_published_code(folder, method):
    """A case brings its own optimizer, so the defaults need a test: AdamW decouples the decay from the gradient."""
    for path in FOLDER.glob(f"{folder}/*.json"):
        assert TRAINERS[method].optim["OPTIM.NAME"] == json.loads(path.read_text())["hyper"]["optimizer"]["NAME"]
