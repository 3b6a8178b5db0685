"""Attention over a paged cache: the form that can be read, on any device. kernel_attention.py is the fast one.

Every token of a step has a slot, `block * block_size + offset`, where its key and value go, and a sequence whose block
table says where its past lies. Here the past is gathered into one padded batch first, and a common attention follows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stage2_rag_finetune_deploy.serving.mini_engine.checkpoint import LlamaConfig
from stage2_rag_finetune_deploy.serving.mini_engine.scheduler import Chunk


@dataclass(frozen=True)
class Batch:
    """Where the tokens of one step are.

    Attributes:
        ids: (T,) tokens.
        positions: (T,) in their sequences.
        rows: (T,) number of the token's chunk.
        slots: (T,) where its key and value are written.
        tables: (S, longest) block tables, padded with 0.
        wanted: tokens that are the last of a sequence so far.
    """

    ids: list[int]
    positions: list[int]
    rows: list[int]
    slots: list[int]
    tables: list[list[int]]
    wanted: list[int]


def make_batch(chunks: list[Chunk], block_size: int) -> Batch:
    """Lay the chunks' tokens one after the other."""
    ids, positions, rows, slots, wanted = [], [], [], [], []
    longest = max(-(-(start + count) // block_size) for _, start, count in chunks)
    tables = []
    for row, (sequence, start, count) in enumerate(chunks):
        table = sequence.block_table
        ids += sequence.tokens(start, start + count)
        positions += range(start, start + count)
        rows += [row] * count
        slots += [table[p // block_size] * block_size + p % block_size for p in range(start, start + count)]
        tables.append(table[:longest] + [0] * (longest - len(table)))
        if start + count == len(sequence):
            wanted.append(len(ids) - 1)
    return Batch(ids, positions, rows, slots, tables, wanted)


def rope_tables(config: LlamaConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, D / 2) in float32 (Su et al. 2021)."""
    halves = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.arange(length, dtype=torch.float32)[:, None] * config.rope_theta**-halves
    return angles.cos().to(device), angles.sin().to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE as Hugging Face lays it out: element i turns with element i + D / 2. x: (T, H, D), cos: (T, 1, D / 2)."""
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Attention:
    """The cache of all layers, and attention through block tables."""

    def __init__(
        self, config: LlamaConfig, num_blocks: int, block_size: int, max_model_len: int, dtype: torch.dtype,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.config, self.block_size, self.dtype, self.device = config, block_size, dtype, device
        self.cos, self.sin = rope_tables(config, max_model_len, device)
        self.allocate(num_blocks)

    def allocate(self, num_blocks: int) -> None:
        """Room for keys and values. Memory that is never written is never really taken."""
        c = self.config
        shape = (c.layers, num_blocks, self.block_size, c.kv_heads, c.head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2))

    def prepare(self, batch: Batch) -> None:
        """Everything of a step that is the same in all layers."""
        rows, tables, positions, self.slots = (
            torch.tensor(each, device=self.device) for each in (batch.rows, batch.tables, batch.positions, batch.slots)
        )
        self.token_cos, self.token_sin = self.cos[positions][:, None], self.sin[positions][:, None]  # (T, 1, D / 2)
        counts = torch.bincount(rows, minlength=len(tables))
        width = int(counts.max())
        # a token's place in the padded batch: its row, and its number within the chunk
        first = counts.cumsum(0) - counts
        self.place = rows * width + torch.arange(len(rows), device=self.device) - first[rows]
        self.shape, self.tables = (len(tables), width), tables
        asks = torch.full((len(tables) * width,), -1, device=self.device)
        asks[self.place] = positions
        past = torch.arange(tables.shape[1] * self.block_size, device=self.device)
        seen = past <= asks.view(*self.shape, 1)  # (S, W, P): a token sees itself and what is before it
        self.mask = (seen | (asks.view(*self.shape, 1) < 0))[:, None]  # a padding row sees all: no row of only -inf

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """Write keys and values of the step's tokens, then attend.

        Args:
            qkv: (T, (H + 2 K) * D) queries, keys and values before RoPE.

        Returns:
            (T, H * D)
        """
        c, tokens = self.config, len(qkv)
        q, k, v = qkv.view(tokens, -1, c.head_dim).split([c.heads, c.kv_heads, c.kv_heads], 1)  # (T, heads, D)
        q, k = (rotate(each, self.token_cos, self.token_sin) for each in (q, k))
        self.keys[layer].view(-1, c.kv_heads, c.head_dim)[self.slots] = k
        self.values[layer].view(-1, c.kv_heads, c.head_dim)[self.slots] = v
        return self.attend(q, self.keys[layer], self.values[layer])

    # exercise: serving.gathered_attention
    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of the step's tokens over their sequences' pasts.

        Args:
            q: (T, H, D) rotated queries; `self.place` is their place in a padded (S * W) batch.
            keys, values: (blocks, block_size, K, D) one layer's cache; `self.tables` (S, B) says which blocks, and
                `self.mask` (S, 1, W, B * block_size) which of their tokens each query sees.

        Returns:
            (T, H * D)
        """
        c, (rows, width) = self.config, self.shape
        padded = q.new_zeros(rows * width, c.heads, c.head_dim)
        padded[self.place] = q
        past_k, past_v = (each[self.tables].flatten(1, 2).transpose(1, 2) for each in (keys, values))  # (S, K, P, D)
        out = torch.nn.functional.scaled_dot_product_attention(
            padded.view(rows, width, c.heads, c.head_dim).transpose(1, 2), past_k, past_v, self.mask, enable_gqa=True
        )  # (S, H, W, D)
        return out.transpose(1, 2).reshape(rows * width, -1)[self.place]
    # end exercise

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight, the mean in float32 (Zhang and Sennrich 2019). x: (T, C)."""
        wide = x.float()
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)
