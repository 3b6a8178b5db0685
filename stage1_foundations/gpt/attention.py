"""Causal self-attention: every token asks the tokens before it, and takes in a weighted mean of their answers.

Three forms of one formula, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1):

    explicit_attention    builds the (T, T) table of weights; to read, to plot, to check
    fused_attention       torch's kernel, which never holds that table; to train with
    one_query_attention   for a single query, as sums that a compiler can merge; to decode with (compiled_decoder.py)

tests/stage1/gpt/test_attention.py proves them equal, values and gradients.
Read next: block.py.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage1_foundations.gpt.kv_cache import KVCache
from stage1_foundations.gpt.linear import Linear
from stage1_foundations.gpt.normalisation import rms_norm
from stage1_foundations.gpt.position_encoding import apply_rope


# exercise: gpt.explicit_attention
def explicit_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention with its table of weights.

    The queries are the last Tq of the Tk positions: with a KV cache Tq < Tk, and the mask is aligned to the end.

    Args:
        q: (B, H, Tq, D).
        k, v: (B, H, Tk, D).
        bias: (H, Tq, Tk) added to the scores (ALiBi), or None.

    Returns:
        The mixed values (B, H, Tq, D) and the weights (B, H, Tq, Tk), rows sum to 1, zero for the future.
    """
    query_length, key_length = q.shape[-2], k.shape[-2]
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, Tq, Tk)
    if bias is not None:
        scores = scores + bias
    seen = torch.ones(query_length, key_length, dtype=torch.bool, device=q.device).tril(key_length - query_length)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)
    return weights @ v, weights
# end exercise


def fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same values as `explicit_attention`, by torch's fused kernel.

    No dropout on the weights: on a CPU it falls off the kernel's fast path (facts measured in NOTES.md).
    """
    if bias is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
    if q.shape[-2] == k.shape[-2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if q.shape[-2] == 1:  # one new token sees the whole past: no mask
        return F.scaled_dot_product_attention(q, k, v)
    seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril(k.shape[-2] - q.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def one_query_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """The same values for one query, in float32, without copies of the keys and values that heads share.

    Args:
        q: (B, H, 1, D).
        k, v: (B, G, Tk, D), G divides H.
        bias: (1 or H, 1, Tk), added to the scores; -inf where the query may not look.

    Returns:
        (B, H, 1, D), the dtype of q.
    """
    batch, heads, _, dim = q.shape
    groups, length = k.shape[1], k.shape[2]
    q_grouped = q.view(batch, groups, -1, 1, dim).float()
    scores = (q_grouped * k[:, :, None].float()).sum(dim=-1) / math.sqrt(dim)  # (B, G, H/G, Tk)
    scores = scores + bias.view(1, *((groups, -1) if len(bias) == heads else (1, 1)), length)
    mixed = (scores.softmax(dim=-1)[..., None] * v[:, :, None].float()).sum(dim=-2)  # (B, G, H/G, D)
    return mixed.view(batch, heads, 1, dim).to(q.dtype)


class SelfAttention(nn.Module):
    """Multi-head causal self-attention with grouped keys and values.

    `heads` query heads share `kv_heads` key/value heads (Ainslie et al. 2023); equal numbers are the classic form.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, *, bias: bool, qk_norm: bool, explicit: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.qk_norm, self.explicit, self.keep_weights = qk_norm, explicit, False
        self.sizes = (width, kv_heads * self.head_dim, kv_heads * self.head_dim)
        self.qkv = Linear(width, sum(self.sizes), bias=bias)
        self.out = Linear(width, width, bias=bias)
        self.weights: Tensor | None = None  # (B, H, Tq, Tk) of the last explicit pass, for the figures

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C); `rope` holds the rows of these T positions, `cache` this layer's past."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).split(self.sizes, dim=-1)
        q, k, v = (t.view(batch, length, -1, self.head_dim).transpose(1, 2) for t in (q, k, v))  # (B, H, T, D)
        if self.qk_norm:  # bounds the scores, so that a large learning rate cannot blow the softmax up
            q, k = rms_norm(q), rms_norm(k)
        if rope is not None:
            q, k = apply_rope(q, *rope), apply_rope(k, *rope)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        if torch.compiler.is_compiling() and cache is not None and length == 1:
            mixed = one_query_attention(q, k, v, bias)
            return self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        if self.kv_heads != self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        if self.explicit:
            mixed, weights = explicit_attention(q, k, v, bias)
            if self.keep_weights:
                self.weights = weights
        else:
            mixed = fused_attention(q, k, v, bias)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))
