"""A probe per task with shared maps: a plain version in numpy, its convex case, suites, new tasks by names."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from clip import clip
from common.errors import UserError
from datasets.base import Task
from learned.exporting import export
from learned.loading import load_classifier
from runs.commands import calls_of_method
from tests import parity
from tests.helpers import call, call_until, results, train_args
from trainers.shared_map import SharedMap

TASKS = [Task("flower species recognition", ("daisy", "lily", "rose"), "a photo of a {}, a flower."),
         Task("letters", ("A", "tulip"), "the text {}."), Task("colours", ("blue", "red", "grey", "green"), "{}")]
FIRST, SIZES, DIM = [0, 3, 5], [3, 2, 4], 64
LABELS = torch.tensor([0, 1, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8])


def make(backbone, tasks=TASKS, epochs=5, labels=LABELS, rate=0.004, **options):
    """A trainer in double on given image features, as `train` has it before its first epoch."""
    trainer = parity.make("SharedMap", backbone, tasks, 32, {
        "OPTIM.NAME": "adam", "OPTIM.LR": rate, "OPTIM.MAX_EPOCH": epochs, "OPTIM.WARMUP_EPOCH": -1,
        "OPTIM.STEP_PER_PART": False, "OPTIM.WEIGHT_DECAY": 0.0, "TRAINER.SHAREDMAP.PREC": "fp64",
        **{f"TRAINER.SHAREDMAP.{key}": value for key, value in {"LAMBDA": (0.1,), **options}.items()}})
    kinds = torch.randn(9, DIM, generator=torch.Generator().manual_seed(0))

    def features(part):
        noise = torch.randn(len(LABELS), DIM, generator=torch.Generator().manual_seed(len(part)))
        return (kinds[LABELS] + 2 * noise).double()[:len(labels)], labels

    trainer.features, trainer.need_images_of_tasks = features, lambda: None
    # Those of the backbone of random values are nearly equal, which leaves rounding to Adam.
    texts = torch.randn(9, DIM, generator=torch.Generator().manual_seed(1)).to(trainer.model.learned_dtype)
    texts = texts[:len(trainer.model.classnames)]
    trainer.model.zero_shot_features = torch.nn.functional.normalize(texts, dim=1)
    trainer.prepare()
    trainer.build_optimizer()
    return trainer


def train(trainer):
    """Train as `MultiTaskTrainer.train` does; returns the losses."""
    losses = []
    for _ in range(trainer.max_epoch):
        for images, labels in trainer.make_train_loader():
            losses.append(float(trainer.step(images, labels, trainer.repeats)["loss"]))
        trainer.step_rate(by_batch=False)
    return losses


def plain_loss(trainer, weight, bias, changes):
    """The loss, image by image, and its gradients with respect to weight, bias and each task's P - I."""
    texts, options = trainer.model.zero_shot_features.numpy(), trainer.options
    scale = float(trainer.model.logit_scale.exp()) * options.BLEND
    images, labels = (part.numpy() for part in trainer.features("train"))
    loss, by_weight, by_bias, by_change = 0.0, 0 * weight, 0 * bias, 0 * changes
    for task, (first, size) in enumerate(zip(FIRST, SIZES)):
        own = slice(first, first + size)
        members = [i for i, label in enumerate(labels) if first <= label < first + size]
        for i in members:
            x = images[i] / np.linalg.norm(images[i])
            y = x @ (np.eye(DIM) + changes[task])
            length = np.linalg.norm(y)
            z = options.SCALE * weight[own] @ x + bias[own] + scale * texts[own] @ y / length
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            loss -= np.log(p[labels[i] - first]) / len(members)
            p[labels[i] - first] -= 1
            p /= len(members)
            by_weight[own] += options.SCALE * np.outer(p, x)
            by_bias[own] += p
            towards = scale * texts[own].T @ p
            by_change[task] += np.outer(x, towards - y * (y @ towards) / length ** 2) / length
        loss += options.LAMBDA[0] * (weight[own] ** 2).sum() / size + options.DECAY * (changes[task] ** 2).sum()
        by_weight[own] += 2 * options.LAMBDA[0] * weight[own] / size
        by_change[task] += 2 * options.DECAY * changes[task]
    return loss / 3, by_weight / 3, by_bias / 3, by_change / 3


@pytest.mark.parametrize("share, rank", [("all", 0), ("names", 0), ("none", 0), ("all", 2), ("names", 2), ("off", 0)])
def test_steps_are_those_of_a_plain_version(share, rank, backbone):
    steps, trainer = 5, make(backbone, SHARE=share, RANK=rank)
    names = trainer.model.name_features.numpy()
    a = np.exp(names @ names.T / 0.3)
    mix = {"all": np.ones((3, 1)), "names": a / a.sum(1, keepdims=True), "none": np.eye(3),
           "off": np.zeros((3, 1))}[share]
    n = mix.shape[1]
    values = {"weight": np.zeros((9, DIM)), "bias": np.zeros(9), "left": np.zeros((n, DIM, rank or DIM)),
              "right": trainer.model.maps.right.detach().numpy().copy() if rank else np.eye(DIM)[None].repeat(n, 0)}
    moments, losses = {name: (0 * value, 0 * value) for name, value in values.items()}, []
    for step in range(steps):
        changes = np.einsum("tr,rij->tij", mix, values["left"] @ values["right"])
        loss, by_weight, by_bias, by_change = plain_loss(trainer, values["weight"], values["bias"], changes)
        losses.append(loss)
        by_map = np.einsum("tr,tij->rij", mix, by_change)
        gradients = {"weight": by_weight, "bias": by_bias, "left": by_map @ values["right"].swapaxes(1, 2),
                     "right": values["left"].swapaxes(1, 2) @ by_map}
        rate = 0.004 * (1 + np.cos(np.pi * step / steps)) / 2
        for name in (("weight", "bias", "left", "right") if rank else ("weight", "bias", "left")):
            first, second = moments[name]
            first = 0.9 * first + 0.1 * gradients[name]
            second = 0.999 * second + 0.001 * gradients[name] ** 2
            moments[name] = first, second
            ratio = first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
            values[name] = values[name] - rate * ratio
    np.testing.assert_allclose(train(trainer), losses, rtol=1e-9)
    np.testing.assert_allclose(trainer.model.classifier.weight.detach(), values["weight"], atol=1e-9)
    np.testing.assert_allclose(trainer.model.classifier.bias.detach(), values["bias"], atol=1e-9)
    changes = np.einsum("tr,rij->tij", mix, values["left"] @ values["right"])
    found = trainer.model.changes().detach()
    assert len(found) == {"all": 1, "off": 0}.get(share, 3)  # maps that are the same are one
    np.testing.assert_allclose(found, changes[:len(found)], atol=1e-9)
    assert share == "off" or np.abs(changes).max() > 1e-3


def test_without_maps_the_minimum_is_that_of_lbfgs(backbone):
    """The loss is convex then."""
    trainer = make(backbone, SHARE="off", epochs=600, rate=0.05, LAMBDA=(0.5,))

    def loss(values):
        found, by_weight, by_bias, _ = plain_loss(trainer, values[9:].reshape(9, DIM), values[:9],
                                                  np.zeros((3, DIM, DIM)))
        return found, np.concatenate([by_bias, by_weight.ravel()])

    expected = minimize(loss, np.zeros(9 + 9 * DIM), jac=True, method="L-BFGS-B", options={"gtol": 1e-9}).fun
    assert train(trainer)[-1] == pytest.approx(expected, abs=1e-6)


def test_names_are_read_as_sentences(backbone):
    model, _ = clip.load(backbone, device="cpu")
    with torch.no_grad():
        expected = model.encode_text(clip.tokenize([f"{task.name}." for task in TASKS])).double()
    found = make(backbone).model.name_features
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("share, alone", [("none", True), ("off", True), ("all", False)])
def test_only_a_shared_map_ties_tasks(share, alone, backbone):
    suite, single = make(backbone, SHARE=share), make(backbone, SHARE=share, tasks=TASKS[:1], labels=LABELS[:5])
    train(suite), train(single)
    difference = (suite.model.classifier.weight[:3] - single.model.classifier.weight).abs().max()
    assert (difference < 1e-6) == alone


def test_lambda_is_the_first_of_the_best_on_validation_images(backbone):
    tried, found = (0.001, 0.01, 1.0, 30.0), []
    for value in tried:
        trainer = make(backbone, LAMBDA=(value,))
        train(trainer)
        logits, targets = trainer.model(*trainer.features("val"))
        right = (logits.argmax(1) == targets).double()
        found.append(float(sum(part.mean() for part in right.split([5, 3, 6]))))
    assert len(set(found)) > 1, "the values should differ in this test"
    trainer = make(backbone, LAMBDA=tried)
    assert float(trainer.model.classifier.strength) == tried[int(np.argmax(found))]
    assert not trainer.model.classifier.weight.any() and not trainer.model.maps.left.any()


@pytest.mark.parametrize("prec", ["bf16", "amp"])
def test_lower_precisions_learn_the_same(prec, backbone):
    """What is learned, and all that follows the image features, is float32."""
    expected, trainer = make(backbone, PREC="fp32"), make(backbone, PREC="fp32" if prec == "amp" else prec)
    if prec == "amp":  # CUDA's, which a CPU does not have
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    train(expected), train(trainer)
    for name, value in expected.model.state_dict().items():
        if name.startswith(("classifier", "maps")):
            torch.testing.assert_close(trainer.model.state_dict()[name], value, atol=1e-6, rtol=1e-4)


# ---------------------------------------------------------------------------- whole runs
@pytest.fixture
def arguments(photo_root, backbone, tmp_path):
    def make_arguments(place, *extra, **options):
        return train_args(photo_root, backbone, tmp_path / place, "SharedMap", *extra, **{
            "DATASET.SPLIT_DIR": tmp_path / "splits", "TRAIN.RESUME_SECONDS": 0, "OPTIM.NAME": "adam",
            "OPTIM.STEP_PER_PART": False, **options})
    return make_arguments


@pytest.mark.parametrize("share", ["all", "names"])
def test_a_stopped_run_resumes_to_the_same_values_and_is_exported(share, arguments, tmp_path, monkeypatch):
    options = {"TRAINER.SHAREDMAP.SHARE": share}
    calm = call(arguments("calm", **options))
    call_until(2, arguments("stopped", **options), monkeypatch)
    assert call(arguments("stopped", **options)).digest_of_learned() == calm.digest_of_learned()
    assert "Resuming from" in (tmp_path / "stopped" / "log.txt").read_text()
    tested = call(arguments("tested", "--eval-only", "--model-dir", str(tmp_path / "calm"), **options))
    assert tested.digest_of_learned() == calm.digest_of_learned()
    assert results(tmp_path / "tested")["tasks"] == results(tmp_path / "calm")["tasks"]
    export(str(tmp_path / "calm"), str(tmp_path / "exported"))  # it compares logits itself


@pytest.mark.parametrize("share", ["all", "names"])
def test_a_task_that_was_not_trained_on_is_read_by_the_maps_alone(share, arguments, tmp_path):
    options = {"TRAINER.SHAREDMAP.SHARE": share, "OPTIM.LR": 0.02}
    run = call(arguments("run", **options, **{"DATASET.SUBSAMPLE_TASKS": "task0"}))
    other = call(arguments("other", "--eval-only", "--model-dir", str(tmp_path / "run"), **{
        **options, "DATASET.SUBSAMPLE_TASKS": "task1"}))
    assert "of what was learned only maps reads them" in (tmp_path / "other" / "log.txt").read_text()
    features, labels = other.features("test")
    x = torch.nn.functional.normalize(features, dim=1)
    mapped = torch.nn.functional.normalize(x + x @ run.model.changes()[0], dim=1)  # one task of training: the same map
    expected = 0.3 * other.model.cosine_scale * mapped @ other.model.zero_shot_features.t()
    found = other.model.logits(features, labels, other.model.class_features())
    torch.testing.assert_close(found, expected)
    assert run.model.changes().abs().max() > 0.01
    new = Task(other.tasks[0].name, other.tasks[0].classnames, other.tasks[0].templates)
    for folder in ("run", "other"):
        classifier = load_classifier(str(tmp_path / folder), new_task=new if folder == "run" else None)
        torch.testing.assert_close(classifier.logits(features), expected.detach())


def test_other_tasks_are_refused_where_nothing_reads_them(arguments, photo_root, tmp_path):
    new = Task("lightness", ("dark", "light"), "{}")
    trained = {"DATASET.SUBSAMPLE_TASKS": "task0"}
    call(arguments("none", **trained, **{"TRAINER.SHAREDMAP.SHARE": "none"}))
    with pytest.raises(UserError, match="--new-task: SharedMap learns something of its own for every class"):
        load_classifier(str(tmp_path / "none"), new_task=new)
    call(arguments("all", **trained))
    with pytest.raises(UserError, match="SharedMap learns something of its own for every class of training"):
        load_classifier(str(tmp_path / "all"), new_task=Task("colour naming", ("dark", "light"), "{}"))
    with pytest.raises(UserError, match="SharedMap learns something of its own for every class of training"):
        call(arguments("both", "--eval-only", "--model-dir", str(tmp_path / "all"), **{
            "DATASET.SUBSAMPLE_TASKS": "all"}))


def test_runs_of_the_table_are_told_apart_by_what_is_shared():
    """`method.sh`, whose words do not say it, has a folder too."""
    settings = SimpleNamespace(shots=["1"], seeds=["1"], root="data", output="output", opts=[])
    words = {"DATASET": "outfits16", "CFG": "tiny_ep50", "SHOTS": "1"}
    folders = [calls_of_method(settings, SharedMap, words, options)[0][3] for options in (
        {}, *(row.options for row in SharedMap.rows))]
    start = "output/outfits16/SharedMap/tiny_ep50_1shots/"
    assert folders == [f"{start}{share}seed1" for share in ("", "all/", "names/", "none/", "off/")]


def test_validation_images_are_needed_where_lambda_is_chosen(arguments):
    for tried, needed in (("(0.1, 1.0)", True), ("(0.1,)", False)):
        trainer = call(arguments("run", "--no-train", **{"TRAINER.SHAREDMAP.LAMBDA": tried}))
        assert trainer.reads_validation_images is needed
    with pytest.raises(UserError, match="TRAINER.SHAREDMAP.LAMBDA"):
        call(arguments("run", "--no-train", **{"TRAINER.SHAREDMAP.LAMBDA": "()"}))
