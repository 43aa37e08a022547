"""KgCoOp, ProGrad and CoCoOp: stored numbers, suites against their tasks, and the maths that is each method's own."""

import json

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from benchmarks.plain import PlainTextEncoder
from clip import load
from clip.model import CLIP
from common.errors import UserError
from datasets.base import Task
from tests import parity, parity_methods
from tests.helpers import call, call_until, make_cfg, results, train_args
from trainers.cocoop import ConditionalCLIP
from trainers.kgcoop import KnowledgeGuidedCLIP
from trainers.mtcoop_hard import HardSharedCLIP
from trainers.prograd import TaughtCLIP, project
from trainers.prompts import build_prompts

NODES = {"KgCoOp": "KGCOOP", "ProGrad": "PROGRAD", "CoCoOp": "COCOOP"}
TASKS = [Task("flower species recognition", ("daisy", "bird_of_paradise", "rose"), "a photo of a {}, a flower."),
         Task("letters", ("U.S.", "tulip"), "the text {}."), Task("colours", ("dark_blue", "red", "grey", "green"))]
FIRST = [0, 3, 5]  # class of each task
LABELS = torch.tensor([1, 6, 0, 3, 2, 8, 4, 1])  # 4 of the first task, 2 of each other


# ---------------------------------------------------------------------------- stored numbers
@pytest.mark.parametrize("name", parity_methods.METHODS)
def test_agrees_with_the_published_code(name, methods_folder, capsys):
    assert parity.main([str(methods_folder), "--case", name]) == 0, capsys.readouterr().out


def test_a_wrong_number_fails(methods_folder, tmp_path, capsys):
    for entry in methods_folder.iterdir():
        (tmp_path / entry.name).symlink_to(entry.resolve())
    (tmp_path / "methods.json").unlink()
    methods = json.loads((methods_folder / "methods.json").read_text())
    methods["prograd"]["losses"][2]["kl_loss"] *= 1 + 1e-8
    (tmp_path / "methods.json").write_text(json.dumps(methods))
    assert parity.main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "FAIL prograd" in out and "3 of 4 cases agree" in out


# Learned values with RN50: its image features have 1024 values, its context vectors 512.
COUNTS = {
    "CoCoOp": ("COCOOP", {}, (1009280, 605568, 807424, 2018560)),
    "ProGrad": ("PROGRAD", {}, (81920, 49152, 65536, 163840)),
    "KgCoOp": ("KGCOOP", {}, (20480, 12288, 16384, 40960)),
    "CoOp-CA": ("MTCOOPH", {"TSC": True}, (81920, 49152, 65536, 163840)),
    "CoOp-CS": ("MTCOOPH", {"CSC": True}, (9756672, 950272, 1703936, 638976)),
    "CoOp-MT": ("MTCOOPH", {}, (8192,) * 4),
}
SUITES = {"General-10": (10, 1191), "Plant-6": (6, 116), "RS8": (8, 208), "Fashion-20": (20, 78)}


@pytest.fixture(scope="module")
def rn50_sizes():
    """A CLIP with RN50's text width and feature size, but one block in each tower."""
    model = open_clip.CLIP(embed_dim=1024, vision_cfg=dict(image_size=32, layers=[1, 1, 1, 1], width=64),
                           text_cfg=dict(width=512, heads=8, layers=1))
    return CLIP(model).requires_grad_(False)


@pytest.mark.parametrize("method", COUNTS)
@pytest.mark.parametrize("suite", SUITES)
def test_number_of_learned_values(method, suite, rn50_sizes):
    node, options, expected = COUNTS[method]
    n_tasks, n_classes = SUITES[suite]
    splits = np.array_split([f"class {i}" for i in range(n_classes)], n_tasks)
    tasks = [Task(f"task {t}", tuple(map(str, names))) for t, names in enumerate(splits)]
    network = {"COCOOP": ConditionalCLIP, "PROGRAD": TaughtCLIP, "KGCOOP": KnowledgeGuidedCLIP,
               "MTCOOPH": HardSharedCLIP}[node]
    cfg = make_cfg(options={f"TRAINER.{node}.{key}": value for key, value in options.items()})
    model = network(rn50_sizes, tasks, cfg.TRAINER[node])
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == expected[list(SUITES).index(suite)]


# ---------------------------------------------------------------------------- a suite and its tasks
def make(name, backbone, tasks=TASKS, **options):
    node = NODES[name]
    options = {f"TRAINER.{node}.N_CTX": 4, f"TRAINER.{node}.CTX_INIT": "",
               **{f"TRAINER.{node}.{key}": value for key, value in options.items()}}
    torch.manual_seed(0)
    trainer = parity.build_trainer(name, backbone, tasks, 32, options)
    for value in trainer.trained:  # larger than they start, so that classes, images and tasks differ
        value.data.copy_(0.3 * torch.randn(value.shape))
    return trainer


def batch(n=len(LABELS), seed=1):
    return torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))


def gradients(trainer, features, labels):
    """{name: gradient} of a batch, and what the log shows."""
    trainer.optimizer.zero_grad()
    metrics = trainer.add_gradients(features, labels)
    return {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}, metrics


def close(ours, expected):
    return float((ours - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("name", NODES)
def test_a_mixed_batch_is_its_tasks_by_their_shares(name, backbone):
    """Gradients, losses and test logits of each learner are those that the task alone would give."""
    suite, features = make(name, backbone), batch()
    mixed, metrics = gradients(suite, features, LABELS)
    with torch.no_grad():
        logits = suite.model.logits(features, LABELS, suite.model.class_features())
    total = dict.fromkeys(metrics, 0)
    for t, task in enumerate(TASKS):
        alone = make(name, backbone, [task])
        own = suite.model.task_of_class[LABELS] == t
        share = float(own.float().mean())
        there = dict(suite.model.named_parameters())
        for key, value in alone.model.named_parameters():
            if value.requires_grad:
                value.data.copy_(there[key.replace("learners.0", f"learners.{t}")])
        single, its_shown = gradients(alone, features[own], LABELS[own] - FIRST[t])
        for key, gradient in single.items():
            assert gradient.abs().max() > 0
            assert close(mixed[key.replace("learners.0", f"learners.{t}")], share * gradient), key
        total = {key: total[key] + share * its_shown[key] for key in total}
        with torch.no_grad():
            its_logits = alone.model.logits(features[own], LABELS[own] - FIRST[t], alone.model.class_features())
        classes = slice(FIRST[t], FIRST[t] + len(task.classnames))
        assert close(logits[own, classes], its_logits)
        assert logits[own].isfinite().sum() == its_logits.numel()
    for key, value in total.items():
        assert float(metrics[key]) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("name", NODES)
def test_a_task_outside_the_batch_gets_no_gradient(name, backbone):
    labels = torch.tensor([0, 1, 5, 6])
    made, metrics = gradients(make(name, backbone), batch(4), labels)
    for key, gradient in made.items():
        assert gradient.isfinite().all() and (".learners.1." in key) == (not gradient.any()), key
    assert all(value.isfinite() for value in metrics.values())


@pytest.mark.parametrize("name", NODES)
def test_recomputing_the_text_encoder_changes_nothing(name, backbone):
    trainer, features = make(name, backbone), batch()
    kept, _ = gradients(trainer, features, LABELS)
    kept = {key: value.clone() for key, value in kept.items()}
    trainer.model.text_encoder.checkpoint = True
    again, _ = gradients(trainer, features, LABELS)
    assert all(torch.equal(again[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", NODES)
def test_precisions_step_alike(name, backbone):
    """A step with bf16 towers, one with a gradient scaler under autocast and one in fp64 go where that in fp32 goes."""
    steps = {}
    for precision in ("fp32", "bf16", "amp", "fp64"):
        trainer = make(name, backbone, PREC="fp32" if precision == "amp" else precision)
        if precision == "amp":  # of CUDA's, which a CPU does not have
            trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        before = [value.detach().clone() for value in trainer.trained]
        metrics = trainer.step(batch().to(trainer.model.dtype), LABELS, trainer.repeats)
        assert all(value.isfinite() for value in metrics.values())
        steps[precision] = torch.cat([(a - b).flatten() for a, b in zip(trainer.trained, before)]).detach()
        assert steps[precision].dtype == (torch.float64 if precision == "fp64" else torch.float32)
    for precision in ("bf16", "amp"):
        assert F.cosine_similarity(steps[precision], steps["fp32"], dim=0) > 0.9, precision
        assert float(steps[precision].norm()) == pytest.approx(float(steps["fp32"].norm()), rel=0.2), precision
    assert close(steps["fp32"], steps["fp64"])


# ---------------------------------------------------------------------------- each method's own
def test_kgcoop_adds_the_distance_of_the_samples_tasks(backbone):
    plain, weighted = (make("KgCoOp", backbone, W=w) for w in (0.0, 3.0))
    model, features = plain.model, batch()
    with torch.no_grad():
        cosines = (F.normalize(model.class_features(), dim=1) * model.zero_shot_features).sum(1)
    distances = [1 - part.mean() for part in cosines.split([3, 2, 4])]
    expected = 3 * (4 * distances[0] + 2 * distances[1] + 2 * distances[2]) / 8
    difference = gradients(weighted, features, LABELS)[1]["loss"] - gradients(plain, features, LABELS)[1]["loss"]
    assert float(difference) == pytest.approx(float(expected), rel=1e-4)


def test_projection_takes_the_conflicting_component():
    domain, general = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[-3.0, 0.0], [0.0, 0.0]])
    assert torch.equal(project(domain, general, 1.0), torch.tensor([[0.0, 2.0], [0.0, -1.0]]))
    assert torch.equal(project(domain, general, 0.5), torch.tensor([[0.5, 2.0], [0.0, -1.0]]))
    assert torch.equal(project(domain, -general, 1.0), domain)  # they agree
    assert torch.equal(project(domain, torch.zeros(2, 2), 1.0), domain)


def test_prograd_projects_each_learner_by_itself(backbone):
    trainer, features = make("ProGrad", backbone, T=2.0), batch()
    losses, _, _ = trainer.model.losses(features, LABELS)
    expected_kl = 0
    with torch.no_grad():  # T^2 x cross-entropy with the softened teacher, task by task
        text, teacher = trainer.model.class_features(), trainer.model.zero_shot_features
        for first, n in zip(FIRST, (3, 2, 4)):
            own = (LABELS >= first) & (LABELS < first + n)
            ours, theirs = (trainer.model.score(features[own], f[first:first + n]) / 2 for f in (text, teacher))
            expected_kl += 4 * F.cross_entropy(ours, theirs.softmax(1), reduction="sum") / len(LABELS)
    assert float(losses["kl_loss"]) == pytest.approx(float(expected_kl), rel=1e-5)
    pairs = [torch.autograd.grad(losses[key], trainer.trained, retain_graph=True) for key in ("xe_loss", "kl_loss")]
    made = list(gradients(trainer, features, LABELS)[0].values())
    conflicts = 0
    for gradient, domain, general in zip(made, *pairs):
        dot = (domain * general).sum()
        conflicts += int(dot < 0)
        if dot < 0:
            assert abs((gradient * general).sum()) < 1e-4 * gradient.norm() * general.norm()
            assert (gradient * domain).sum() > 0
        else:
            assert torch.equal(gradient, domain)
    assert 0 < conflicts < len(TASKS), "both cases should occur in this test"


def test_cocoop_equals_encoding_every_image_by_itself(backbone):
    """CoCoOp's loop: per image its context, all 77 positions of its own task's prompts, cosine; and its gradients."""
    trainer, features = make("CoCoOp", backbone), batch()
    model = trainer.model
    plain = PlainTextEncoder(load(backbone, device="cpu")[0].requires_grad_(False))
    rows = []
    for feature, label in zip(features, LABELS):
        t = int(model.task_of_class[label])
        learner = model.prompt_learner.learners[t]
        feature = feature / feature.norm()
        hidden = torch.relu(learner.meta_net.linear1.weight @ feature + learner.meta_net.linear1.bias)
        context = learner.ctx + learner.meta_net.linear2.weight @ hidden + learner.meta_net.linear2.bias
        text = F.normalize(plain(build_prompts(TASKS[t].classnames, 4), context[None]), dim=1)
        rows.append(model.logit_scale.exp() * text @ feature)
    with torch.no_grad():
        logits = model.logits(features, LABELS)
    for row, ours in zip(rows, logits):
        assert close(ours[ours.isfinite()], row.detach())
    targets = [int(label) - FIRST[int(model.task_of_class[label])] for label in LABELS]
    loss = sum(F.cross_entropy(row[None], torch.tensor([target])) for row, target in zip(rows, targets)) / len(rows)
    expected = torch.autograd.grad(loss, trainer.trained)
    made, metrics = gradients(trainer, features, LABELS)
    assert float(metrics["loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert all(close(ours, theirs) for ours, theirs in zip(made.values(), expected))


def test_cocoop_does_not_depend_on_how_many_prompts_are_encoded_at_once(backbone):
    features, found = batch(), []
    for limit in (1024, 7, 1):  # all at once; a few images; one image, which has more prompts
        trainer = make("CoCoOp", backbone, MAX_PROMPTS=limit)
        chunks = trainer.model.chunks(LABELS)
        encoded = []
        trainer.model.text_encoder.ln_final.register_forward_hook(lambda *args: encoded.append(len(args[2])))
        made, metrics = gradients(trainer, features, LABELS)
        assert len(encoded) == len(chunks) and sum(encoded) == 4 * 3 + 2 * 2 + 2 * 4
        assert max(encoded) <= max(limit, 4)
        with torch.no_grad():
            logits = trainer.model.logits(features, LABELS)
        found.append([*made.values(), metrics["loss"], metrics["acc"], logits[logits.isfinite()]])
    assert len(chunks) == len(LABELS)
    for other in found[1:]:
        assert all(close(ours, theirs) for ours, theirs in zip(other, found[0]))


# ---------------------------------------------------------------------------- whole runs
@pytest.mark.parametrize("name, n_values, loss", [
    ("KgCoOp", 2 * 4 * 64, "loss"), ("ProGrad", 2 * 16 * 64, "kl_loss"),
    ("CoCoOp", 2 * (4 * 64 + 64 * 4 + 4 + 4 * 64 + 64), "loss")])
def test_a_run_learns_saves_and_is_tested_again(name, n_values, loss, photo_root, backbone, tmp_path):
    options = {"OPTIM.MAX_EPOCH": 1, "OPTIM.WARMUP_EPOCH": -1, "DATASET.SPLIT_DIR": tmp_path / "splits",
               "OPTIM.LR": 0.02}
    trainer = call(train_args(photo_root, backbone, tmp_path / "run", name, **options))
    written = results(tmp_path / "run")
    assert written["trainer"] == name and written["n_params"] == n_values
    assert [task["total"] for task in written["tasks"]] == [12, 8]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f" {loss} " in log and " acc " in log and "Finished training" in log
    saved = torch.load(tmp_path / "run" / "prompt_learner" / "model.pth.tar-1", weights_only=True)["state_dict"]
    assert sum(value.numel() for value in saved.values()) == n_values and "learners.1.ctx" in saved
    started = call(train_args(photo_root, backbone, tmp_path / "start", name, "--no-train", **options))
    before = dict(started.model.prompt_learner.named_parameters())
    assert all(not torch.equal(saved[key], before[key]) for key in saved)
    again = call(train_args(photo_root, backbone, tmp_path / "test", name, "--eval-only", "--model-dir",
                            str(tmp_path / "run"), **options))
    assert results(tmp_path / "test")["tasks"] == written["tasks"]
    assert all(torch.equal(value, trainer.model.prompt_learner.state_dict()[key])
               for key, value in again.model.prompt_learner.state_dict().items())


@pytest.mark.parametrize("name", NODES)
def test_a_stopped_run_resumes_to_the_same_values(name, photo_root, backbone, tmp_path, monkeypatch):
    options = {"OPTIM.MAX_EPOCH": 3, "TRAIN.RESUME_SECONDS": 0, "DATASET.SPLIT_DIR": tmp_path / "splits"}
    calm, stopped = (train_args(photo_root, backbone, tmp_path / run, name, **options) for run in ("calm", "stopped"))
    expected = call(calm).model.prompt_learner.state_dict()
    call_until(2, stopped, monkeypatch)
    resumed = call(stopped).model.prompt_learner.state_dict()
    assert "Resuming from" in (tmp_path / "stopped" / "log.txt").read_text()
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name, key, value, message", [
    ("KgCoOp", "KGCOOP.W", -1, "TRAINER.KGCOOP.W is -1 .* must be greater than or equal to 0"),
    ("ProGrad", "PROGRAD.LAMBDA", -1, "TRAINER.PROGRAD.LAMBDA is -1 .* must be greater than or equal to 0"),
    ("ProGrad", "PROGRAD.T", 0, "TRAINER.PROGRAD.T is 0 .* must be greater than 0"),
    ("CoCoOp", "COCOOP.MAX_PROMPTS", 0, "TRAINER.COCOOP.MAX_PROMPTS is 0 .* must be greater than or equal to 1"),
    ("ProGrad", "PROGRAD.N_CTX", 0, "TRAINER.PROGRAD.N_CTX is 0 .* must be greater than or equal to 1")])
def test_clear_errors(name, key, value, message, photo_root, backbone, tmp_path):
    with pytest.raises(UserError, match=message):
        call(train_args(photo_root, backbone, tmp_path / "run", name,
                        **{f"TRAINER.{key}": value, "DATASET.SPLIT_DIR": tmp_path / "splits"}))
