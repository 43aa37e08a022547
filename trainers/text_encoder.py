"""CLIP's frozen text encoder, exact and without needless work; other text towers, exact and with all the work.

In CLIP attention is causal and only the feature at [EOT] is read. So positions after [EOT] do not matter, and prompts
that begin with the same context share the keys and values of that beginning: it is encoded once per context, not once
per prompt. What differs, the suffixes, is packed into one list of rows.

Where the weights are frozen, a backward pass needs few activations: the inputs of norms, attention and the MLP's
nonlinearity. Attention and nonlinearity cost little next to the matrix products, so what they make on the way is
computed again instead of kept. A method may learn values inside the tower, by parametrizations of its weights
(`torch.nn.utils.parametrize`) or by deep prompts: gradients flow to these as well.

`WholePromptEncoder` serves the towers for which none of this holds.

Where there are many classes, both encode a chunk of prompts at a time, and again in the backward pass (gradient
caching, Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021). What a
step keeps is then the features of all prompts and the activations of one chunk.
"""

from functools import partial

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from common.errors import UserError
from common.memory import give_back

RECOMPUTED_FROM = 2**21  # values; below, a step takes about a gigabyte whatever is kept
CHUNK_ROWS = 4096  # positions of a chunk whose size is not given
# Share of the available memory that activations may take when prompts are encoded at once: a step may encode class
# prompts, then final ones, and a backward pass needs half as much again on its way.
SHARE = 0.4


class PromptEncoder(nn.Module):
    """Base of the text encoders: `forward` encodes prompts in chunks, each by `encode`.

    Attributes:
        chunk: most prompts that are encoded at once, -1 for all. 0: without gradients `CHUNK_ROWS` positions; with
            them all, or as many where the activations of all would not fit into memory.
        checkpoint: recompute activations in the backward pass instead of keeping them.
    """

    def __init__(self):
        super().__init__()
        self.chunk, self.checkpoint = 0, False
        self.rows_that_fit, self.said = None, False

    def forward(self, prompts, ctx=None, deep=None):
        """Encode prompts.

        Args:
            prompts: `Prompts`, n of them.
            ctx: contexts (n_contexts, n_ctx, width) of any float type, or None for prompts without context.
            deep: {i: contexts like `ctx`}, which stand in the places of the context before block i, counted from 0
                (Khattak et al., MaPLe, CVPR 2023); at most n_ctx vectors each, which take the first places.

        Returns:
            Text features (n, output_dim), not normalised, in the encoder's dtype; gradients flow to `ctx`, `deep` and
            to the tower's own values that learn.
        """
        contexts = {**({} if ctx is None else {"ctx": ctx}), **(deep or {})}
        learns = torch.is_grad_enabled() and any(x.requires_grad for x in (*contexts.values(), *self.parameters()))
        size = self.chunk_size(prompts, ctx, learns)
        if size >= len(prompts):
            return self.encode(prompts, ctx, deep)
        chunks, used = chunks_of(prompts, size)
        # Copied once and split, so that a gradient is put together once and not at its full size for every chunk.
        index, sizes = torch.cat(used), [len(own) for own in used]
        contexts = {key: value.index_select(0, index).split(sizes) for key, value in contexts.items()}

        def encode(i, index):
            own = {key: parts[i] for key, parts in contexts.items()}
            return self.encode(chunks[i], own.pop("ctx", None), own)

        # The last chunk's backward pass comes first, so keeping its activations needs no more memory.
        last = len(chunks) - 1
        return torch.cat([again_in_backward(encode, i, index) if learns and i < last else encode(i, index)
                          for i in range(len(chunks))])

    def encode(self, prompts, ctx=None, deep=None):
        """As `forward`, all at once."""
        raise NotImplementedError

    def rows(self, prompts):
        """Number of positions that are encoded for `prompts`."""
        raise NotImplementedError

    def chunk_size(self, prompts, ctx, learns):
        """The number of `prompts` to encode at once; `learns`: for a backward pass."""
        if self.chunk:
            return self.chunk if self.chunk > 0 else len(prompts)
        rows = self.rows(prompts)
        size = max(1, CHUNK_ROWS * len(prompts) // rows)
        if size >= len(prompts) or not learns:
            return size
        if self.rows_that_fit is None:  # once, so that what other processes take changes nothing in a run
            (first, *_), (used, *_) = chunks_of(prompts, size)
            kept = kept_for_backward(partial(self.encode, first, None if ctx is None else ctx[used]), self.parameters())
            self.rows_that_fit = SHARE * available_memory(prompts.tokens.device) * self.rows(first) / kept
        if rows <= self.rows_that_fit:
            return len(prompts)
        if not self.said:
            self.said = True
            print(f"Memory is too small for {len(prompts):,} prompts at once: {size:,} are encoded at a time, and "
                  "again in the backward pass, which takes up to half as much time again (MODEL.TEXT_CHUNK -1: never)")
        return size


class TextEncoder(PromptEncoder):
    """Text features of `Prompts`. Holds CLIP's text modules. `checkpoint` works block by block.

    The blocks' weights are read, but `block.attn` itself is never called, so forward hooks on it would not be. An
    attention module that a method puts there has `num_heads`, `out_proj(x)`, and `qkv(x)`: rows (rows, width) ->
    (rows, 3 * width).
    """

    def __init__(self, clip_model):
        super().__init__()
        self.tokenizer = clip_model.tokenizer
        self.token_embedding = clip_model.token_embedding
        self.positional_embedding = clip_model.positional_embedding
        self.blocks = clip_model.transformer.resblocks
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.heads = self.blocks[0].attn.num_heads

    @property
    def dtype(self):
        return self.blocks[0].mlp.c_fc.weight.dtype

    @property
    def width(self):
        return self.token_embedding.embedding_dim

    @property
    def output_dim(self):
        return self.text_projection.shape[1]

    @property
    def max_length(self):
        return len(self.positional_embedding)

    @property
    def n_blocks(self):
        """Number of blocks that `deep` may stand before."""
        return len(self.blocks)

    def rows(self, prompts):
        return layout_of(prompts).n_rows

    def encode(self, prompts, ctx=None, deep=None):
        layout, last = layout_of(prompts), len(self.blocks) - 1
        x = self._embed(prompts, layout, ctx)  # (rows, width): all prefixes, then all suffixes packed
        for i, block in enumerate(self.blocks):
            if deep and i in deep:
                x = layout.put_contexts(x, deep[i].to(self.dtype))
            x = self._run(self._block if i < last else self._last_block, block, x, layout)
        # (n, width): the rows of [EOT]
        return self.ln_final(x).to(self.dtype) @ self.text_projection.to(self.dtype)

    def compile_blocks(self):
        """Let `torch.compile` make the blocks' kernels, in the first step. It needs a C++ compiler."""
        self._block, self._last_block = torch.compile(self._block), torch.compile(self._last_block)

    def _run(self, function, *args):
        if self.checkpoint and torch.is_grad_enabled():
            return again_in_backward(function, *args)
        return function(*args)

    def _embed(self, prompts, layout, ctx):
        positions = self.positional_embedding.to(self.dtype)
        prefix = self.token_embedding(prompts.tokens[:1, :1]).to(self.dtype)  # (1, 1, width): [SOS]
        if layout.prefix > 1:
            ctx = ctx.to(self.dtype)
            prefix = torch.cat([prefix.expand(len(ctx), 1, -1), ctx[:, :layout.prefix - 1]], dim=1)
        prefix = prefix + positions[:layout.prefix]  # (n_prefixes, prefix, width)
        suffix = self.token_embedding(layout.suffix_tokens).to(self.dtype)  # (suffix rows, width)
        if ctx is not None and len(layout.learned):
            vectors = ctx.to(self.dtype)[layout.learned_context, layout.learned_slot]
            suffix = suffix.index_copy(0, layout.learned, vectors)
        suffix = suffix + positions[layout.suffix_position]
        return torch.cat([prefix.flatten(0, 1), suffix])

    def _block(self, block, x, layout):
        rows = self._qkv(block, x)

        def attend(rows):
            prefix, suffix = layout.split(rows.unflatten(1, (3, self.heads, -1)))
            # Queries, then keys and values. In the backward pass a split is one copy; slices are three each.
            own, prefix = prefix.split([1, 2], dim=2)
            queries, suffix = suffix.split([1, 2], dim=2)
            own = own.squeeze(2)  # (n_prefixes, heads, prefix, d)
            if layout.prefix:
                own = F.scaled_dot_product_attention(own, *prefix.unbind(2), is_causal=True)
            keys, values = layout.with_prefix(prefix, suffix).unbind(2)
            seen = F.scaled_dot_product_attention(queries.squeeze(2), keys, values, attn_mask=layout.causal)
            return torch.cat([own.transpose(1, 2).flatten(0, 1), layout.pack(seen)]).flatten(1)

        return self._residual(block, x, recomputed(attend, rows))

    def _last_block(self, block, x, layout):
        # Only [EOT] is read, so only it asks, and goes through the output projection and the MLP.
        rows = self._qkv(block, x)

        def attend(rows):
            queries, rows = rows.unflatten(1, (3, self.heads, -1)).split([1, 2], dim=1)
            keys, values = layout.with_prefix(*layout.split(rows)).unbind(2)
            query = queries.index_select(0, layout.eot_row).transpose(1, 2)  # (n, heads, 1, d)
            return F.scaled_dot_product_attention(query, keys, values, attn_mask=layout.upto_eot).flatten(1)

        return self._residual(block, x.index_select(0, layout.eot_row), recomputed(attend, rows))

    @staticmethod
    def _qkv(block, x):
        x, attention = block.ln_1(x), block.attn
        if hasattr(attention, "qkv"):
            return attention.qkv(x)
        return F.linear(x, attention.in_proj_weight, attention.in_proj_bias)  # (rows, 3 * width)

    @staticmethod
    def _residual(block, x, attended):
        x = x + block.ls_1(block.attn.out_proj(attended))
        hidden = recomputed(block.mlp.gelu, block.mlp.c_fc(block.ln_2(x)))  # (rows, 4 * width)
        return x + block.ls_2(block.mlp.c_proj(hidden))


class WholePromptEncoder(PromptEncoder):
    """Text features of `Prompts` from a text tower of another layout than CLIP's: each prompt at all its positions.

    Without a causal mask no two prompts have a beginning in common; how a tower pools, and whether it sees padding, is
    its own. So the tower's own code runs, with the contexts in place of the embeddings of placeholders.
    `checkpoint` encodes a chunk at a time whether or not all would fit into memory.
    """

    def __init__(self, clip_model):
        super().__init__()
        self.tokenizer = clip_model.tokenizer
        self.tower = clip_model.text
        print(f"The text tower {self.tower.difference}: no prefix is shared, every prompt is encoded whole (slower)")

    @property
    def token_embedding(self):
        return self.tower.token_embedding

    @property
    def dtype(self):
        return self.tower.dtype

    @property
    def width(self):
        return self.token_embedding.embedding_dim

    @property
    def output_dim(self):
        return self.tower.output_dim

    @property
    def n_blocks(self):
        raise self.no_deep()

    def no_deep(self):
        return UserError("deep prompts need a text tower of CLIP's layout, but this backbone's "
                         f"{self.tower.difference}: use another backbone")

    def rows(self, prompts):
        return prompts.tokens.numel()

    def chunk_size(self, prompts, ctx, learns):
        return super().chunk_size(prompts, ctx, learns and not self.checkpoint)

    def encode(self, prompts, ctx=None, deep=None):
        if deep:
            raise self.no_deep()
        if prompts.layout is None or prompts.layout[0].device != prompts.tokens.device:
            row, position = (prompts.slots >= 0).nonzero(as_tuple=True)  # waits for the device, so it is kept
            prompts.layout = row, position, prompts.context_of[row], prompts.slots[row, position]
        row, position, context, slot = prompts.layout
        if ctx is None or not len(row):
            return self.tower(prompts.tokens)
        return self.tower(prompts.tokens, (row, position), ctx[context, slot])

    def compile_blocks(self):
        raise UserError("MODEL.COMPILE compiles a text tower of CLIP's layout only, but this backbone's "
                        f"{self.tower.difference}: set MODEL.COMPILE False")


def recomputed(function, x):
    """`again_in_backward`, where x is so large that it is worth it.

    A compiler decides by itself what it keeps.
    """
    large = not torch.compiler.is_compiling() and x.numel() >= RECOMPUTED_FROM
    worth_it = large and torch.is_grad_enabled() and x.requires_grad
    return again_in_backward(function, x) if worth_it else function(x)


def again_in_backward(function, *args, **kwargs):
    """`function(*args, **kwargs)`, keeping its arguments alone for the backward pass, where it is called again.

    Gradients flow to the arguments and to all that `function` reads besides them, such as learned weights. It draws the
    same random numbers again, if one of `args` is a tensor: `checkpoint` keeps the state of their device's generator.
    """
    # The generator's state can't be read while a CUDA graph is captured; what draws is not captured.
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=not capturing, **kwargs)


def kept_for_backward(forward, frozen):
    """Bytes of what `forward()` keeps for its backward pass. They are counted and not kept, so it fits anywhere.

    Args:
        frozen: tensors not to count, since they are there anyway.
    """
    sizes = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        sizes[StorageWeakRef(storage)] = storage.nbytes()  # tensors may share one; the reference tells new from old

    with torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept):
        forward()
    return sum(sizes.values()) - sum(sizes.get(StorageWeakRef(t.untyped_storage()), 0) for t in frozen)


def available_memory(device):
    """Bytes that can still be taken, on the GPU where `device` is one."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    give_back()
    return psutil.virtual_memory().available


def chunks_of(prompts, size):
    """Split prompts into chunks of `size`; the result is kept with them, as their layout.

    Returns:
        `Prompts` of all chunks, and which contexts they use, as `using_own`.
    """
    if prompts.chunks is None or prompts.chunks[0] != (size, prompts.tokens.device):
        chunks = [using_own(prompts, index)
                  for index in torch.arange(len(prompts), device=prompts.tokens.device).split(size)]
        prompts.chunks = (size, prompts.tokens.device), *zip(*chunks)
    return prompts.chunks[1:]


def using_own(prompts, index):
    """The prompts at `index` (k,) with the contexts that they use counted from 0, and which these are."""
    used, context_of = prompts.context_of[index].unique(return_inverse=True)
    return prompts.select(index, context_of), used


def layout_of(prompts):
    """The `_Layout` of prompts. It is kept with them: making it waits for the device, using it does not."""
    if prompts.layout is None or prompts.layout.device != prompts.tokens.device:
        prompts.layout = _Layout(prompts)
    return prompts.layout


class _Layout:
    """The places of the rows in the packed tensor, and the masks that say which rows attend to which."""

    def __init__(self, prompts):
        self.prefix = prompts.prefix
        self.device = device = prompts.tokens.device
        n_suffix = prompts.lengths - self.prefix  # (n,)
        longest = prompts.tokens.shape[1] - self.prefix
        steps = torch.arange(longest, device=device)
        real = steps < n_suffix[:, None]  # (n, S): positions up to [EOT]
        self.padded_shape = tuple(real.shape)
        self.real = real.flatten().nonzero()[:, 0]  # (suffix rows,): where they stand in (n * S,)
        self.suffix_tokens = prompts.tokens[:, self.prefix:].flatten()[self.real]
        self.suffix_position = self.prefix + steps.expand_as(real).flatten()[self.real]
        slots = prompts.slots[:, self.prefix:].flatten()[self.real]
        self.learned = (slots >= 0).nonzero()[:, 0]  # the suffix rows that hold a context vector ...
        self.learned_slot = slots[self.learned]
        self.learned_context = prompts.context_of[self.real[self.learned] // longest]  # ... and of which context
        self.places = {}
        # With a prefix of [SOS] alone there is a single one, common to all prompts.
        self.prefix_of = prompts.context_of if self.prefix > 1 else torch.zeros_like(prompts.context_of)
        self.n_prefixes = int(self.prefix_of.max()) + 1
        self.n_rows = self.n_prefixes * self.prefix + len(self.real)
        self.eot_row = self.n_prefixes * self.prefix + n_suffix.cumsum(0) - 1
        seen = torch.ones(longest, self.prefix, dtype=torch.bool, device=device)
        # Padding lies after [EOT], so the causal mask hides it from every real position.
        self.causal = torch.cat([seen, steps <= steps[:, None]], dim=1)  # (S, prefix + S)
        self.upto_eot = self.causal[n_suffix - 1][:, None, None]  # (n, 1, 1, prefix + S)

    def put_contexts(self, x, contexts):
        """Rows x (rows, width) with `contexts` (n_contexts, k, width) in the first k places of those in the prompts."""
        k = contexts.shape[1]
        shared = min(k, self.prefix - 1)  # vectors in the common beginning, after [SOS]
        if shared:
            n = self.n_prefixes * self.prefix
            prefix = x[:n].unflatten(0, (self.n_prefixes, self.prefix))
            prefix = torch.cat([prefix[:, :1], contexts[:, :shared], prefix[:, 1 + shared:]], dim=1)
            x = torch.cat([prefix.flatten(0, 1), x[n:]])
        rows, context, slot = self.suffix_places(k)
        return x.index_copy(0, rows, contexts[context, slot]) if len(rows) else x

    def suffix_places(self, k):
        """The packed rows of suffixes that hold one of the first k vectors of a context, which context, and which."""
        if k not in self.places:  # finding them waits for the device
            own = self.learned_slot < k
            self.places[k] = (self.n_prefixes * self.prefix + self.learned[own], self.learned_context[own],
                              self.learned_slot[own])
        return self.places[k]

    def split(self, rows):
        """Rows (rows, k, heads, d) of k tensors -> prefixes (n_prefixes, heads, k, prefix, d) and suffixes.

        Suffixes are padded with zeros, (n, heads, k, S, d).
        """
        prefix, suffix = rows.split([self.n_prefixes * self.prefix, len(self.real)])
        padded = rows.new_zeros(self.padded_shape[0] * self.padded_shape[1], *rows.shape[1:])  # (n * S, k, heads, d)
        padded.index_copy_(0, self.real, suffix)
        return (prefix.unflatten(0, (self.n_prefixes, self.prefix)).permute(0, 3, 2, 1, 4),
                padded.unflatten(0, self.padded_shape).permute(0, 3, 2, 1, 4))

    def pack(self, padded):
        """Per head and prompt (n, heads, S, d) -> suffix rows (suffix rows, heads, d)."""
        return padded.transpose(1, 2).flatten(0, 1).index_select(0, self.real)

    def with_prefix(self, prefix, suffix):
        """Keys or values that every prompt sees: those of its prefix, then its own, (n, heads, k, prefix + S, d)."""
        prefix = prefix.index_select(0, self.prefix_of)
        if prefix.requires_grad:  # the prompts' gradients are summed much faster where they lie without gaps
            prefix.register_hook(torch.Tensor.contiguous)
        return torch.cat([prefix, suffix], dim=3)
