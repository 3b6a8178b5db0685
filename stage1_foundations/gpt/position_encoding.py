"""Position encodings: how attention, which sees a set, learns the order.

    learned      a trained vector for every position, added to the token's         GPT-2
    sinusoidal   a fixed vector of sines and cosines, added to the token's         Vaswani et al. 2017, section 3.5
    rope         turns queries and keys by an angle that grows with the position   Su et al. 2021, eq. 14-16
    alibi        subtracts slope * distance from the attention scores              Press et al. 2022, section 3
    none         the causal mask alone gives a little order away

The first two say where a token stands (addresses); the last two say how far apart two tokens stand (distances).
Read next: attention.py, which applies RoPE to q and k and adds ALiBi to the scores.
"""

import math

import torch
from torch import Tensor

KINDS = ("learned", "sinusoidal", "rope", "alibi", "none")


def rope_table(length: int, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position's angles.

    Returns:
        Two float32 tensors of shape (length, head_dim // 2).

    Raises:
        ValueError: head_dim is odd, so features cannot be paired.
    """
    if head_dim % 2:
        raise ValueError(f"RoPE pairs features: head_dim must be even, got {head_dim}")
    frequency = base ** (-torch.arange(0, head_dim, 2) / head_dim)  # (D/2,)
    angle = torch.arange(length)[:, None] * frequency  # (T, D/2)
    return angle.cos(), angle.sin()


# exercise: gpt.apply_rope
def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by their positions' angles.

    Args:
        x: (B, H, T, D), float32 or bfloat16.
        cos, sin: (T, D // 2), from `rope_table`; with a KV cache, the rows of the new positions only.

    Returns:
        (B, H, T, D), same dtype as x, same length of every vector.
    """
    a, b = x.chunk(2, dim=-1)  # halves, not neighbours: Llama's layout, so that its weights load
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)
# end exercise


# exercise: gpt.sinusoidal_table
def sinusoidal_table(length: int, width: int) -> Tensor:
    """The fixed encoding of the Transformer paper: even features are sines, odd features cosines.

    Returns:
        (length, width) float32; feature 2i and 2i + 1 turn once every 2 pi * 10000^(2i / width) positions.
    """
    position = torch.arange(length)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))  # (C/2,)
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency[: width // 2])
    return table
# end exercise


def alibi_slopes(heads: int) -> Tensor:
    """One slope a head, a geometric sequence from 2^(-8/heads) to 2^-8 (Press et al. 2022, section 3).

    Returns:
        (heads,) float32. Steep heads look near, flat heads look far.
    """
    return 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)


def alibi_bias(query_length: int, key_length: int, slopes: Tensor) -> Tensor:
    """-slope * distance for keys that a query may see, -inf for keys after it.

    The queries are the last `query_length` of `key_length` positions, as with a KV cache.

    Returns:
        (H, query_length, key_length), the dtype of `slopes`.
    """
    query = torch.arange(key_length - query_length, key_length, device=slopes.device)[:, None]
    distance = query - torch.arange(key_length, device=slopes.device)  # (Tq, Tk), negative for the future
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, float("-inf"))
