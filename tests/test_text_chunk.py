"""MODEL.TEXT_CHUNK: features and gradients are those of all prompts at once, and no more are encoded at a time."""

import functools

import pytest
import torch

from datasets.base import Task
from tests.helpers import call, train_args
from tests.parity import build_trainer
from tests.test_text_encoder import relative_error
from trainers import text_encoder

WORDS = "red green dark light spotted owl daisy corn leaf maple".split()
NAMES = [" ".join(WORDS[int(digit)] for digit in str(i)) for i in range(1000)]  # of one to three words
TASKS = [Task("colour naming", tuple(NAMES[:500])), Task("bird species", tuple(NAMES[500:990])),
         Task("letters", tuple(NAMES[990:]))]
LABELS = torch.tensor([0, 3, 499, 500, 700, 990])
METHODS = {
    "CoOp-MT": ("MTCoOpHard", {}), "CoOp-CA": ("MTCoOpHard", {"TSC": True}), "CoOp-CS": ("MTCoOpHard", {"CSC": True}),
    "NATA": ("MTCoOp", {}), "NATS": ("MTCoOp", {"TASK_CSC": True}), "CATA": ("MTCoOp", {"CSC": True}),
    "CSTS": ("MTCoOp", {"CSC": True, "CLASS_CSC": True, "TASK_CSC": True}),
    "KgCoOp": ("KgCoOp", {}), "ProGrad": ("ProGrad", {}), "PLOT": ("PLOT", {"N": 2}),
    "CoCoOp": ("CoCoOp", {"MAX_PROMPTS": 700}), "TCP": ("TCP", {"LAYER": 1}), "DePT": ("DePT", {}),
}
CASES = [(method, position) for method, (name, _) in METHODS.items()
         for position in (("end", "middle", "front") if name.startswith("MTCoOp") else ("end",))]
NODES = {"MTCoOpHard": "MTCOOPH"}


def make(method, backbone, position="end", prec="fp64", **settings):
    name, options = METHODS[method]
    if name.startswith("MTCoOp"):
        options = {"TOKEN_POSITION": position, **options}
    if name == "MTCoOp":
        options = {"CLASS_N_CTX": 2, "TASK_N_CTX": 2, "CLASS_TOKEN_POSITION": position, **options}
    options = {f"TRAINER.{NODES.get(name, name.upper())}.{key}": value
               for key, value in {"N_CTX": 3, "PREC": prec, **options}.items()}
    torch.manual_seed(0)
    trainer = build_trainer(name, backbone, TASKS, 32, {**options, **settings})
    trainer.model.text_encoder.token_embedding.weight.normal_(std=0.1)  # the file's has the same for most words
    generator = torch.Generator().manual_seed(1)
    trainer.features = torch.randn((6, 5, 64) if method == "PLOT" else (6, 64), generator=generator)
    return trainer


def gradients(trainer, chunk=None):
    """{name: value} of a batch's losses and gradients, and the numbers of prompts that were encoded at once."""
    encoder, sizes = trainer.model.text_encoder, []
    encoder.chunk = encoder.chunk if chunk is None else chunk
    encode = type(encoder).encode

    def counted(prompts, ctx=None, deep=None):
        assert torch.is_autocast_enabled("cpu") == (trainer.scaler is not None)  # in the backward pass, too
        sizes.append(len(prompts))
        return encode(encoder, prompts, ctx, deep)

    encoder.encode = counted
    for value in trainer.trained:
        value.grad = None
    found = trainer.add_gradients(trainer.features, LABELS)
    found |= {key: value.grad for key, value in trainer.model.named_parameters() if value.requires_grad}
    del encoder.encode
    return found, sizes


def check_same(found, expected, tolerance=1e-12):
    for key, value in expected.items():
        assert relative_error(found[key].double(), value.double()) < tolerance, key


@pytest.mark.parametrize("method, position", CASES)
def test_gradients_are_those_of_all_prompts_at_once(method, position, backbone):
    trainer = make(method, backbone, position)
    expected, sizes = gradients(trainer, -1)
    assert max(sizes) >= 500 and all(value.abs().max() > 0 for key, value in expected.items() if key != "acc")
    for chunk in (333, 64) if position == "end" else (333,):
        found, sizes = gradients(trainer, chunk)
        check_same(found, expected)
        assert max(sizes) == chunk


def test_any_chunk_will_do(backbone):
    """Of a prompt, of all but one, of all, of more; a second backward pass as ProGrad's takes them again."""
    trainer = make("NATA", backbone)
    trainer.model.prompt_learner = trainer.model.prompt_learner.select(torch.arange(0, 1000, 50))
    encoder, prompts = trainer.model.text_encoder, trainer.model.prompt_learner
    ctx = torch.randn(2, 3, 64, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(20, 64, dtype=torch.float64)

    def run(chunk):
        encoder.chunk = chunk
        features = encoder(prompts, ctx)
        first, = torch.autograd.grad((features * weights).sum(), ctx, retain_graph=True)
        second, = torch.autograd.grad(features.square().sum(), ctx)
        return features, first, second

    expected = run(-1)
    for chunk in (1, 3, 19, 20, 99):
        for ours, theirs in zip(run(chunk), expected):
            assert relative_error(ours, theirs) < 1e-12, chunk


CHECKPOINT, COMPILE = {"MODEL.CHECKPOINT_TEXT": True}, {"MODEL.COMPILE": True}


@pytest.mark.parametrize("scaled, settings", [(True, {}), (False, CHECKPOINT), (True, CHECKPOINT),
                                              (True, {**CHECKPOINT, **COMPILE})], ids=str)
def test_with_other_ways_to_save(scaled, settings, backbone, monkeypatch):
    """Recomputed and compiled blocks, and a gradient scaler under autocast (of CUDA's, which a CPU does not have)."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    monkeypatch.setattr(text_encoder, "RECOMPUTED_FROM", 0)
    torch.compiler.reset()
    trainer = make("NATA", backbone, prec="fp32" if scaled else "fp64", **{"MODEL.TEXT_CHUNK": 400, **settings})
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10) if scaled else None
    found, sizes = gradients(trainer)
    assert max(sizes) == 400
    expected, sizes = gradients(trainer, -1)
    check_same(found, expected, 2e-2 if scaled else 1e-12)
    assert max(sizes) == 1000


def test_chunks_are_taken_where_memory_is_too_small(backbone, monkeypatch, capsys):
    monkeypatch.setattr(text_encoder, "CHUNK_ROWS", 500)
    monkeypatch.setattr(text_encoder, "RECOMPUTED_FROM", 0)  # in small chunks as in large ones
    trainer = make("CoOp-MT", backbone)
    encoder, prompts, ctx = trainer.model.text_encoder, trainer.model.prompts, trainer.model.prompt_learner()
    rows = encoder.rows(prompts)
    assert rows == 4 + int(prompts.lengths.sum()) - 4 * 1000  # [SOS] and the context once
    kept = text_encoder.kept_for_backward(lambda: encoder.encode(prompts, ctx), encoder.parameters())
    expected, sizes = gradients(trainer, -1)
    assert sizes == [1000]
    at_once = 500 * 1000 // rows
    for share, chunked in ((0.8, True), (1.25, False)):
        encoder.rows_that_fit, encoder.said = None, False
        monkeypatch.setattr(text_encoder, "available_memory", lambda device: share * kept / text_encoder.SHARE)
        for call in range(2):
            capsys.readouterr()
            found, sizes = gradients(trainer, 0)
            check_same(found, expected)
            assert max(sizes) == (at_once if chunked else 1000)
            said = f"Memory is too small for 1,000 prompts at once: {at_once} are encoded at a time"
            assert capsys.readouterr().out.count(said) == (chunked and call == 0)
    monkeypatch.setattr(text_encoder, "available_memory", lambda device: 0)
    encoder.rows_that_fit = None
    assert gradients(trainer, -1)[1] == [1000]
    few = prompts.select(torch.arange(20))
    assert encoder.chunk_size(few, ctx, True) >= 20 and not capsys.readouterr().out


@pytest.mark.parametrize("chunk, most", [(0, 100), (300, 300), (-1, 1000)])
def test_testing_encodes_no_more(chunk, most, backbone, monkeypatch):
    """Class features without gradients, and those of hand-written prompts."""
    trainer = make("KgCoOp", backbone)
    model, encoder = trainer.model, trainer.model.text_encoder
    templates = [task.template for task in TASKS]
    with torch.no_grad():
        encoder.chunk = -1
        expected = model.class_features(), model.template_features(templates)
        sizes = []
        encoder.encode = lambda *args: sizes.append(len(args[0])) or type(encoder).encode(encoder, *args)
        encoder.chunk = chunk
        monkeypatch.setattr(text_encoder, "CHUNK_ROWS", 300)
        for ours, theirs in zip((model.class_features(), model.template_features(templates)), expected):
            assert relative_error(ours, theirs) < 1e-12
    assert max(sizes) <= most and sum(sizes) == 2000


def test_available_memory_is_told():
    assert 2**20 < text_encoder.available_memory(torch.device("cpu")) < 2**50


def test_a_run_is_the_same_whatever_is_encoded_at_once(photo_root, backbone, tmp_path):
    """In double precision, learned values and test logits do not depend on what saves memory."""
    def run(**settings):
        trainer = call(train_args(photo_root, backbone, tmp_path / "-".join(map(str, settings.values())), "MTCoOp", **{
            "TRAINER.MTCOOP.PREC": "fp64", "DATASET.SPLIT_DIR": tmp_path / "splits", "OPTIM.LR": 0.1,
            "DATALOADER.TEST.BATCH_SIZE": 32, **settings}))
        learned = torch.cat([value.flatten() for part in trainer.learned().values() for value in part.values()])
        with torch.no_grad():
            return learned, trainer.model.score(trainer.features("test")[0], trainer.model.class_features())

    expected = run(**{"MODEL.TEXT_CHUNK": -1})
    for settings in ({"MODEL.TEXT_CHUNK": 1}, {"MODEL.TEXT_CHUNK": 2}, {"MODEL.TEXT_CHUNK": 7},
                     {"DATALOADER.TEST.BATCH_SIZE": 3}, {"DATALOADER.TEST.BATCH_SIZE": 100}):
        for ours, theirs in zip(run(**settings), expected):
            assert relative_error(ours, theirs) < 1e-9, settings
