"""The names that code written for Dassl imports; learning rates, optimizers, checkpoints and small services."""

import importlib
import io
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dassl.config import clean_cfg, get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.lr_scheduler import ConstantWarmupScheduler
from dassl.optim.radam import RAdam
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
    check_isfile,
    collect_env_info,
    count_num_param,
    listdir_nohidden,
    load_checkpoint,
    load_pretrained_weights,
    mkdir_if_missing,
    read_json,
    resume_from_checkpoint,
    save_checkpoint,
    setup_logger,
    write_json,
)

PROMISE = {
    "dassl.config": "get_cfg_default clean_cfg",
    "dassl.data": "DatasetWrapper",
    "dassl.data.datasets": "DATASET_REGISTRY Datum DatasetBase",
    "dassl.data.transforms": "build_transform",
    "dassl.engine": "TRAINER_REGISTRY build_trainer TrainerX SimpleTrainer",
    "dassl.engine.trainer": "TrainerX AverageMeter MetricMeter SummaryWriter",
    "dassl.evaluation": "build_evaluator",
    "dassl.metrics": "compute_accuracy",
    "dassl.optim": "build_optimizer build_lr_scheduler",
    "dassl.optim.radam": "RAdam",
    "dassl.utils": "setup_logger set_random_seed collect_env_info mkdir_if_missing listdir_nohidden read_json "
                   "write_json load_checkpoint load_pretrained_weights check_isfile AverageMeter MetricMeter",
}


@pytest.mark.parametrize("module", PROMISE)
def test_promised_names(module):
    for name in PROMISE[module].split():
        assert hasattr(importlib.import_module(module), name), name


# ------------------------------------------------------------------ rates and optimizers
FIXTURE = json.loads((Path(__file__).parent / "data" / "epoch_lrs.json").read_text())


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_rates_match_the_published_ones(steps):
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "sgd", "LR", 0.002, "MAX_EPOCH", 50, "LR_SCHEDULER", "cosine"])
    cfg.merge_from_list(["WARMUP_EPOCH", 1, "WARMUP_TYPE", "constant"])

    def make():
        optim = build_optimizer([nn.Parameter(torch.zeros(2))], cfg)
        return optim, build_lr_scheduler(optim, cfg)

    optim, sched = make()
    rates = []
    for epoch in range(50):
        rates.append(optim.param_groups[0]["lr"])
        optim.step()
        for _ in range(steps):
            sched.step()
        if epoch in (0, 20):  # a round trip through a file changes nothing
            buffer = io.BytesIO()
            torch.save((optim.state_dict(), sched.state_dict()), buffer)
            buffer.seek(0)
            optim_state, sched_state = torch.load(buffer, weights_only=True)
            optim, sched = make()
            optim.load_state_dict(optim_state)
            sched.load_state_dict(sched_state)
            assert sched.state_dict() == sched_state
    np.testing.assert_allclose(rates, FIXTURE[f"steps_per_epoch_{steps}"], rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize(
    "options, expected",
    [
        (["LR_SCHEDULER", "single_step", "STEPSIZE", (2,)], [1, 1, 0.1, 0.1, 0.01]),
        (["LR_SCHEDULER", "single_step", "MAX_EPOCH", 4], [1, 1, 1, 1, 0.1]),
        (["LR_SCHEDULER", "multi_step", "STEPSIZE", (1, 3)], [1, 0.1, 0.1, 0.01, 0.01]),
        (["WARMUP_EPOCH", 3, "STEPSIZE", (1,)], [1e-5, 1 / 3, 2 / 3, 1, 0.1]),
        (["WARMUP_EPOCH", 2, "STEPSIZE", (3,), "WARMUP_RECOUNT", False], [1e-5, 0.5, 1, 0.1, 0.1]),
    ],
)
def test_other_schedules(options, expected):
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "sgd", "LR", 1.0] + options)
    optim = build_optimizer(nn.Linear(1, 1), cfg)
    sched = build_lr_scheduler(optim, cfg)
    rates = []
    for _ in expected:
        rates.append(optim.param_groups[0]["lr"])
        optim.step()
        sched.step()
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_optimizers():
    cfg = get_cfg_default().OPTIM
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "classifier": nn.Linear(2, 3)})
    for name, cls in (("adam", "Adam"), ("amsgrad", "Adam"), ("radam", "RAdam"), ("rmsprop", "RMSprop")):
        cfg.NAME = name
        optim = build_optimizer(model, cfg)
        assert type(optim).__name__ == cls and optim.defaults.get("amsgrad", False) == (name == "amsgrad")
    cfg.merge_from_list(["NAME", "adamw", "STAGED_LR", True, "NEW_LAYERS", ("classifier",), "LR", 0.5])
    groups = build_optimizer(model, cfg).param_groups
    assert [(g["lr"], sum(p.numel() for p in g["params"])) for g in groups] == [(0.05, 6), (0.5, 9)]
    cfg.NAME = "sdg"
    with pytest.raises(ValueError, match="did you mean sgd[?]"):
        build_optimizer(model, cfg)


def test_radam_follows_the_published_rule():
    lr, decay, (beta1, beta2), eps = 0.1, 0.01, (0.9, 0.98), 1e-8
    p = nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.float64))
    optim = RAdam([p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay, degenerated_to_sgd=True)
    expected, m, v = p.detach().clone(), 0.0, 0.0
    longest = 2 / (1 - beta2) - 1
    for t in range(1, 12):
        p.grad = p.detach() ** 2 + t
        g = expected ** 2 + t
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        length = longest - 2 * t * beta2**t / (1 - beta2**t)  # of the moving average
        step = m / (1 - beta1**t)
        if length >= 5:
            trust = (length - 4) / (longest - 4) * (length - 2) / (longest - 2) * longest / length
            step = step * np.sqrt(trust * (1 - beta2**t)) / (v.sqrt() + eps)
        expected = expected * (1 - lr * decay) - lr * step
        optim.step()
        torch.testing.assert_close(p.detach(), expected)
    with pytest.raises(ValueError, match="degenerated_to_sgd"):
        RAdam([p], degenerated_to_sgd=False)


# ------------------------------------------------------------------ checkpoints
def published_state(scheduler):
    """A checkpoint as upstream wrote them: the scheduler is live, or its dict has a live successor."""
    model = nn.Linear(2, 2)
    optim = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 50.0)
    warmup = ConstantWarmupScheduler(optim, cosine, 1, 1e-5)
    for _ in range(3):
        model(torch.ones(1, 2)).sum().backward()
        optim.step()
        warmup.step()
    state = {k: v for k, v in vars(warmup).items() if k != "optimizer"} if scheduler == "dict" else warmup
    return {"state_dict": model.state_dict(), "epoch": 3, "optimizer": optim.state_dict(), "scheduler": state}


@pytest.mark.parametrize("scheduler", ["dict", "object"])
def test_published_checkpoint_with_pickled_scheduler_loads_and_resumes(tmp_path, scheduler):
    state = published_state(scheduler)
    torch.save(state, tmp_path / "model.pth.tar-3")
    (tmp_path / "checkpoint").write_text("model.pth.tar-3\n")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model.pth.tar-3", weights_only=True)
    checkpoint = load_checkpoint(str(tmp_path / "model.pth.tar-3"))
    assert checkpoint["scheduler"]["successor"]["last_epoch"] == 2
    assert "optimizer" not in checkpoint["scheduler"]

    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "sgd", "LR", 0.002, "MAX_EPOCH", 50, "LR_SCHEDULER", "cosine"])
    cfg.merge_from_list(["WARMUP_EPOCH", 1, "WARMUP_TYPE", "constant"])
    model = nn.Linear(2, 2)
    optim = build_optimizer(model, cfg)
    sched = build_lr_scheduler(optim, cfg)
    assert resume_from_checkpoint(str(tmp_path), model, optim, sched) == 3
    assert torch.equal(model.weight, state["state_dict"]["weight"])
    assert optim.param_groups[0]["lr"] == FIXTURE["steps_per_epoch_1"][3]
    optim.step()
    sched.step()
    assert optim.param_groups[0]["lr"] == pytest.approx(FIXTURE["steps_per_epoch_1"][4], rel=1e-12)


class Command:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


class Arbitrary:
    pass


@pytest.mark.parametrize("where", ["scheduler", "state_dict"])
def test_checkpoint_with_other_objects_is_refused(tmp_path, where):
    path, trap = str(tmp_path / "model.pth.tar-1"), tmp_path / "made"
    for payload in (Command(str(trap)), Arbitrary(), os.system, nn.Linear(1, 1)):
        torch.save({"state_dict": {}, "epoch": 1, "optimizer": None, "scheduler": None, where: payload}, path)
        with pytest.raises(ValueError, match=r"model.pth.tar-1\" was refused \(.+\): "):
            load_checkpoint(path)
    assert not trap.exists()


def test_pickled_scheduler_cannot_carry_other_objects(tmp_path):
    state = published_state("object")
    state["scheduler"].successor.extra = Command(str(tmp_path / "made"))
    torch.save(state, tmp_path / "model.pth.tar-3")
    with pytest.raises(ValueError, match="refused"):
        load_checkpoint(str(tmp_path / "model.pth.tar-3"))
    assert not (tmp_path / "made").exists()


def test_damaged_and_missing_checkpoints(tmp_path):
    path = tmp_path / "model.pth.tar-1"
    with pytest.raises(FileNotFoundError, match="model.pth.tar-1"):
        load_checkpoint(str(path))
    torch.save({"state_dict": {"w": torch.ones(100)}}, path)
    whole = path.read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.pth.tar-1.*damaged"):
            load_checkpoint(str(path))


def test_old_pytorch_is_not_the_files_fault(tmp_path, monkeypatch):
    torch.save({"epoch": 1}, tmp_path / "model.pth.tar-1")
    monkeypatch.delattr(torch.serialization, "safe_globals")
    with pytest.raises(AttributeError, match="safe_globals"):
        load_checkpoint(str(tmp_path / "model.pth.tar-1"))


def test_save_checkpoint_files(tmp_path, monkeypatch):
    state = {"state_dict": {"module.w": torch.ones(2)}, "epoch": 4, "optimizer": None, "scheduler": None}
    save_checkpoint(state, str(tmp_path / "new"), "model.pth.tar-4")
    assert sorted(os.listdir(tmp_path / "new")) == ["checkpoint", "model.pth.tar-4"]
    assert list(load_checkpoint(str(tmp_path / "new" / "model.pth.tar-4"))["state_dict"]) == ["w"]
    assert list(state["state_dict"]) == ["module.w"]  # the caller's dict is left alone

    def full_disk(*args):
        Path(args[1]).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError):
        save_checkpoint({**state, "epoch": 5}, str(tmp_path / "new"), "model.pth.tar-5")
    assert sorted(os.listdir(tmp_path / "new")) == ["checkpoint", "model.pth.tar-4"]
    assert (tmp_path / "new" / "checkpoint").read_text() == "model.pth.tar-4\n"


def test_load_pretrained_weights_takes_what_fits(tmp_path, capsys):
    model = nn.Linear(2, 3)
    before = model.bias.detach().clone()
    torch.save({"state_dict": {"module.weight": torch.ones(3, 2), "bias": torch.ones(7)}}, tmp_path / "w.pth")
    load_pretrained_weights(model, str(tmp_path / "w.pth"))
    assert model.weight.eq(1).all() and torch.equal(model.bias, before)
    assert "['bias']" in capsys.readouterr().out
    torch.save({"other": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.warns(UserWarning, match="no layer matches"):
        load_pretrained_weights(model, str(tmp_path / "w.pth"))


# ------------------------------------------------------------------ small services
def test_config():
    cfg = get_cfg_default()
    assert (cfg.OPTIM.LR, cfg.DATASET.NUM_SHOTS, cfg.TEST.FINAL_MODEL) == (0.0003, -1, "last_step")
    cfg.OPTIM.LR = 1.0
    assert get_cfg_default().OPTIM.LR == 0.0003  # a copy
    cfg.TRAINER.COOP, cfg.TRAINER.OTHER = cfg.OPTIM.clone(), cfg.OPTIM.clone()
    clean_cfg(cfg, "CoOp")
    assert set(cfg.TRAINER) == {"NAME", "COOP"}


def test_logger_appends_replaces_and_restores(tmp_path, capsys):
    console = sys.stdout
    first = setup_logger(str(tmp_path))
    print("one")
    assert (tmp_path / "log.txt").read_text() == "one\n"  # flushed at once
    with setup_logger(str(tmp_path)) as second:  # does not nest
        print("two", flush=True)
        print("aside", file=sys.stderr)
        assert second.console is console and first.file.closed
    assert sys.stdout is console
    print("three")
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"
    assert capsys.readouterr() == ("one\ntwo\nthree\n", "aside\n")
    setup_logger(str(tmp_path / "other.txt")).close()
    assert (tmp_path / "other.txt").exists() and setup_logger(None) is None


def test_registry():
    registry = Registry("THING")

    @registry.register()
    class Thing:
        pass

    assert registry.get("Thing") is Thing and registry.registered_names() == ["Thing"]
    with pytest.raises(ValueError, match="already registered as THING"):
        registry.register(Thing)
    with pytest.raises(ValueError, match="THING is 'Think', but must be one of Thing: did you mean Thing?"):
        registry.get("Think")


def test_meters():
    meter, ema, losses = AverageMeter(), AverageMeter(ema=True), MetricMeter()
    meter.update(1.0)
    meter.update(4.0, n=2)
    ema.update(torch.tensor([10.0]))
    assert (meter.val, meter.avg, ema.avg) == (4.0, 3.0, 1.0)
    losses.update({"loss": torch.tensor(1.0), "acc": 50})
    losses.update({"loss": 2.0})
    assert str(losses) == "loss 2.0000 (1.5000) acc 50.0000 (50.0000)"
    with pytest.raises(TypeError, match="dict"):
        losses.update(3.0)


def test_json(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json({"a": [1]}, str(path))
    assert read_json(str(path)) == {"a": [1]}
    with pytest.raises(TypeError):
        write_json({"a": object()}, str(path))
    assert os.listdir(path.parent) == ["a.json"] and read_json(str(path)) == {"a": [1]}
    for text in ("{", "[" * 100_000 + "]" * 100_000):
        path.write_text(text)
        with pytest.raises(ValueError, match="a.json.*not valid JSON"):
            read_json(str(path))


def test_files_and_environment(tmp_path):
    for name in ("b", ".hidden", "a"):
        mkdir_if_missing(str(tmp_path / name))
    mkdir_if_missing(str(tmp_path / "a"))
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "b"] == sorted(listdir_nohidden(str(tmp_path)))
    with pytest.warns(UserWarning, match="No file found"):
        assert not check_isfile(str(tmp_path / "a"))
    assert check_isfile(__file__) and torch.__version__ in collect_env_info()
    assert count_num_param(nn.Linear(2, 3)) == 9
