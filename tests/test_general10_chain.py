"""RN50 of full size on a miniature General-10, from training to tables, offline.

The weights are random, in the file that OpenAI's would be in: `~/.cache/clip/RN50.pt`.
"""

import os

import open_clip
import pytest
import torch

import parse_test_res
from clip import files
from tests.commands import execute, make_calls, make_recorder, recorded_calls
from tests.helpers import results
from tests.miniature import make_small_general

pytestmark = pytest.mark.usefixtures("few_classes")

NATA = "general10 rn50_ep50 1 0 False 4 False 16 False lin 1"
N_CLASSES = 2  # of each member


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder with random weights of RN50 as a state dict in OpenAI's layout, fp16."""
    home = tmp_path_factory.mktemp("home")
    (home / ".cache" / "clip").mkdir(parents=True)
    torch.manual_seed(0)
    model = open_clip.create_model("RN50", pretrained=None)
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    weights = home / ".cache" / "clip" / "RN50.pt"
    torch.save(state, weights)
    yield home
    weights.unlink()  # 200 MB


@pytest.mark.filterwarnings("ignore:.*is used although its SHA-256")
def test_from_training_to_tables(home, tmp_path, monkeypatch, capsys):
    make_small_general(tmp_path / "data", N_CLASSES)
    options = "OPTIM.MAX_EPOCH 1 DATALOADER.NUM_WORKERS 0 DATALOADER.TEST.BATCH_SIZE 4"
    place = {**os.environ, **make_recorder(tmp_path), "DATA": str(tmp_path / "data"), "SEEDS": "1", "OPTS": options,
             "OUTPUT": str(tmp_path / "output")}
    monkeypatch.setenv("HOME", str(home))

    def no_network(*args):
        raise AssertionError("nothing is to be downloaded")

    monkeypatch.setattr(files, "_fetch", no_network)

    # train; a file of weights that is there is used, with a warning since its checksum is not that of OpenAI's
    with pytest.warns(UserWarning, match="RN50.pt is used although its SHA-256 is not the published"):
        folder, = execute(f"sh main_mtcoop.sh {NATA}", place, monkeypatch)
    trained = results(folder)
    assert (trained["backbone"], trained["n_tasks"], trained["n_classes"]) == ("RN50", 10, 20)
    assert trained["n_params"] == 4 * 512 + 1024 * 16 * 512 and trained["n_train"] == 20

    # test alone: the same figures
    call, = recorded_calls(f"sh main_mtcoop.sh {NATA}", {**place, "OUTPUT": str(tmp_path / "tested")})
    make_calls([["--eval-only", "--model-dir", str(folder), *call]], monkeypatch)
    tested, = (tmp_path / "tested").rglob("results.json")
    assert results(tested.parent)["tasks"] == trained["tasks"]

    # base to new, zero-shot, linear probe
    new = results(*execute(f"sh main_mtcoop_base2new_test.sh {NATA}", place, monkeypatch))
    assert (new["n_tasks"], new["n_classes"]) == (10, 10)
    assert new["overall_metric"] == 100  # a single class a task
    zero_shot = results(*execute("sh zeroshot.sh general10 rn50 all", place, monkeypatch))
    assert (zero_shot["n_classes"], zero_shot["n_params"]) == (20, 0)
    probes = execute("sh linearprob.sh general10 rn50 9", place, monkeypatch)
    assert len(probes) == 5
    assert {results(probe)["n_params"] for probe in probes} == {(1024 + 1) * 20}

    # one table of all
    capsys.readouterr()
    parse_test_res.main([str(tmp_path / "output"), "--side-by-side", "--format", "csv"])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.count(",") == 13 and len(rows) == 4 + 5  # trained, on base, on new classes, zero-shot; the probes
    row, = (row.split(",") for row in rows if row.startswith("MTCoOp"))
    assert [float(percent) for percent in row[1:11]] == [
        pytest.approx(task["metric"], abs=0.006) for task in trained["tasks"]]
