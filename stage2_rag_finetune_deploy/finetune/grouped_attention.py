"""The fused attention without copies of the keys and values.

With grouped queries (Ainslie et al. 2023, "GQA"), nine heads of queries share three of keys and values. Where a batch
has padding, transformers repeats the keys and values until every head has its own: at every token and in every layer
all that was kept is written once more, three times as large. PyTorch's kernel can read them where they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

NAME = "sdpa_grouped"


def grouped_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """What transformers asks of an attention.

    Args:
        query: (B, H, T, D). key, value: (B, G, S, D), where G divides H.
        attention_mask: True or 0 where a position may look, (B, 1, T, S); None is causal.

    Returns:
        (B, T, H, D)
    """
    causal = attention_mask is None and query.shape[2] > 1
    seen = F.scaled_dot_product_attention(
        query, key, value, attention_mask, scale=scaling, is_causal=causal, enable_gqa=True
    )
    return seen.transpose(1, 2).contiguous(), None


@contextmanager
def without_copies(model: Any) -> Iterator[None]:
    """`grouped_attention` in a model of transformers, inside the block; only where its attention is the fused one."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")
