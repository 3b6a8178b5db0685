"""The KV cache: what attention has already computed about the past.

Decoding token t needs the keys and values of tokens 0..t-1 in every layer. They do not change, so they are kept:
a step then costs one token's work in place of t tokens' (measured by `python -m stage1_foundations.gpt bench`).
"""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer, in memory that is allocated once.

    Args:
        layers, batch, kv_heads, length, head_dim: the sizes; `length` is the most positions it can hold.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        length: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.keys = torch.empty(layers, batch, kv_heads, length, head_dim, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)
        self.length = 0  # positions filled in every layer
        self.last_token: Tensor | None = None  # (B, 1), for the bigram table

    @classmethod
    def like(cls, other: "KVCache") -> "KVCache":
        """An empty cache that takes over the memory of another, whose content is lost."""
        cache = cls.__new__(cls)
        cache.keys, cache.values, cache.length, cache.last_token = other.keys, other.values, 0, None
        return cache

    @property
    def capacity(self) -> int:
        """The most positions it can hold."""
        return self.keys.shape[3]

    # exercise: gpt.cache_append
    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer and return that layer's whole past, the new ones included.

        Args:
            key, value: (B, H, T, D) of the new positions.

        Returns:
            Two views, (B, H, length + T, D). `length` moves on in `advance`, once every layer has appended.

        Raises:
            ValueError: the cache is full.
        """
        end = self.length + key.shape[2]
        if end > self.capacity:
            raise ValueError(f"KV cache holds {self.capacity} positions, {end} are needed")
        self.keys[layer, :, :, self.length : end] = key
        self.values[layer, :, :, self.length : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
    # end exercise

    def advance(self, tokens: Tensor) -> None:
        """Count the positions that a forward pass has appended: `tokens` is its input, (B, T)."""
        self.length += tokens.shape[1]
        self.last_token = tokens[:, -1:]
