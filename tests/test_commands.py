"""How methods are run: every row of the table and every script as `tests/data/calls.txt` has it.

Its lines are `ROW on DATASET | arguments of train.py` and `sh COMMAND | arguments of train.py`.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from runs.commands import calls_of_rows
from runs.config import build_parser, setup_cfg
from runs.methods import ROWS
from tests.commands import VARIABLES, labelled_calls, make_recorder, recorded_calls
from tests.conftest import DATA
from tests.helpers import REPOSITORY, hear_ctrl_c
from trainers.__main__ import run_calls

STORED = [line.split(" | ") for line in (DATA / "calls.txt").read_text().splitlines()]
SCRIPTS = [(what, call) for what, call in STORED if what.startswith("sh ")]
ROW_RUNS = [(what, call) for what, call in STORED if not what.startswith("sh ")]


def meaning(call):
    """What a call of `train.py` asks for: its settings, and the model that it tests."""
    args = build_parser().parse_args(call)
    return setup_cfg(args).dump(), args.eval_only, args.model_dir


def test_rows_are_run_as_stored():
    """The published rows; those of further methods differ from `method.sh`'s in nothing but the trainer."""
    stored, made = {what.split(" on ")[0] for what, _ in ROW_RUNS}, []
    labels = sorted(stored, key=lambda label: ROWS[label].order)
    for dataset, cfg, shots, seeds in (("outfits16", "tiny_ep50", "1", "12"), ("general10", "rn50_ep50", "2", "3")):
        settings = SimpleNamespace(root="data", output="output", methods=labels, shots=[shots], seeds=[*seeds], opts=[])
        made += [(f"{label} on {dataset}", call) for label, call in calls_of_rows(settings, dataset, cfg)]
    assert [what for what, _ in made] == [what for what, _ in ROW_RUNS]
    for (what, call), (_, stored) in zip(made, ROW_RUNS):
        assert meaning(call) == meaning(shlex.split(stored)), what


@pytest.mark.parametrize("command, stored", SCRIPTS)
def test_scripts_run_as_stored(command, stored, tmp_path):
    stored = shlex.split(stored)
    if "--model-dir" in stored:  # a run that was trained
        at = stored.index("--model-dir") + 1
        stored[at] = str(tmp_path / stored[at])
        os.makedirs(stored[at])
        open(f"{stored[at]}/results.json", "w").close()
    stored[stored.index("--output-dir") + 1] = str(tmp_path / stored[stored.index("--output-dir") + 1])
    env = {**os.environ, **make_recorder(tmp_path), "DATA": "data", "OUTPUT": str(tmp_path / "output"), "SEEDS": "3",
           "SHOTS": "1", "OPTS": "OPTIM.MAX_EPOCH 7"}
    ((label, call),), _ = labelled_calls(command, env)
    assert label == "" and meaning(call) == meaning(stored)


def test_variables_that_are_not_set_have_their_defaults(tmp_path):
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    calls = recorded_calls("sh linearprob.sh plant6 rn50 all", {**env, **make_recorder(tmp_path)})
    assert [call[3] for call in calls] == [f"output/plant6/LP/rn50/{shots}shots/seed{seed}"
                                           for shots in (1, 2, 4, 8, 16) for seed in (1, 2, 3)]
    assert {call[1] for call in calls} == {"data"}
    exported = (tmp_path / "record").read_text().split("\001")[:len(VARIABLES)]
    assert exported == ["data", "output", "1 2 3", "1 2 4 8 16", "", ""]


def folder_names(label, cfg, opts):
    settings = SimpleNamespace(root="data", output="output", methods=[label], shots=["2"], seeds=["1"], opts=opts)
    (_, call), = calls_of_rows(settings, "outfits16", cfg)
    return call[call.index("--output-dir") + 1].removeprefix("output/outfits16/"), call


@pytest.mark.parametrize("label, cfg, backbone, folder", [
    ("KgCoOp", "rn50_ep50", "RN101", "KgCoOp/rn101_ep50_2shots/seed1"),
    ("KgCoOp", "ep50", "open_clip:ViT-B-32/laion2b", "KgCoOp/vit_b_32_laion2b_ep50_2shots/seed1"),
    ("KgCoOp", "mine", "hf-hub:org/My.CLIP", "KgCoOp/org_my.clip_mine_2shots/seed1"),
    ("KgCoOp", "vit_b16_ep50", "{}/my-clip.pt", "KgCoOp/my_clip_ep50_2shots/seed1"),
    ("KgCoOp", "vit_b16_ep50", "{}", "KgCoOp/a_model.v1_ep50_2shots/seed1"),
    ("KgCoOp", "vit_b16_ep50", "local-dir:{}/", "KgCoOp/a_model.v1_ep50_2shots/seed1"),
    ("CoOp-MT", "rn50_ep50", "ViT-B/32", "MTCoOpHard/vit_b_32_ep50_2shots/nctx16_cscFalse_tscFalse/seed1"),
    ("ZS-CLIP", "rn50_ep50", "ViT-B/32", "ZeroshotCLIP/vit_b_32/all"),
    ("LP-CLIP", "rn50", "ViT-B/32", "LP/vit_b_32/2shots/seed1")])
def test_a_run_is_filed_under_the_backbone_that_is_set(label, cfg, backbone, folder, tmp_path):
    model = tmp_path / "A model.v1"
    model.mkdir()
    (model / "my-clip.pt").touch()
    plain, before = folder_names(label, cfg, [])
    found, call = folder_names(label, cfg, ["MODEL.BACKBONE.NAME", "RN50x4", "MODEL.BACKBONE.NAME",
                                            backbone.format(model)])
    assert found == folder != plain
    assert call[call.index("--config-file") + 1] == before[before.index("--config-file") + 1]
    assert folder_names(label, cfg, ["OPTIM.LR", "0.1"])[0] == plain


def test_every_script_is_stored():
    ours = {path.name for path in (REPOSITORY / "scripts").glob("*.sh")}
    assert {what.split()[1] for what, _ in SCRIPTS} == ours - {"all_methods.sh", "demo.sh", "set_env.sh"}


def test_the_first_error_ends_all(capfd, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(REPOSITORY)
    words = (("A", "here", "--help"), ("B", "x", "--nix"), ("B", "y", "--help"))
    with pytest.raises(SystemExit) as ended:
        run_calls([(label, ["--output-dir", folder, flag]) for label, folder, flag in words])
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith(("==", "Running"))]
    assert ended.value.code == 2 and said == ["== A", "Running here", "== B", "Running x"]


def test_a_table_goes_on_after_a_failed_run_but_not_after_a_stop(capfd, monkeypatch):
    def made(*statuses):
        left = iter(statuses)
        monkeypatch.setattr("subprocess.Popen", lambda command: SimpleNamespace(wait=lambda: next(left)))
        with pytest.raises(SystemExit) as ended:
            run_calls([("", ["--output-dir", name]) for name in "abc"], go_on=True)
        return ended.value.code, *capfd.readouterr()

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert made(1, 0, 1) == (1, "Running a\nRunning b\nRunning c\n", "failed: a\nfailed: c\n")
    assert made(1, 143) == (143, "Running a\nRunning b\n", "")


@pytest.mark.parametrize("number, status, said", [(signal.SIGINT, 130, "interrupted; the same"),
                                                  (signal.SIGTERM, 143, "stopped by SIGTERM")])
def test_a_signal_ends_the_run_and_those_after_it(number, status, said, tmp_path):
    """SIGTERM comes to the script's process alone, Ctrl-C to all of its group."""
    env = {**os.environ, "PYTHON": sys.executable, "DATA": str(tmp_path / "data"), "OUTPUT": str(tmp_path / "output"),
           "SEEDS": "1 2", "OPTS": "OPTIM.MAX_EPOCH 100000 DATALOADER.VIEWS 1 TRAIN.RESUME_SECONDS 0"}
    process = subprocess.Popen(
        ["sh", *"main_mtcoop_hard.sh outfits16 tiny_ep50 1 16 False False".split()], cwd=REPOSITORY / "scripts",
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=hear_ctrl_c)
    deadline = time.time() + 200
    # not below data, where folders are renamed meanwhile
    while not list((tmp_path / "output").rglob("resume.pth.tar")) and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert process.returncode == status and said in err and "Traceback" not in err, err
    assert "seed1" in out and "seed2" not in out
