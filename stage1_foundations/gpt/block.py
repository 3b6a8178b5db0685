"""The decoder block: attention, then feed-forward, each behind a norm and added to the residual stream."""

import torch
from torch import Tensor, nn

from stage1_foundations.gpt.attention import SelfAttention
from stage1_foundations.gpt.feed_forward import FeedForward
from stage1_foundations.gpt.kv_cache import KVCache


class TiedDropout(nn.Module):
    """Dropout with one mask per row, shared by all its positions (Gal and Ghahramani 2016, section 4.1).

    It draws T times fewer random numbers. On a CPU that matters: with nn.Dropout a compiled step of the `cpu` preset
    took three times as long (NOTES.md).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    # exercise: gpt.tied_dropout
    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C); the expected value is x. Nothing happens in evaluation mode."""
        if not self.training or not self.rate:
            return x
        keep = torch.empty(x.shape[0], 1, x.shape[2], device=x.device).bernoulli_(1 - self.rate)  # (B, 1, C)
        return x * (keep / (1 - self.rate)).to(x.dtype)
    # end exercise


class DecoderBlock(nn.Module):
    """Pre-norm residual block (Xiong et al. 2020): x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(
        self, attention: SelfAttention, feed_forward: FeedForward, norms: tuple[nn.Module, nn.Module], dropout: float
    ) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = norms
        self.attention = attention
        self.feed_forward = feed_forward
        self.dropout = TiedDropout(dropout)

    # exercise: gpt.block_forward
    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rope, bias, cache, layer))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
    # end exercise
