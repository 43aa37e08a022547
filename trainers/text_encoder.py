"""CLIP's frozen text encoder, exact and without needless work.

Attention is causal and only the feature at [EOT] is read. So positions after [EOT] do not matter, and prompts that
begin with the same context share the keys and values of that beginning: it is encoded once per context, not once per
prompt. What differs, the suffixes, is packed into one list of rows.
"""

import torch
from torch import nn
from torch.nn import functional as F


class TextEncoder(nn.Module):
    """Text features of `Prompts`. Holds CLIP's text modules, all frozen."""

    def __init__(self, clip_model):
        super().__init__()
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

    def forward(self, prompts, ctx=None):
        """Encode prompts.

        Args:
            prompts: `Prompts`, n of them.
            ctx: contexts (n_contexts, n_ctx, width) of any float type, or None for prompts without context.

        Returns:
            Text features (n, output_dim), not normalised, in the encoder's dtype; gradients flow to `ctx`.
        """
        layout = _Layout(prompts)
        x = self._embed(prompts, layout, ctx)  # (rows, width): all prefixes, then all suffixes packed
        for block in self.blocks[:-1]:
            x = self._block(block, x, layout)
        x = self._last_block(self.blocks[-1], x, layout)  # (n, width): the rows of [EOT]
        return self.ln_final(x).to(self.dtype) @ self.text_projection.to(self.dtype)

    def _embed(self, prompts, layout, ctx):
        positions = self.positional_embedding.to(self.dtype)
        prefix = self.token_embedding(prompts.tokens[:1, :1]).to(self.dtype)  # (1, 1, width): [SOS]
        if layout.prefix > 1:
            ctx = ctx.to(self.dtype)
            prefix = torch.cat([prefix.expand(len(ctx), 1, -1), ctx[:, :layout.prefix - 1]], dim=1)
        prefix = prefix + positions[:layout.prefix]  # (n_prefixes, prefix, width)
        suffix = self.token_embedding(prompts.tokens[:, layout.prefix:][layout.real]).to(self.dtype)
        slots = prompts.slots[:, layout.prefix:][layout.real]  # (suffix rows,)
        if ctx is not None and len(learned := (slots >= 0).nonzero()[:, 0]):
            context_of = prompts.context_of[:, None].expand_as(layout.real)[layout.real]
            vectors = ctx.to(self.dtype)[context_of[learned], slots[learned]]
            suffix = suffix.index_copy(0, learned, vectors)
        suffix = suffix + positions[layout.prefix:][layout.suffix_position]
        return torch.cat([prefix.flatten(0, 1), suffix])

    def _block(self, block, x, layout):
        q, k, v = self._qkv(block, x, layout)
        own = F.scaled_dot_product_attention(*(t.prefix for t in (q, k, v)), is_causal=True)
        shared = F.scaled_dot_product_attention(
            q.suffix, layout.with_prefix(k), layout.with_prefix(v), attn_mask=layout.causal)
        attended = torch.cat([own.transpose(1, 2).flatten(0, 1), shared.transpose(1, 2)[layout.real]]).flatten(1)
        return self._residual(block, x, attended)

    def _last_block(self, block, x, layout):
        # Only [EOT] is read, so only it asks, and goes through the output projection and the MLP.
        q, k, v = self._qkv(block, x, layout)
        at = layout.eot[:, None, None, None].expand(-1, self.heads, 1, q.suffix.shape[-1])
        attended = F.scaled_dot_product_attention(
            q.suffix.gather(2, at), layout.with_prefix(k), layout.with_prefix(v), attn_mask=layout.upto_eot)
        return self._residual(block, x[layout.eot_row], attended.flatten(1))

    def _qkv(self, block, x, layout):
        attn = block.attn
        rows = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)  # (rows, 3 * width)
        return [layout.split(t.unflatten(1, (self.heads, -1))) for t in rows.chunk(3, dim=1)]

    @staticmethod
    def _residual(block, x, attended):
        x = x + block.ls_1(block.attn.out_proj(attended))
        return x + block.ls_2(block.mlp(block.ln_2(x)))


class _Heads:
    """Queries, keys or values per head: `prefix` (n_prefixes, heads, prefix, d), `suffix` (n, heads, S, d) padded."""

    def __init__(self, prefix, suffix):
        self.prefix, self.suffix = prefix, suffix


class _Layout:
    """Where the rows of the packed tensor lie, and who may attend to whom."""

    def __init__(self, prompts):
        self.prefix = prompts.prefix
        device = prompts.lengths.device
        n_suffix = prompts.lengths - self.prefix  # (n,)
        longest = prompts.tokens.shape[1] - self.prefix
        steps = torch.arange(longest, device=device)
        self.real = steps < n_suffix[:, None]  # (n, S): positions up to [EOT]
        self.suffix_position = steps.expand_as(self.real)[self.real]  # (suffix rows,)
        self.eot = n_suffix - 1
        # With a prefix of [SOS] alone there is a single one, common to all prompts.
        self.prefix_of = prompts.context_of if self.prefix > 1 else torch.zeros_like(prompts.context_of)
        self.n_prefixes = int(self.prefix_of.max()) + 1
        self.eot_row = self.n_prefixes * self.prefix + n_suffix.cumsum(0) - 1
        seen = torch.ones(longest, self.prefix, dtype=torch.bool, device=device)
        # Padding lies after [EOT], so the causal mask hides it from every real position.
        self.causal = torch.cat([seen, steps <= steps[:, None]], dim=1)  # (S, prefix + S)
        self.upto_eot = self.causal[self.eot][:, None, None]  # (n, 1, 1, prefix + S)

    def split(self, rows):
        """Rows (rows, heads, d) -> `_Heads`."""
        n = self.n_prefixes * self.prefix
        prefix = rows[:n].unflatten(0, (self.n_prefixes, self.prefix)).transpose(1, 2)
        suffix = rows.new_zeros(*self.real.shape, *rows.shape[1:])  # (n, S, heads, d)
        suffix[self.real] = rows[n:]
        return _Heads(prefix, suffix.transpose(1, 2))

    def with_prefix(self, heads):
        """Keys or values every prompt sees: its prefix's, then its own, (n, heads, prefix + S, d)."""
        return torch.cat([heads.prefix[self.prefix_of], heads.suffix], dim=2)
