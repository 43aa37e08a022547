"""What only a GPU can show; skipped without one. `python -m pytest -m gpu` runs these alone."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

import export
from learned import standalone
from tests import parity
from tests.helpers import REPOSITORY, call, call_until, results, train_args
from tests.test_precision import FEW_STEPS, NODES, learned
from trainers.multitask import MultiTaskTrainer
from trainers.progress import Progress
from trainers.step_graph import StepGraph

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
PRECISIONS = ("fp32", "fp16", "bf16", "amp", "fp64")
# Relative distances of what two runs learn that differ in the order of sums alone, since backward passes add with
# atomics on a GPU; steps of what has 8 or 11 bits let it grow in three epochs.
ROUNDING = {"fp32": 1e-3, "fp16": 4e-3, "bf16": 2e-2, "amp": 4e-3, "fp64": 1e-9}
PROMPTS = ("MTCoOp", "MTCoOpHard", "KgCoOp", "ProGrad", "TCP", "DePT")  # nothing in their epochs waits for the GPU


@pytest.fixture
def arguments(photo_root, backbone, tmp_path):
    def make(output, name, prec="fp32", *extra, **options):
        return train_args(photo_root, backbone, tmp_path / output, name, *extra, **{
            f"TRAINER.{NODES[name]}.PREC": prec, "DATASET.SPLIT_DIR": tmp_path / "splits", "TRAIN.RESUME_SECONDS": 0,
            "OPTIM.STEP_PER_PART": False, **FEW_STEPS.get(name, {}), **options})
    return make


@pytest.mark.parametrize("fixture", ["parity_folder", "methods_folder"])
def test_parity_on_the_gpu(fixture, request, capsys, monkeypatch):
    monkeypatch.setattr(parity, "USE_CUDA", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert parity.main([str(request.getfixturevalue(fixture))]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", NODES)
def test_every_precision_goes_where_fp32_on_the_cpu_goes(name, arguments, tmp_path, monkeypatch):
    cpu = {"USE_CUDA": False}
    start = learned(call(arguments("start", name, "fp32", "--no-train", **cpu)))
    moved = learned(call(arguments("cpu", name, "fp32", **cpu))) - start
    for prec in PRECISIONS:
        if prec == "amp":  # with the usual scale the first steps may be skipped
            monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**8))
        trainer = call(arguments(prec, name, prec))
        assert trainer.device.type == "cuda" and results(tmp_path / prec)["precision"] == prec
        difference = float((learned(trainer).cpu() - start - moved).norm() / moved.norm())
        assert difference < {"bf16": 0.5, "fp16": 0.15, "amp": 0.15}.get(prec, 0.05), (prec, difference)


@pytest.mark.parametrize("prec", PRECISIONS)
@pytest.mark.parametrize("name", NODES)
def test_a_stopped_run_goes_on(name, prec, arguments, monkeypatch):
    calm = learned(call(arguments("calm", name, prec)))
    call_until(2, arguments("stopped", name, prec), monkeypatch)
    resumed = learned(call(arguments("stopped", name, prec)))
    assert float((resumed - calm).norm() / calm.norm()) < ROUNDING[prec]


@pytest.mark.parametrize("prec", PRECISIONS)
@pytest.mark.parametrize("name", NODES)
def test_a_graph_learns_what_single_kernels_learn(name, prec, arguments, monkeypatch):
    captured, capture = [], StepGraph.capture
    monkeypatch.setattr(StepGraph, "capture", lambda *args: (captured.append(1), capture(*args))[1])
    single = call(arguments("single", name, prec, **{"MODEL.CUDA_GRAPH": False}))
    assert not captured
    if not single.fixed_steps:
        pytest.skip("its steps are no graph")
    by_graph = call(arguments("graph", name, prec, **{"MODEL.CUDA_GRAPH": True}))
    assert len(captured) == 1
    expected = learned(single)
    assert float((learned(by_graph) - expected).norm() / expected.norm()) < ROUNDING[prec]


@pytest.mark.parametrize("prec", ["fp32", "fp16"])
@pytest.mark.parametrize("name", PROMPTS)
def test_an_epoch_waits_for_nothing(name, prec, arguments, monkeypatch):
    step, end_epoch = MultiTaskTrainer.step, MultiTaskTrainer.end_epoch
    taken = []

    def watched(self, *batch):
        taken.append(1)
        if len(taken) == 4:  # of three steps the graph is made
            torch.cuda.set_sync_debug_mode("error")
        return step(self, *batch)

    def unwatched(self):
        torch.cuda.set_sync_debug_mode("default")
        end_epoch(self)

    monkeypatch.setattr(MultiTaskTrainer, "step", watched)
    monkeypatch.setattr(MultiTaskTrainer, "end_epoch", unwatched)
    monkeypatch.setattr(Progress, "_read", lambda self, epoch: self.steps.clear())
    try:
        call(arguments("run", name, prec, **{"DATALOADER.TRAIN_X.BATCH_SIZE": 2, "OPTIM.MAX_EPOCH": 2}))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(taken) == 10


@pytest.mark.parametrize("name", ["MTCoOp", "PLOT"])
def test_a_killed_process_goes_on(name, arguments, tmp_path):
    command = [sys.executable, "train.py", *arguments("run", name, "fp16", **{"OPTIM.MAX_EPOCH": 200})]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (tmp_path / "run" / "resume.pth.tar").exists() and time.time() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "Resuming from" in done.stdout
    assert results(tmp_path / "run")["train_seconds"] > 0


@pytest.mark.parametrize("prec", PRECISIONS)
def test_features_are_the_same_with_and_without_cache(prec, arguments, tmp_path):
    kept = {"DATALOADER.FEATURE_CACHE_DIR": tmp_path / "features"}
    for output, options in (("off", {"DATALOADER.FEATURE_CACHE": False}), ("made", kept), ("found", kept)):
        trainer = call(arguments(output, "MTCoOpHard", prec, **options))
        features = trainer.encode(trainer.plain_images["test"]).cpu()
        if output == "off":
            expected = features
        assert torch.equal(features, expected), output


def test_memory_is_the_gpus(arguments, tmp_path):
    call(arguments("run", "MTCoOp", "fp16"))
    written = results(tmp_path / "run")
    assert written["device"] == "cuda" and 0 < written["peak_memory_mb"] < torch.cuda.mem_get_info()[1] / 2**20


def test_an_exported_classifier_computes_there(arguments, tmp_path):
    call(arguments("run", "MTCoOp"))
    export.main([str(tmp_path / "run"), str(tmp_path / "out"), "--torch"])
    pixels = np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32)
    before = torch.cuda.memory_allocated()
    by_torch = standalone.Classifier(tmp_path / "out", torch=True)
    assert torch.cuda.memory_allocated() > before
    expected = standalone.Classifier(tmp_path / "out").logits(pixels)
    np.testing.assert_allclose(by_torch.logits(pixels), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
