"""The shared-prefix, packed text encoder against the plain one that encodes 77 positions per prompt."""

import copy
import functools
import itertools

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parametrize

from benchmarks.plain import PlainTextEncoder
from clip import clip
from clip.model import convert_to_double, convert_weights
from clip.simple_tokenizer import SimpleTokenizer
from datasets.base import Task
from tests.helpers import REPOSITORY, make_cfg
from trainers import text_encoder
from trainers.mtcoop import SoftSharedCLIP
from trainers.mtcoop_hard import HardSharedCLIP
from trainers.prompts import LearnedContext, build_prompts, words
from trainers.text_encoder import TextEncoder

MORE_NAMES = ["cat", "big dog", "red fox on grass", "bird", "tree frog", "house", "a very long name indeed", "car",
              "ship", "x", "y z", "w"]
NAMES = ["daisy", "bird_of_paradise", "corn leaf with cercospora leaf spot or gray leaf spot", "tulip", "U.S."]
OWNERS = {"shared": [0, 0, 0, 0, 0], "per task": [0, 0, 1, 1, 1], "per class": [0, 1, 2, 3, 4]}


@pytest.fixture(scope="module")
def model(backbone):
    model, _ = clip.load(backbone, device="cpu")
    return model.requires_grad_(False)


def relative_error(ours, plain):
    """Largest difference over the largest magnitude (a task with a lone class has gradients that are all 0)."""
    return float((ours - plain).abs().max() / plain.abs().max().clamp(min=1e-30))


def plain_features(model, names, ctx, context_of, position):
    """CoOp's recipe: tokenize with placeholders, put the context in, run all 77 positions, read at [EOT]."""
    n_ctx, rows, ends = ctx.shape[1], [], []
    tokenizer = SimpleTokenizer()
    for name, owner in zip(names, context_of):
        tokens = clip.tokenize(" ".join(["X"] * n_ctx) + " " + words(name) + ".")[0]
        embedded = model.token_embedding(tokens)  # (77, dim)
        n_name = len(tokenizer.encode(words(name)))
        name_rows, suffix = embedded[1 + n_ctx:1 + n_ctx + n_name], embedded[1 + n_ctx + n_name:]
        half = n_ctx // 2
        parts = {"end": [ctx[owner], name_rows], "middle": [ctx[owner, :half], name_rows, ctx[owner, half:]],
                 "front": [name_rows, ctx[owner]]}[position]
        rows.append(torch.cat([embedded[:1], *parts, suffix]))
        ends.append(int(tokens.argmax()))
    x = torch.stack(rows) + model.positional_embedding
    x = model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
    x = model.ln_final(x)
    return x[torch.arange(len(names)), ends] @ model.text_projection


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("owners", OWNERS)
def test_features_and_gradients_equal_the_plain_encoder(model, position, owners):
    context_of = OWNERS[owners]
    torch.manual_seed(0)
    ctx = (0.3 * torch.randn(max(context_of) + 1, 5, 64)).requires_grad_()
    prompts = build_prompts(NAMES, 5, position, context_of)
    weights = torch.randn(len(NAMES), 64)
    results = []
    for encode in (lambda: TextEncoder(model)(prompts, ctx),
                   lambda: plain_features(model, NAMES, ctx, context_of, position)):
        features = encode()
        results.append((features, torch.autograd.grad((features * weights).sum(), ctx)[0]))
    (ours, our_grad), (plain, plain_grad) = results
    assert relative_error(ours, plain) < 1e-5
    assert relative_error(our_grad, plain_grad) < 1e-4


TASKS = [Task("flower species recognition", tuple(NAMES[:2] + ["rose"])), Task("letters", tuple(NAMES[2:])),
         Task("a lone class", ("one",))]
VARIANTS = {
    "CoOp": (HardSharedCLIP, {}), "CoOp per task": (HardSharedCLIP, {"TSC": True}),
    "CoOp per class": (HardSharedCLIP, {"CSC": True}),
    "NATA": (SoftSharedCLIP, {}), "NATS": (SoftSharedCLIP, {"TASK_CSC": True}),
    "CATA": (SoftSharedCLIP, {"CSC": True}), "CSTA": (SoftSharedCLIP, {"CSC": True, "CLASS_CSC": True}),
    "CATS": (SoftSharedCLIP, {"CSC": True, "TASK_CSC": True, "PG_TYPE": "linmean"}),
    "CSTS": (SoftSharedCLIP, {"CSC": True, "CLASS_CSC": True, "TASK_CSC": True, "PG_TYPE": "lincls"}),
}


@pytest.mark.parametrize("precision, of_logits, of_gradients", [("fp32", 1e-5, 3e-4), ("fp64", 1e-12, 1e-11)])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_equal_the_plain_encoder(model, variant, position, precision, of_logits, of_gradients):
    """Logits of a batch and gradients of all that is learned; and CHECKPOINT_TEXT changes no bit."""
    model = copy.deepcopy(model)
    network, options = VARIANTS[variant]
    node = "MTCOOPH" if network is HardSharedCLIP else "MTCOOP"
    positions = ("TOKEN_POSITION",) if node == "MTCOOPH" else (
        "TOKEN_POSITION", "TASK_TOKEN_POSITION", "CLASS_TOKEN_POSITION")
    lengths = {"N_CTX": 5} if node == "MTCOOPH" else {"N_CTX": 5, "TASK_N_CTX": 3, "CLASS_N_CTX": 2}
    options = {f"TRAINER.{node}.{key}": value
               for key, value in {**options, **lengths, **dict.fromkeys(positions, position)}.items()}
    torch.manual_seed(0)
    ours = network(model, TASKS, make_cfg(options=options).TRAINER[node])
    if precision == "fp64":
        ours.to_double()
    learned = [p for p in ours.parameters() if p.requires_grad]
    images, labels = torch.randn(8, 64), torch.tensor([0, 1, 2, 3, 4, 5, 6, 2])

    def run(encoder, checkpoint=False):
        ours.text_encoder = encoder(model)
        ours.text_encoder.checkpoint = checkpoint
        logits = ours.score(images, ours.class_features())
        loss = torch.nn.functional.cross_entropy(ours.mask_other_tasks(logits, labels), labels)
        return logits.detach(), torch.autograd.grad(loss, learned)

    logits, gradients = run(TextEncoder)
    plain_logits, plain_gradients = run(PlainTextEncoder)
    assert logits.dtype == (torch.float64 if precision == "fp64" else torch.float32)
    assert relative_error(logits, plain_logits) < of_logits
    again, recomputed = run(TextEncoder, checkpoint=True)
    assert torch.equal(again, logits)
    for ours_, plain, once_more in zip(gradients, plain_gradients, recomputed):
        assert relative_error(ours_, plain) < of_gradients and torch.equal(once_more, ours_)


class LowRank(torch.nn.Module):
    """A parametrization that adds a learned matrix of rank 2."""

    def __init__(self, weight):
        super().__init__()
        rows, columns = weight.shape
        self.down = torch.nn.Parameter(0.1 * torch.randn(2, columns, dtype=weight.dtype))
        self.up = torch.nn.Parameter(0.1 * torch.randn(rows, 2, dtype=weight.dtype))

    def forward(self, weight):
        return weight + self.up @ self.down


@pytest.fixture(scope="module")
def adapted():
    """The tiny CLIP in double, whose text tower has learned weights in every block."""
    model, _ = clip.load(str(REPOSITORY / "clip" / "tiny.safetensors"), device="cpu")
    convert_to_double(model.requires_grad_(False))
    torch.manual_seed(0)
    for block in model.transformer.resblocks:
        parametrize.register_parametrization(block.attn, "in_proj_weight", LowRank(block.attn.in_proj_weight))
    return model


def encode_one(model, tokens, slots, ctx, deep):
    """The feature of one prompt, of L positions.

    Args:
        tokens, slots: (L,), as in `Prompts`. ctx: (n_ctx, width). deep: {block: (n, width)}, n at most n_ctx.
    """
    x = model.token_embedding(tokens)
    where, slot = (slots >= 0).nonzero()[:, 0], slots[slots >= 0]
    x = x.index_copy(0, where, ctx[slot]) + model.positional_embedding[:len(x)]
    for i, block in enumerate(model.transformer.resblocks):
        if i in deep:
            taken = slot < len(deep[i])
            x = x.index_copy(0, where[taken], deep[i][slot[taken]])
        rows = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = rows.unflatten(1, (3, block.attn.num_heads, -1)).permute(1, 2, 0, 3)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(0, 1).flatten(1)
        x = x + block.attn.out_proj(attended)
        x = x + block.mlp(block.ln_2(x))
    return model.ln_final(x[-1]) @ model.text_projection


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("owners", [[0] * 12, [0, 0, 1, 1, 2, 2, 0, 1, 2, 3, 3, 3], range(12)],
                         ids=["shared by all", "by some", "by none"])
def test_what_is_learned_inside_the_tower(adapted, position, owners):
    """Learned weights and deep prompts, of which one has fewer vectors; in chunks, and recomputed."""
    torch.manual_seed(1)

    def contexts(n):
        return (0.02 * torch.randn(max(owners) + 1, n, 64, dtype=torch.float64)).requires_grad_()

    prompts, ctx, deep = build_prompts(MORE_NAMES, 4, position, owners), contexts(4), {1: contexts(4), 2: contexts(3)}
    learned = [ctx, *deep.values(), *(value for value in adapted.parameters() if value.requires_grad)]
    plain = torch.stack([
        encode_one(adapted, prompts.tokens[i, :n], prompts.slots[i, :n], ctx[owner],
                   {block: own[owner] for block, own in deep.items()})
        for i, (n, owner) in enumerate(zip(prompts.lengths.tolist(), owners))])
    weights = torch.randn_like(plain)
    expected = plain, *torch.autograd.grad((plain * weights).sum(), learned)
    encoder = TextEncoder(adapted)
    assert len(learned) == 3 + 2 * len(encoder.blocks)
    for chunk, checkpoint in itertools.product((-1, 4, 1, 5), (False, True)):
        encoder.chunk, encoder.checkpoint = chunk, checkpoint
        features = encoder(prompts, ctx, deep)
        found = features, *torch.autograd.grad((features * weights).sum(), learned)
        assert all(relative_error(ours, theirs) < 1e-12 for ours, theirs in zip(found, expected)), (chunk, checkpoint)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_compiled_blocks_change_nothing(model, monkeypatch, checkpoint):
    """The graphs are those of MODEL.COMPILE, whole; the backend runs them as they are, without a C++ compiler."""
    graphs = []
    backend = functools.partial(torch.compile, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True)
    monkeypatch.setattr(text_encoder, "RECOMPUTED_FROM", 0)
    ctx = torch.randn(2, 5, 64, requires_grad=True)
    prompts = build_prompts(NAMES, 5, "end", [0, 0, 1, 1, 1])
    encoder = TextEncoder(model)
    encoder.checkpoint = checkpoint

    def run():
        features = encoder(prompts, ctx)
        return features, torch.autograd.grad(features.square().sum(), ctx)[0]

    eager = run()
    monkeypatch.setattr(torch, "compile", backend)
    encoder.compile_blocks()
    for ours, theirs in zip(run(), eager):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert len(graphs) == 2  # of a block, of the last one


def test_lower_precisions_stay_near(model):
    """bf16 towers, and autocast: features as near to fp32's as the plain encoder's."""
    prompts, ctx = build_prompts(NAMES, 5, "end", [0, 0, 1, 1, 1]), torch.randn(2, 5, 64)
    exact = TextEncoder(model)(prompts, ctx)
    low = copy.deepcopy(model)
    convert_weights(low.transformer, torch.bfloat16)
    for encoder in (TextEncoder, PlainTextEncoder):
        features = encoder(low)(prompts, ctx)
        assert features.dtype == torch.bfloat16 and relative_error(features.float(), exact) < 0.05
    ctx.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        features = TextEncoder(model)(prompts, ctx)
    assert relative_error(features.float(), exact) < 0.05
    assert torch.isfinite(torch.autograd.grad(features.float().sum(), ctx)[0]).all()


def test_prompts_without_context_equal_encode_text(model):
    texts = ["a photo of a cat.", "art of the bird of paradise.", "two"]
    ours = TextEncoder(model)(build_prompts(texts, end=""))
    torch.testing.assert_close(ours, model.encode_text(clip.tokenize(texts)), rtol=1e-4, atol=1e-4)


def test_shared_contexts_are_encoded_once(model):
    """What grows with the classes is the suffix: `[SOS] context` counts once per context."""
    rows = []
    encoder = TextEncoder(model)
    encoder.blocks[0].ln_1.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    encoder(build_prompts(["daisy"] * 10, 16, "end", [0] * 10), torch.randn(1, 16, 64))
    encoder(build_prompts(["daisy"] * 10, 16, "end", range(10)), torch.randn(10, 16, 64))
    assert rows == [17 + 10 * 3, 1 + 10 * 19]  # a suffix is: daisy, ".", [EOT]


def test_selected_prompts_give_the_same_features(model):
    ctx = torch.randn(2, 4, 64)
    prompts = build_prompts(NAMES, 4, "end", [0, 0, 1, 1, 1])
    encoder = TextEncoder(model)
    index = torch.tensor([1, 3])
    torch.testing.assert_close(encoder(prompts.select(index), ctx), encoder(prompts, ctx)[index], rtol=1e-4, atol=1e-4)


def test_context_init_is_the_embedding_of_its_words(model):
    learner = LearnedContext(16, model.token_embedding, count=3, init="a_photo_of_a")
    expected = model.token_embedding(torch.tensor([320, 1125, 539, 320]))
    assert learner.n_ctx == 4 and learner().shape == (3, 4, 64)
    assert all(torch.equal(ctx, expected) for ctx in learner())


def test_too_long_prompt_names_the_text():
    with pytest.raises(ValueError, match="'very very.*98 tokens.*reads 77"):
        build_prompts(["very " * 79], 16)


def test_a_context_without_vectors_is_the_words_alone(model):
    learner = LearnedContext(0, model.token_embedding, count=2)
    prompts = build_prompts(["daisy", "rose"], learner.n_ctx, context_of=[0, 1])
    encoder = TextEncoder(model)
    assert learner().shape == (2, 0, 64) and torch.equal(encoder(prompts, learner()), encoder(prompts))
