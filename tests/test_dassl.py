"""The toolbox, end to end on generated images, and part by part."""

import io
import json
import os
import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dassl.config import clean_cfg, get_cfg_default
from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.data.samplers import build_sampler
from dassl.data.transforms import AVAI_CHOICES, build_transform
from dassl.data.transforms.transforms import Cutout, InstanceNormalization
from dassl.engine import TRAINER_REGISTRY, TrainerX, TrainerXU, build_trainer
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy, compute_distance_matrix
from dassl.modeling import build_backbone, build_head
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.optim.lr_scheduler import ConstantWarmupScheduler
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
    count_num_param,
    load_checkpoint,
    load_pretrained_weights,
    open_specified_layers,
    read_image,
    read_json,
    resume_from_checkpoint,
    save_checkpoint,
    set_random_seed,
    setup_logger,
    write_json,
)

LEVELS = (40, 120, 220)  # grey level of each class


@DATASET_REGISTRY.register()
class GreyLevels(DatasetBase):
    """Three classes of noisy grey images in two domains, written below DATASET.ROOT."""

    domains = ["left", "right"]

    def __init__(self, cfg):
        rng = np.random.default_rng(0)
        splits = {}
        for split, count in (("train", 8), ("val", 2), ("test", 4)):
            splits[split] = []
            for label, level in enumerate(LEVELS):
                for i in range(count):
                    path = os.path.join(cfg.DATASET.ROOT, f"{split}_{label}_{i}.png")
                    if not os.path.exists(path):
                        pixels = rng.normal(level, 15, (12, 12, 3)).clip(0, 255).astype(np.uint8)
                        Image.fromarray(pixels).save(path)
                    splits[split].append(Datum(path, label, i % 2, f"grey {level}"))
        train = self.generate_fewshot_dataset(splits["train"], num_shots=cfg.DATASET.NUM_SHOTS)
        val = None if cfg.DATASET.ALL_AS_UNLABELED else splits["val"]
        super().__init__(train_x=train, train_u=splits["test"], val=val, test=splits["test"])


class Toy(TrainerX):
    """Two parts, `body` and `head`, that share an optimizer and a scheduler; `frozen` has neither."""

    stop_at = None

    def build_model(self):
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6))
        self.head = nn.Linear(6, self.num_classes)
        self.frozen = nn.Linear(2, 2)
        params = [*self.body.parameters(), *self.head.parameters()]
        self.optim = build_optimizer(params, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("body", self.body, self.optim, self.sched)
        self.register_model("head", self.head, self.optim, self.sched)
        self.register_model("frozen", self.frozen)

    def before_epoch(self):
        if self.epoch == self.stop_at:
            raise KeyboardInterrupt

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        output = self.model_inference(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}

    def model_inference(self, input):
        return self.head(self.body(input))


TRAINER_REGISTRY.register(Toy)


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "images").mkdir()
    cfg = get_cfg_default()
    cfg.merge_from_list(
        ["OUTPUT_DIR", str(tmp_path / "run"), "DATASET.ROOT", str(tmp_path / "images")]
        + ["DATASET.NAME", "GreyLevels", "TRAINER.NAME", "Toy", "INPUT.SIZE", (8, 8)]
        + ["INPUT.TRANSFORMS", ("random_resized_crop", "random_flip", "normalize"), "USE_CUDA", False]
        + ["DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 6]
        + ["OPTIM.NAME", "sgd", "OPTIM.LR", 0.02]
        + ["OPTIM.MAX_EPOCH", 5, "OPTIM.LR_SCHEDULER", "cosine", "OPTIM.WARMUP_EPOCH", 1]
        + ["OPTIM.WARMUP_TYPE", "constant", "TRAIN.PRINT_FREQ", 2, "TRAIN.CHECKPOINT_FREQ", 1]
    )
    return cfg


# ------------------------------------------------------------------ training
def weights(trainer):
    return torch.cat([p.detach().flatten() for p in [*trainer.body.parameters(), *trainer.head.parameters()]])


def test_training_learns_and_its_checkpoints_load(cfg, capsys):
    set_random_seed(0)
    trainer = build_trainer(cfg)
    trainer.train()
    out = capsys.readouterr().out
    assert "epoch [5/5] batch [4/4] time" in out and "\nFinished training\n" in out
    assert out.index("Finished training") < out.index("=> result") < out.index("Elapsed: 0:00:")
    assert trainer.test() == 100.0
    run = Path(cfg.OUTPUT_DIR)
    assert (run / "body" / "checkpoint").read_text() == "model.pth.tar-5\n"
    assert not list(run.rglob("*.tmp")) and list((run / "tensorboard").iterdir())

    checkpoint = torch.load(run / "head" / "model.pth.tar-5", weights_only=True)  # no allow-list
    assert checkpoint["epoch"] == 5 and set(checkpoint["state_dict"]) == {"weight", "bias"}
    assert load_checkpoint(str(run / "frozen" / "model.pth.tar-5"))["optimizer"] is None

    set_random_seed(1)
    other = build_trainer(cfg)
    assert not torch.equal(weights(other), weights(trainer))
    other.load_model(cfg.OUTPUT_DIR, epoch=5)
    assert torch.equal(weights(other), weights(trainer))
    assert torch.equal(other.frozen.weight, trainer.frozen.weight)
    with pytest.raises(FileNotFoundError, match="body/model.pth.tar-9"):
        other.load_model(cfg.OUTPUT_DIR, epoch=9)
    with pytest.raises(FileNotFoundError, match="body/model-best.pth.tar"):
        other.load_model(cfg.OUTPUT_DIR)


def test_shared_optimizer_is_stepped_once_a_name(cfg):
    trainer = build_trainer(cfg)
    trainer.before_train()
    w, g = trainer.head.bias.detach().clone(), torch.ones(3)
    trainer.model_zero_grad()
    (trainer.head.bias.sum()).backward()
    lr, momentum, decay = trainer.get_current_lr(), cfg.OPTIM.MOMENTUM, cfg.OPTIM.WEIGHT_DECAY
    trainer.model_update()
    velocity = g + decay * w
    w = w - lr * velocity
    w = w - lr * (momentum * velocity + g + decay * w)
    torch.testing.assert_close(trainer.head.bias.detach(), w)
    trainer.update_lr()  # ends the warm-up, then steps the cosine once
    assert trainer.get_current_lr() == pytest.approx(0.02 * (1 + np.cos(np.pi / 5)) / 2, rel=1e-12)
    assert trainer.get_current_lr("head") == trainer.get_current_lr()
    trainer.close_writer()


@pytest.mark.parametrize("final_model", ["last_step", "best_val"])
def test_interrupted_training_resumes_bit_exactly(cfg, final_model, tmp_path, monkeypatch):
    cfg.TEST.FINAL_MODEL = final_model
    results = []
    for name, stops in (("straight", [None]), ("interrupted", [1, 3, None])):
        cfg.OUTPUT_DIR = str(tmp_path / name)
        for seed, stop in enumerate(stops):
            set_random_seed(seed)  # only the first counts: resuming restores the generators too
            trainer = build_trainer(cfg)
            monkeypatch.setattr(Toy, "stop_at", stop)
            if stop is None:
                trainer.train()
            else:
                with pytest.raises(KeyboardInterrupt):
                    trainer.train()
                trainer.close_writer()
        results.append((weights(trainer), trainer.optim.state_dict(), trainer.best_result))
    (w1, optim1, best1), (w2, optim2, best2) = results
    assert torch.equal(w1, w2) and best1 == best2
    assert optim1["param_groups"] == optim2["param_groups"]
    for key, state in optim1["state"].items():
        assert torch.equal(state["momentum_buffer"], optim2["state"][key]["momentum_buffer"])


def test_best_model_survives_resuming(cfg, monkeypatch):
    cfg.TEST.FINAL_MODEL = "best_val"
    values = iter([50.0, 90.0, 70.0])
    monkeypatch.setattr(Toy, "test", lambda self, split=None: next(values, 60.0))
    monkeypatch.setattr(Toy, "stop_at", 3)
    first = build_trainer(cfg)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    monkeypatch.setattr(Toy, "stop_at", None)
    second = build_trainer(cfg)
    second.train()
    best = load_checkpoint(os.path.join(cfg.OUTPUT_DIR, "head", "model-best.pth.tar"))
    assert (best["epoch"], best["val_result"], second.best_result) == (2, 90.0, 90.0)
    assert torch.equal(second.head.weight, best["state_dict"]["weight"])  # deployed at the end


def test_resume_refuses_parts_of_different_epochs(cfg):
    trainer = build_trainer(cfg)
    assert trainer.resume_model_if_exist(cfg.OUTPUT_DIR) == 0
    trainer.save_model(0, cfg.OUTPUT_DIR)
    trainer.save_model(1, cfg.OUTPUT_DIR)
    assert trainer.resume_model_if_exist(cfg.OUTPUT_DIR) == 2
    Path(cfg.OUTPUT_DIR, "head", "checkpoint").write_text("model.pth.tar-1\n")
    with pytest.raises(ValueError, match="different epochs"):
        trainer.resume_model_if_exist(cfg.OUTPUT_DIR)
    with pytest.raises(ValueError, match="no optimizer state"):
        resume_from_checkpoint(os.path.join(cfg.OUTPUT_DIR, "frozen"), trainer.frozen, trainer.optim)


def test_trainer_errors(cfg):
    trainer = build_trainer(cfg)
    with pytest.raises(FloatingPointError):
        trainer.model_backward(torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(ValueError, match="already registered"):
        trainer.register_model("head", trainer.head)
    with pytest.raises(ValueError, match="choose from"):
        trainer.update_lr("tail")
    trainer.set_model_mode("eval", "head")
    assert trainer.body.training and not trainer.head.training
    cfg.DATASET.ALL_AS_UNLABELED = True
    with pytest.raises(ValueError, match="no validation images"):
        build_trainer(cfg).test("val")
    cfg.TRAINER.NAME = "Toi"
    with pytest.raises(ValueError, match=r"do you mean \[Toy\]"):
        build_trainer(cfg)


@pytest.mark.parametrize("count, steps", [("train_x", 4), ("train_u", 6), ("smaller_one", 4)])
def test_labeled_and_unlabeled(cfg, count, steps):
    class ToyXU(TrainerXU):
        build_model = Toy.build_model
        model_inference = Toy.model_inference
        seen = 0

        def forward_backward(self, batch_x, batch_u):
            image_x, label_x, image_u = self.parse_batch_train(batch_x, batch_u)
            assert image_x.shape == (6, 3, 8, 8) and label_x.shape == (6,) and image_u.shape == (2, 3, 8, 8)
            self.seen += 1
            return {"loss": 0.0}

    cfg.merge_from_list(["TRAIN.COUNT", count, "DATALOADER.TRAIN_U.SAME_AS_X", False])
    cfg.DATALOADER.TRAIN_U.BATCH_SIZE = 2
    trainer = ToyXU(cfg)
    trainer.run_epoch()
    assert trainer.seen == steps


# ------------------------------------------------------------------ rates
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
    assert [(g["lr"], count_num_param(params=[g])) for g in groups] == [(0.05, 6), (0.5, 9)]
    cfg.NAME = "sdg"
    with pytest.raises(ValueError, match=r"do you mean \[sgd\]"):
        build_optimizer(model, cfg)


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


def test_save_checkpoint_files(tmp_path, monkeypatch):
    state = {"state_dict": {"module.w": torch.ones(2)}, "epoch": 4, "optimizer": None, "scheduler": None}
    save_checkpoint(state, str(tmp_path), is_best=True)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-4"]
    assert list(load_checkpoint(str(tmp_path / "model-best.pth.tar"))["state_dict"]) == ["w"]
    assert list(state["state_dict"]) == ["module.w"]  # the caller's dict is left alone

    def full_disk(*args):
        Path(args[1]).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError):
        save_checkpoint({**state, "epoch": 5}, str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-4"]
    assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-4\n"


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


# ------------------------------------------------------------------ data
def test_data_manager_and_wrapper(cfg, capsys):
    cfg.DATASET.NUM_SHOTS = 3
    cfg.INPUT.TRANSFORMS = ("normalize",)
    dm = DataManager(cfg)
    out = capsys.readouterr().out
    assert dm.num_classes == 3 and dm.lab2cname[2] == "grey 220" and dm.num_source_domains == 0
    assert dm.dataset.classnames == ["grey 40", "grey 120", "grey 220"] and "# train_x  9" in out
    loaders = dm.train_loader_x, dm.val_loader, dm.test_loader
    assert [len(loader.dataset) for loader in loaders] == [9, 6, 12]
    assert len(dm.train_loader_x) == 1  # 9 samples in batches of 6: the rest is dropped
    labels = torch.cat([batch["label"] for batch in dm.test_loader])
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4

    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 10  # more than there are: nothing is dropped
    cfg.DATASET.ALL_AS_UNLABELED = True
    dm = DataManager(cfg, custom_tfm_test=[lambda image: torch.zeros(1), lambda image: torch.ones(1)])
    assert dm.val_loader is None and next(iter(dm.train_loader_x))["img"].shape == (9, 3, 8, 8)
    batch = next(iter(dm.test_loader))
    assert batch["img"].sum() == 0 and batch["img2"].sum() == 12
    assert batch["index"].tolist() == list(range(12))
    assert batch["impath"][5] == dm.dataset.test[5].impath and batch["domain"].tolist() == [0, 1] * 6

    cfg.DATALOADER.merge_from_list(["K_TRANSFORMS", 2, "RETURN_IMG0", True])
    item = DatasetWrapper(cfg, dm.dataset.train_x, build_transform(cfg), is_train=True)[0]
    assert len(item["img"]) == 2 and torch.equal(item["img"][0], item["img0"])
    with pytest.raises(ValueError, match="K_TRANSFORMS"):
        DatasetWrapper(cfg, dm.dataset.train_x, None, is_train=True)
    cfg.DATASET.NAME = "GreyLevel"
    with pytest.raises(ValueError, match="GreyLevels"):
        DataManager(cfg)


def test_fewshot_and_dataset_base(cfg):
    dataset = GreyLevels(cfg)
    shots, more = dataset.generate_fewshot_dataset(dataset.train_x, dataset.val, num_shots=4)
    by_label = dataset.split_dataset_by_label(shots)
    assert {label: len(set(items)) for label, items in by_label.items()} == {0: 4, 1: 4, 2: 4}
    assert len(more) == 6  # two a class is all there are
    assert len(dataset.generate_fewshot_dataset(dataset.val, num_shots=4, repeat=True)) == 12
    assert dataset.generate_fewshot_dataset(dataset.val) is dataset.val
    by_domain = dataset.split_dataset_by_domain(dataset.val)
    assert {domain: len(items) for domain, items in by_domain.items()} == {0: 3, 1: 3}
    with pytest.raises(ValueError, match=r"TARGET_DOMAINS has \"up\""):
        dataset.check_input_domains(["left"], ["up"])
    with pytest.raises(AttributeError):
        dataset.val[0].label = 1
    with pytest.raises(ValueError, match="no training sample"):
        DatasetBase(train_x=[], test=dataset.test)


def test_samplers():
    random.seed(0)
    source = [Datum(f"{i}", label=i % 5, domain=i % 3) for i in range(60)]
    order = list(build_sampler("RandomDomainSampler", data_source=source, batch_size=8, n_domain=2))
    batches = [order[i : i + 8] for i in range(0, len(order), 8)]
    assert len(order) == len(set(order)) > 8 and len(order) % 8 == 0
    for batch in batches:
        domains = [source[i].domain for i in batch]
        assert sorted(domains.count(d) for d in set(domains)) == [4, 4]
    order = list(build_sampler("SeqDomainSampler", data_source=source, batch_size=6))
    assert [source[i].domain for i in order] == [0, 0, 1, 1, 2, 2] * 10 and len(set(order)) == 60
    sampler = build_sampler("RandomClassSampler", data_source=source, batch_size=6, n_ins=3)
    orders = [list(sampler) for _ in range(20)]
    assert {len(order) for order in orders} == {len(sampler)} and orders[0] != orders[1]
    order = orders[0]
    for i in range(0, len(order), 6):
        labels = [source[j].label for j in order[i : i + 6]]
        assert sorted(labels.count(x) for x in set(labels)) == [3, 3]
    assert list(build_sampler("SequentialSampler", data_source=source)) == list(range(60))
    assert sorted(build_sampler("RandomSampler", data_source=source)) == list(range(60))
    with pytest.raises(ValueError, match="4 of 3 domains"):
        build_sampler("RandomDomainSampler", data_source=source, batch_size=8, n_domain=4)
    with pytest.raises(ValueError, match="needs 10 classes"):
        build_sampler("RandomClassSampler", data_source=source, batch_size=10, n_ins=1)
    with pytest.raises(ValueError, match="RandomSampler"):
        build_sampler("RandomSampling", data_source=source)


def test_transforms(cfg):
    cfg.INPUT.merge_from_list(["SIZE", (8, 6), "TRANSFORMS", ("normalize",), "INTERPOLATION", "bicubic"])
    image = Image.fromarray(np.full((20, 10, 3), 51, np.uint8))
    expected = (0.2 - torch.tensor(cfg.INPUT.PIXEL_MEAN)) / torch.tensor(cfg.INPUT.PIXEL_STD)
    for is_train in (True, False):
        result = build_transform(cfg, is_train)(image)
        torch.testing.assert_close(result, expected.view(3, 1, 1).expand(3, 8, 6))

    def names(*choices, is_train=True):
        return [type(t).__name__ for t in build_transform(cfg, is_train, choices).transforms]

    flip, colour = names("random_flip", "random_resized_crop"), names("normalize", "colorjitter", "cutout")
    assert flip == ["RandomResizedCrop", "RandomHorizontalFlip", "ToTensor"]
    assert colour == ["Resize", "ColorJitter", "ToTensor", "Cutout", "Normalize"]
    assert names("random_crop", "randaugment", is_train=False) == ["Resize", "CenterCrop", "ToTensor"]
    cfg.INPUT.GB_K = 3
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 10, 3), np.uint8))
    for choice in AVAI_CHOICES:
        assert build_transform(cfg, True, [choice])(noise).shape == (3, 8, 6), choice
    image = InstanceNormalization()(torch.rand(3, 9, 9))
    torch.testing.assert_close(image.mean((1, 2)), torch.zeros(3), atol=1e-6, rtol=0)
    holes = Cutout(1, 4)(torch.ones(3, 32, 32)).eq(0).sum()
    assert 3 * 4 <= holes <= 3 * 16
    with pytest.raises(ValueError, match="unknown \"flip\": choose from .*random_flip"):
        build_transform(cfg, True, ["flip"])
    cfg.INPUT.NO_TRANSFORM = True
    assert build_transform(cfg) is None


def test_read_image_names_the_broken_file(tmp_path):
    path = tmp_path / "a.jpg"
    with pytest.raises(FileNotFoundError, match="a.jpg"):
        read_image(str(path))
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    assert read_image(str(path)).mode == "RGB"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.jpg.*damaged"):
            read_image(str(path))


# ------------------------------------------------------------------ evaluation
def test_classification_evaluator(tmp_path, capsys):
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.merge_from_list(["PER_CLASS_RESULT", True, "COMPUTE_CMAT", True])
    evaluator = build_evaluator(cfg, lab2cname={0: "a", 1: "b", 2: "c"})
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluator.evaluate()
    predictions, labels = [0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 1, 1]
    scores = F.one_hot(torch.tensor(predictions), 3).float()
    evaluator.process(scores[:4], torch.tensor(labels[:4]))
    evaluator.process(scores[4:], torch.tensor(labels[4:]))
    results = evaluator.evaluate()
    # F1: class 0 has precision 1 and recall 3/4, class 1 has 1/2 and 1/2; class 2 does not occur
    assert list(results) == ["accuracy", "error_rate", "macro_f1", "perclass_accuracy"]
    expected = [400 / 6, 200 / 6, 100 * (6 / 7 + 1 / 2) / 2, 62.5]
    np.testing.assert_allclose(list(results.values()), expected)
    out = capsys.readouterr().out
    block = "=> result\n* total: 6\n* correct: 4\n* accuracy: 66.7%\n* error: 33.3%\n* macro_f1: 67.9%\n"
    assert block in out and "* class: 1 (b)\ttotal: 2\tcorrect: 1\tacc: 50.0%\n* average: 62.5%" in out
    cmat = torch.load(tmp_path / "cmat.pt", weights_only=True)
    assert cmat.tolist() == [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]]
    evaluator.reset()
    evaluator.process(scores[3:5], torch.tensor([0, 1]))
    assert evaluator.evaluate()["accuracy"] == 50.0


def test_metrics():
    output = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]])
    top1, top2 = compute_accuracy(output, torch.tensor([1, 2, 2, 2]), topk=(1, 2))
    assert top1.shape == (1,) and (top1.item(), top2.item()) == (50.0, 75.0)
    a, b = torch.tensor([[0.0, 1.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    assert compute_distance_matrix(a, b).tolist() == [[1, 1, 18], [13, 25, 0]]
    torch.testing.assert_close(
        compute_distance_matrix(a, b[[0, 2]], "cosine"), torch.tensor([[0, 0.2], [0.2, 0]]), atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match="cosine"):
        compute_distance_matrix(a, b, "manhattan")


# ------------------------------------------------------------------ the rest
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
    with pytest.raises(ValueError, match="already in the registry THING"):
        registry.register(Thing)
    registry.register(Thing, force=True)
    with pytest.raises(ValueError, match=r"not in the registry THING, which has \['Thing'\]"):
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
    path.write_text("{")
    with pytest.raises(ValueError, match="a.json.*not valid JSON"):
        read_json(str(path))


def test_modeling(cfg):
    backbone = build_backbone("resnet18", pretrained=False)
    assert backbone.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, backbone.out_features) == (1, 512)
    assert build_backbone("mobilenet_v2", pretrained=False).out_features == 1280
    head = build_head("mlp", in_features=4, hidden_layers=[5, 6], dropout=0.5)
    assert head(torch.zeros(2, 4)).shape == (2, 6) and count_num_param(head) == 25 + 10 + 36 + 12
    open_specified_layers(backbone.model, "layer4")
    assert {n.split(".")[0] for n, p in backbone.model.named_parameters() if p.requires_grad} == {"layer4"}
    with pytest.raises(ValueError, match=r"do you mean \[resnet18\]"):
        build_backbone("resnet_18")
