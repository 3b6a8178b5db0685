"""The decoder-only transformer: one class, three shapes (shapes are named in model_config.py).

- token embedding, plus a position vector (learned, sinusoidal) or RoPE / ALiBi inside attention
- pre-norm blocks of causal self-attention and feed-forward
- weight tying (gpt2, llama) or a head of its own (modern)
- modern: zero-initialised output projections, normalised queries and keys; optionally a table of bigrams beside the
  embedding, which helps a sprint and harms a long run (NOTES.md)
- a KV cache for decoding; cached and uncached logits are equal (tests/stage1/gpt/test_kv_cache.py)
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage1_foundations.gpt import position_encoding
from stage1_foundations.gpt.attention import SelfAttention
from stage1_foundations.gpt.block import DecoderBlock
from stage1_foundations.gpt.feed_forward import FeedForward
from stage1_foundations.gpt.kv_cache import KVCache
from stage1_foundations.gpt.linear import Linear
from stage1_foundations.gpt.model_config import ModelConfig
from stage1_foundations.gpt.normalisation import build_norm


class GPT(nn.Module):
    """ids (B, T) -> logits (B, T, vocab_size)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(build_block(config) for _ in range(config.layers))
        self.final_norm = build_norm(
            config.norm, config.width, gain=config.norm_gain, bias=config.bias, eps=config.norm_eps
        )
        self.head = Linear(config.width, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.token_embedding.weight
        self._build_positions(config)
        if config.bigram_rows:
            self.bigram_embedding = nn.Embedding(config.bigram_rows, config.width)
        self.apply(initialise)
        self._initialise_projections(config)

    def _build_positions(self, config: ModelConfig) -> None:
        if config.position == "learned":
            self.position_embedding = nn.Embedding(config.context, config.width)
        self.rebuild_tables()

    def rebuild_tables(self) -> None:
        """Compute the fixed position tables; they are not in checkpoints, since the configuration gives them."""
        config = self.config
        if config.position == "sinusoidal":
            table = position_encoding.sinusoidal_table(config.context, config.width)
            self.register_buffer("position_table", table, persistent=False)
        elif config.position == "rope":
            cos, sin = position_encoding.rope_table(config.context, config.width // config.heads, config.rope_base)
            self.register_buffer("rope_cos", cos, persistent=False)
            self.register_buffer("rope_sin", sin, persistent=False)
        elif config.position == "alibi":
            self.register_buffer("alibi_slopes", position_encoding.alibi_slopes(config.heads), persistent=False)

    @torch.no_grad()
    def _initialise_projections(self, config: ModelConfig) -> None:
        """The matrices that write to the residual stream start at zero (modern) or small (GPT-2, section 2.3)."""
        for block in self.blocks:
            for linear in (block.attention.out, block.feed_forward.down):
                if config.zero_init:
                    linear.weight.zero_()
                else:
                    linear.weight.normal_(std=0.02 / math.sqrt(2 * config.layers))
        if config.zero_init and not config.tied:
            self.head.weight.zero_()
        if config.bigram_rows:
            self.bigram_embedding.weight.zero_()

    def forward(self, ids: Tensor, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """Logits of the next token at every position.

        Args:
            ids: (B, T) int64; with a cache, the new tokens only.
            cache: filled by this call; its earlier positions are the past.
            last_only: return the last position's logits only, (B, 1, V): all that decoding needs.

        Raises:
            ValueError: more positions than the context holds.
        """
        past = cache.length if cache is not None else 0
        length = ids.shape[1]
        if past + length > self.config.context:
            raise ValueError(f"{past + length} tokens do not fit the context of {self.config.context}")
        x = self.embed(ids, past, cache)
        rope, bias = self._rope(past, length, x.dtype), self._alibi(past, length)
        for layer, block in enumerate(self.blocks):
            x = block(x, rope, bias, cache, layer)
        if cache is not None:
            cache.advance(ids)
        return self.head(self.final_norm(x[:, -1:] if last_only else x))

    def embed(self, ids: Tensor, past: int = 0, cache: KVCache | None = None) -> Tensor:
        """What enters the first block: (B, T) -> (B, T, C)."""
        x = self.token_embedding(ids)
        if self.config.bigram_rows:
            x = x + self.bigram_embedding(self.bigram_rows(ids, cache))
        if self.config.position == "learned":
            x = x + self.position_embedding.weight[past : past + ids.shape[1]]
        elif self.config.position == "sinusoidal":
            x = x + self.position_table[past : past + ids.shape[1]]
        return x

    def bigram_rows(self, ids: Tensor, cache: KVCache | None) -> Tensor:
        """The table's row for (token before, token): exact where V^2 rows fit, hashed where not. (B, T)."""
        before = torch.roll(ids, 1, dims=1)
        first = cache.last_token if cache is not None and cache.last_token is not None else torch.zeros_like(ids[:, :1])
        before = torch.cat((first, before[:, 1:]), dim=1)
        return (before * self.config.vocab_size + ids) % self.config.bigram_rows

    def _rope(self, past: int, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        if self.config.position != "rope":
            return None
        return self.rope_cos[past : past + length], self.rope_sin[past : past + length]

    def _alibi(self, past: int, length: int) -> Tensor | None:
        if self.config.position != "alibi":
            return None
        return position_encoding.alibi_bias(length, past + length, self.alibi_slopes)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats per token, a float32 scalar: ids and targets are (B, T)."""
        logits = self(ids)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))

    def new_cache(self, batch: int = 1, length: int | None = None) -> KVCache:
        """An empty cache for this model, in its dtype and on its device."""
        c, weight = self.config, self.token_embedding.weight
        size = min(length or c.context, c.context)
        return KVCache(c.layers, batch, c.kv_heads, size, c.width // c.heads, weight.dtype, weight.device)

    def parameter_count(self) -> int:
        """Trainable numbers, a tied matrix counted once."""
        return sum(p.numel() for p in self.parameters())


def build_block(config: ModelConfig) -> DecoderBlock:
    """One block of the shape."""
    norms = tuple(
        build_norm(config.norm, config.width, gain=config.norm_gain, bias=config.bias, eps=config.norm_eps)
        for _ in range(2)
    )
    attention = SelfAttention(
        config.width, config.heads, config.kv_heads, bias=config.bias, qk_norm=config.qk_norm
    )
    feed_forward = FeedForward(config.width, config.hidden, config.feed_forward, config.bias)
    return DecoderBlock(attention, feed_forward, norms, config.dropout)


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Normal with deviation 0.02, biases zero (GPT-2, section 2.3)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        module.weight.normal_(std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.zero_()
