"""Whole small runs of every method in the precisions that GPUs use: fp16 and bf16 towers, and amp, on the CPU.

The CPU computes fp16 slowly but as the GPU does, and has autocast and a gradient scaler; only `resolve_precision` keeps
users from it. Each test names the mistake it is for.
"""

import re
from functools import partial

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch.nn import functional as F

import trainers.multitask
from features import image_features
from tests.helpers import call, call_until, results, train_args
from trainers import text_encoder
from trainers.multitask_clip import MultiTaskCLIP

NODES = {"MTCoOp": "MTCOOP", "MTCoOpHard": "MTCOOPH", "KgCoOp": "KGCOOP", "ProGrad": "PROGRAD", "CoCoOp": "COCOOP",
         "PLOT": "PLOT", "ProtoNet": "PROTONET", "TCP": "TCP", "DePT": "DEPT",
         "CLIPLoRA": "CLIPLORA"}
PROBES = {"CLIPAdapter": "CLIPADAPTER", "TaskRes": "TASKRES", "CLAP": "CLAP", "LPplusplus": "LPPLUSPLUS",
          "CrossModal": "CROSSMODAL"}  # their texts are hand-written
NODES |= PROBES | {"MaPLe": "MAPLE", "PromptSRC": "PROMPTSRC"}
FEW_STEPS = {"ProtoNet": {"TRAINER.PROTONET.DIM": 8, "TRAINER.PROTONET.EPISODES": 6},
             "CrossModal": {"TRAINER.CROSSMODAL.STEPS": 2}, "TCP": {"TRAINER.TCP.LAYER": 1},
             "CLIPLoRA": {"TRAINER.CLIPLORA.STEPS": 0}, "MaPLe": {"TRAINER.MAPLE.PROMPT_DEPTH": 2},
             "PromptSRC": {"TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION": 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT": 2}}
LOW = ("fp16", "bf16", "amp")
SCALER = torch.amp.GradScaler
TOWERS = {"fp16": torch.float16, "bf16": torch.bfloat16, "amp": torch.float32, "fp32": torch.float32}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """fp16 and amp as they are, and a scaler that changes its scale within a few steps."""
    monkeypatch.setattr(trainers.multitask, "resolve_precision", lambda prec, device: prec)
    monkeypatch.setattr(torch.amp, "GradScaler", partial(SCALER, init_scale=2.0**8, growth_interval=2))


@pytest.fixture
def arguments(photo_root, backbone, tmp_path):
    def make(output, name, prec, *extra, **options):
        return train_args(photo_root, backbone, tmp_path / output, name, *extra, **{
            f"TRAINER.{NODES[name]}.PREC": prec, "DATASET.SPLIT_DIR": tmp_path / "splits", "TRAIN.RESUME_SECONDS": 0,
            **FEW_STEPS.get(name, {}), **options})
    return make


def learned(trainer):
    return torch.cat([p.detach().flatten().float() for p in trainer.trained])


def first_loss(folder):
    return float(re.search(r"^epoch \[1/3\] batch \[1/.*?loss (\S+) ", (folder / "log.txt").read_text(), re.M)[1])


@pytest.mark.parametrize("name", NODES)
def test_runs_go_where_those_in_fp32_go(name, arguments, tmp_path):
    """Mistakes: the tower is not cast; what is learned is."""
    once = {"OPTIM.STEP_PER_PART": False}  # amp steps once, as in the published code
    start = learned(call(arguments("start", name, "fp32", "--no-train", **once)))
    runs = {prec: call(arguments(prec, name, prec, **once)) for prec in ("fp32", *LOW)}
    moved = learned(runs["fp32"]) - start
    for prec in LOW:
        trainer = runs[prec]
        assert results(tmp_path / prec)["precision"] == results(tmp_path / prec)["identity"]["precision"] == prec
        assert all(p.dtype == torch.float32 for p in trainer.trained)
        towers = {module.weight.dtype for module in trainer.model.image_encoder.modules()
                  if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))}
        assert towers == {TOWERS[prec]} == {trainer.model.text_encoder.dtype}
        difference = float((learned(trainer) - start - moved).norm() / moved.norm())
        assert 0 < difference < (0.5 if prec == "bf16" else 0.15), (prec, difference)
        ours, theirs = (first_loss(tmp_path / run) for run in (prec, "fp32"))
        assert ours == pytest.approx(theirs, rel=0.1 if prec == "bf16" else 0.02), prec


@pytest.mark.parametrize("prec", LOW)
@pytest.mark.parametrize("name", NODES)
def test_a_stopped_run_goes_on_as_if_undisturbed(name, prec, arguments, tmp_path, monkeypatch):
    """Mistakes: the scaler is not restored; `scaler.update()` is left out, which makes its second step an error."""
    calm = call(arguments("calm", name, prec))
    call_until(2, arguments("stopped", name, prec), monkeypatch)
    resumed = call(arguments("stopped", name, prec))
    assert "Resuming from" in (tmp_path / "stopped" / "log.txt").read_text()
    assert torch.equal(learned(resumed), learned(calm))
    assert results(tmp_path / "stopped")["tasks"] == results(tmp_path / "calm")["tasks"]
    if prec == "amp":
        assert resumed.scaler.state_dict() == calm.scaler.state_dict() != {"scale": 2.0**8}
        assert calm.scaler.get_scale() > 2.0**8


@pytest.mark.parametrize("name", [name for name in NODES if name not in ("CoCoOp", "ProtoNet", "CLIPLoRA")])
def test_amp_reaches_testing_and_image_features(name, arguments, monkeypatch):
    """Mistakes: no autocast in testing, or where image features are made, kept or in every step."""
    kinds = {"text": set(), "image": set()}
    encode, score = text_encoder.TextEncoder.forward, image_features.ImageFeatures.encode
    tower = VisionTransformer.forward

    def texts(self, *args):
        made = encode(self, *args)
        kinds["text"].add((torch.is_grad_enabled(), made.dtype))
        return made

    def images(self, *args, **kwargs):
        for made in score(self, *args, **kwargs):
            kinds["image"].add(made.dtype)
            yield made

    def pixels(self, batch):
        made = tower(self, batch)
        kinds["image"].add(made.dtype)
        return made

    monkeypatch.setattr(text_encoder.TextEncoder, "forward", texts)
    monkeypatch.setattr(VisionTransformer, "forward", pixels)
    monkeypatch.setattr(image_features.ImageFeatures, "encode", images)
    call(arguments("run", name, "amp", **{"DATALOADER.FEATURE_CACHE": False}))
    frozen = {(False, torch.float32)}  # hand-written texts, which are made once
    assert kinds["text"] - frozen == (set() if name in PROBES else {(True, torch.float16), (False, torch.float16)})
    assert kinds["image"] == {torch.float16}


def test_a_recomputed_block_computes_under_autocast_again(arguments, monkeypatch):
    """Mistake: what is recomputed in the backward pass is so without autocast."""
    gradients = {}
    for kept in (True, False):
        monkeypatch.setattr(text_encoder, "RECOMPUTED_FROM", 2**40 if kept else 0)
        torch.manual_seed(0)
        trainer = call(arguments("run", "MTCoOpHard", "amp", "--no-train"))
        features, labels = next(iter(trainer.make_train_loader()))
        trainer.optimizer.zero_grad()
        trainer.add_gradients(torch.ones_like(features) / 8, labels)
        gradients[kept] = trainer.trained[0].grad.clone()
    assert gradients[True].abs().max() > 0 and torch.equal(gradients[True], gradients[False])


def test_what_is_recomputed_is_what_was_computed(monkeypatch):
    """The same mistake, on a function that autocast changes: a product of float32 values."""
    monkeypatch.setattr(text_encoder, "RECOMPUTED_FROM", 0)
    torch.manual_seed(0)
    x, weight = torch.randn(8, 16, requires_grad=True), torch.randn(16, 16)

    def function(values):
        return torch.tanh(values @ weight)

    gradients = []
    for compute in (function, lambda values: text_encoder.recomputed(function, values)):
        with torch.autocast("cpu", torch.float16):
            made = compute(x)
        assert made.dtype == torch.float16
        gradients.append(torch.autograd.grad(made.sum(), x)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_those_of_float32(dtype, backbone):
    """Mistake: cosine and scale in the towers' precision, which ties and swaps classes whose logits are near 25."""
    from clip import load
    from datasets.base import Task

    model = MultiTaskCLIP(load(backbone, device="cpu")[0].requires_grad_(False),
                          [Task("task", tuple(f"class {i}" for i in range(100)))])
    model.logit_scale.data.fill_(4.6052)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1000, 512, generator=generator)
    centre = torch.randn(512, generator=generator)
    texts = F.normalize(centre + 0.2 * torch.randn(100, 512, generator=generator), dim=1)
    images = (0.36 * F.normalize(centre, dim=0) + 0.04 * images).to(dtype)
    texts = texts.to(dtype)
    expected = 100 * F.normalize(images.double(), dim=1) @ F.normalize(texts.double(), dim=1).t()
    for autocast in (False, True):
        with torch.autocast("cpu", dtype, enabled=autocast):
            logits = model.score(images, texts)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)
        top = logits.topk(2, dim=1).values
        assert (top[:, 0] > top[:, 1]).all() and (logits.argmax(1) == expected.argmax(1)).float().mean() > 0.998


def test_skipped_steps_are_said(arguments, tmp_path, monkeypatch):
    """With the usual scale the gradients of the first steps overflow, and nothing is learned by these."""
    monkeypatch.setattr(torch.amp, "GradScaler", partial(SCALER, init_scale=2.0**40))
    start = learned(call(arguments("start", "MTCoOp", "amp", "--no-train")))
    trainer = call(arguments("run", "MTCoOp", "amp", **{"OPTIM.MAX_EPOCH": 1}))
    said = re.search(r"^(\d+ of \d+) steps of epoch 1 were skipped", (tmp_path / "run" / "log.txt").read_text(), re.M)
    assert said[1] == "2 of 2" and torch.equal(learned(trainer), start)
