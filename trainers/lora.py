"""Low-rank updates of an attention's projections, for CLIP-LoRA."""

import copy

import torch
from torch import nn
from torch.nn import functional as F


def with_same_values(tower):
    """A copy of a tower whose parameters and buffers are the tower's own: what is put into one is not in the other."""
    return copy.deepcopy(tower, {id(value): value for value in (*tower.parameters(), *tower.buffers())})


class LowRank(nn.Module):
    """alpha / sqrt(rank) x b a drop(x) of x (..., n): `a` (rank, n) starts as nn.Linear's weight, `b` (n, rank) at 0.

    It is computed in the dtype of what is learned, whatever that of x.
    """

    def __init__(self, n, options):
        super().__init__()
        self.dropout, self.scale = nn.Dropout(options.DROPOUT), options.ALPHA / options.RANK**0.5
        self.a = nn.Parameter(torch.empty(options.RANK, n).uniform_(-(n**-0.5), n**-0.5))
        self.b = nn.Parameter(torch.zeros(n, options.RANK))

    def forward(self, x):
        low = F.linear(self.dropout(x).to(self.a.dtype), self.a)
        return self.scale * F.linear(low, self.b)


class Attention(nn.Module):
    """Self-attention with the frozen weights of an `nn.MultiheadAttention` and updates of its projections.

    The image tower calls it as it calls the former; the text encoder asks for `qkv` and `out_proj`.

    Args:
        updates: {"q", "k", "v" or "o": `LowRank`}.
    """

    def __init__(self, frozen, updates):
        super().__init__()
        self.num_heads, self.updates = frozen.num_heads, updates
        self.in_proj_weight, self.in_proj_bias, self.out = frozen.in_proj_weight, frozen.in_proj_bias, frozen.out_proj

    def qkv(self, x):
        """Rows (..., width) -> their queries, keys and values side by side, (..., 3 width)."""
        updates = [self.updates[name](x) if name in self.updates else torch.zeros_like(x) for name in "qkv"]
        rows = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        return rows + torch.cat(updates, dim=-1).to(rows.dtype)

    def out_proj(self, x):
        """What the heads made, (..., width) -> (..., width)."""
        rows = self.out(x)
        return rows + self.updates["o"](x).to(rows.dtype) if "o" in self.updates else rows

    def forward(self, query, key, value, need_weights=False, attn_mask=None):
        """(B, L, width) -> (B, L, width), None; `key` and `value` are `query`."""
        rows = self.qkv(query).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, L, d)
        attended = F.scaled_dot_product_attention(*rows.unbind(0), attn_mask=attn_mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None
