"""A prompt is data: fixed words, and where the learned context goes.

`[SOS] context name . [EOT]` (context at the "end" of the prefix), `[SOS] context/2 name context/2 . [EOT]`
("middle") and `[SOS] name context . [EOT]` ("front") are described once, by `build_prompts`. Task prompts, class
prompts and final prompts differ only in where their context comes from; a hand-written prompt has none. What stands for
[SOS] and [EOT] is the tokenizer's.
"""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import UserError

POSITIONS = ("end", "middle", "front")


@functools.cache
def clip_tokenizer():
    """CLIP's tokenizer."""
    from clip.text_towers import ClipTokenizer  # open_clip is slow to import

    return ClipTokenizer()


def words(name):
    """A task or class name as it is read by the text encoder: underscores are spaces."""
    return name.replace("_", " ")


class Prompts(nn.Module):
    """`n` prompts as token ids and context slots.

    Buffers (all long):
        tokens (n, L): token ids; positions that hold a context vector have the tokenizer's placeholder, those after the
            end of a prompt 0.
        slots (n, L): which of its context's vectors stands at a position, -1 where a word does.
        lengths (n,): positions up to and including [EOT], or all with a tokenizer whose padding belongs to the prompt.
        context_of (n,): which context a prompt uses.

    Attributes:
        prefix: how many leading positions ([SOS] and context) prompts with the same context have in common; 1 where
            no two prompts share a context, since [SOS] is common to all, and 0 where nothing shall be shared.
    """

    def __init__(self, tokens, slots, lengths, context_of, prefix):
        super().__init__()
        for name, value in dict(tokens=tokens, slots=slots, lengths=lengths, context_of=context_of).items():
            self.register_buffer(name, value, persistent=False)
        self.prefix = prefix
        self.layout = self.chunks = None  # the text encoder's, made when they are first encoded

    def __len__(self):
        return len(self.lengths)

    def select(self, index, context_of=None):
        """The prompts at `index` (k,), using the contexts `context_of` (k,), by default those they had."""
        lengths = self.lengths[index]
        longest = int(lengths.max())
        return Prompts(self.tokens[index, :longest], self.slots[index, :longest], lengths,
                       self.context_of[index] if context_of is None else context_of, self.prefix)


def encode(tokenizer, text, follows=False):
    """Token ids of a text without [SOS] and [EOT], a list; `follows`: something stands before it. Raises UserError."""
    from clip import ClipError  # open_clip is slow to import

    try:
        return tokenizer.encode(text, follows=follows)
    except ClipError as error:
        raise UserError(str(error)) from error


def check_classnames(tasks, tokenizer):
    """Refuse two classes of a task that the text encoder can't tell apart, such as "Red_fox" and "red  fox".

    Tasks of benchmarks that have such names, `repeated_names`, are left as they are.

    Raises:
        UserError: it names the task and both classes.
    """
    for task in tasks:
        seen = {}
        for name in () if task.repeated_names else task.classnames:
            other = seen.setdefault(tuple(encode(tokenizer, words(name))), name)
            if other != name:
                raise UserError(f"task {task.name!r}: the classes {other!r} and {name!r} are the same to the text "
                                "encoder (case, underscores and blanks do not count): give one of them another name, "
                                "or make them one class")


def build_prompts(names, n_ctx=0, position="end", context_of=None, end=".", tokenizer=None):
    """Describe one prompt per name.

    Args:
        names: list of n strings; underscores are spaces.
        n_ctx: number of context vectors in every prompt.
        position: where they go, "end", "middle" (n_ctx // 2 of them before the name) or "front" (after the name).
        context_of: list of n context indices; by default all use context 0.
        end: what closes the prompt, "." as in CoOp.
        tokenizer: of the text encoder; by default CLIP's.

    Returns:
        `Prompts`.

    Raises:
        UserError: unknown position, or a prompt that does not fit or can't be tokenized (the message names it).
    """
    if position not in POSITIONS:
        raise UserError(f"token position {position!r} is unknown, use one of {POSITIONS}")
    context_of = [0] * len(names) if context_of is None else list(context_of)
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    after = n_ctx if position == "front" else n_ctx - before
    after = 0 if position == "end" else after
    tokenizer = tokenizer or clip_tokenizer()
    rows = []  # per prompt a list of (token id, slot)
    for name in names:
        # Tokenised with its closing mark, then split, as CoOp does: a name may end in punctuation.
        ids, n_name = encode(tokenizer, words(name) + end, before > 0), len(encode(tokenizer, words(name), before > 0))
        row = [(tokenizer.placeholder, slot) for slot in range(before)] + [(token, -1) for token in ids[:n_name]]
        row += [(tokenizer.placeholder, before + slot) for slot in range(after)]
        row += [(token, -1) for token in ids[n_name:]]
        if len(row) > tokenizer.longest:
            n_more = tokenizer.context_length - tokenizer.longest  # [SOS] and [EOT]
            raise UserError(f"the prompt for {name!r} has {len(row) + n_more} tokens with its {n_ctx} context vectors, "
                            f"but the text encoder reads {tokenizer.context_length}: shorten the name or the context")
        if max(ids, default=0) >= tokenizer.vocab_size:
            raise UserError(f"the tokenizer makes the id {max(ids)} of {name!r}, but the text encoder knows "
                            f"{tokenizer.vocab_size} ids: tokenizer and weights do not belong together")
        close = [(token, -1) for token in tokenizer.close(len(row))]
        rows.append([(token, -1) for token in tokenizer.start] + row + close)
    longest = max(map(len, rows))
    padded = torch.tensor([row + [(0, -1)] * (longest - len(row)) for row in rows])  # (n, L, 2)
    shares = len(set(context_of)) < len(context_of)
    return Prompts(padded[..., 0].clone(), padded[..., 1].clone(), torch.tensor([len(row) for row in rows]),
                   torch.tensor(context_of), prefix=1 + before if shares else 1)


class LearnedContext(nn.Module):
    """Learned context vectors, the trained part `ctx` of a prompt learner.

    Args:
        n_ctx: number of vectors (ignored if `init` is given); 0 for none, an empty `ctx`.
        embedding: the text encoder's token embedding, which tells the width and the vectors of `init`.
        count: None for one context, ctx (n_ctx, dim); else `count` of them, ctx (count, n_ctx, dim).
        init: words to start from, underscores are spaces; else normal with std 0.02 (CoOp).
        tokenizer: of the text encoder, for these words; by default CLIP's.
    """

    def __init__(self, n_ctx, embedding, count=None, init="", tokenizer=None):
        super().__init__()
        start = init_context(init, embedding, tokenizer) if init else None  # (n_ctx, dim)
        n_ctx = len(start) if init else n_ctx
        shape = (n_ctx, embedding.embedding_dim) if count is None else (count, n_ctx, embedding.embedding_dim)
        self.ctx = nn.Parameter(start.expand(shape).clone() if init else torch.empty(shape).normal_(std=0.02))

    @property
    def n_ctx(self):
        return self.ctx.shape[-2]

    def forward(self):
        """Contexts (count, n_ctx, dim), count being 1 for a single context."""
        return self.ctx if self.ctx.ndim == 3 else self.ctx[None]


class TaskContexts(nn.Module):
    """A learner for each task, kept in `learners`; by default a `LearnedContext` with these arguments."""

    learner = LearnedContext

    def __init__(self, n_tasks, *args, **kwargs):
        super().__init__()
        self.learners = nn.ModuleList(self.learner(*args, **kwargs) for _ in range(n_tasks))

    @property
    def n_ctx(self):
        return self.learners[0].n_ctx

    def forward(self):
        """Contexts of all tasks, one after another, (n_tasks * count, n_ctx, dim)."""
        return torch.cat([learner() for learner in self.learners])


class MetaNetwork(nn.Module):
    """The learned half of SoftCPT's meta network: one matrix without bias from text features to context vectors.

    Args:
        in_dim: size of the input feature.
        n_ctx, dim: number and width of the context vectors it makes.
    """

    def __init__(self, in_dim, n_ctx, dim):
        super().__init__()
        self.proj = nn.Parameter(torch.empty(in_dim, n_ctx * dim).normal_(std=0.02))
        self.shape = n_ctx, dim

    def forward(self, features):
        """Features (n, in_dim) -> contexts (n, n_ctx, dim), float32 as what is learned."""
        return (features.to(self.proj.dtype) @ self.proj).unflatten(1, self.shape)


def similarities(contexts):
    """Cosine similarities (n, n) of contexts (n, n_ctx, dim), each taken as one vector."""
    contexts = F.normalize(contexts.float().flatten(1), dim=1)
    return contexts @ contexts.t()


def init_context(init, embedding, tokenizer=None):
    """Token embeddings of the words of `CTX_INIT`, (number of tokens, dim), float32."""
    ids = torch.tensor((tokenizer or clip_tokenizer()).encode(words(init)), device=embedding.weight.device)
    return embedding(ids).detach().float()
