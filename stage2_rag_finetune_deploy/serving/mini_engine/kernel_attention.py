"""The same attention by the compiled kernels, on a processor: nothing is gathered, padded or masked."""

import numpy as np
import torch
from torch import Tensor

from stage2_rag_finetune_deploy.serving.mini_engine import kernels
from stage2_rag_finetune_deploy.serving.mini_engine.attention import Attention, Batch
from stage2_rag_finetune_deploy.serving.mini_engine.team import attend_together


def as_array(tensor: Tensor) -> np.ndarray:
    """The same memory for Numba; bfloat16, which NumPy has not, as its 16 bits."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


class KernelAttention(Attention):
    """Attention that reads the blocks where they lie; `block_size` is a multiple of 16."""

    def allocate(self, num_blocks: int) -> None:
        """Room for keys and values, by tiles of 16 tokens (kernels.py)."""
        c, tiles = self.config, num_blocks * self.block_size // kernels.TILE
        shape = (c.layers, tiles, c.kv_heads)
        self.keys = torch.zeros(*shape, c.head_dim, kernels.TILE, dtype=self.dtype)
        self.values = torch.zeros(*shape, kernels.TILE, c.head_dim, dtype=self.dtype)
        self.layer_keys, self.layer_values = list(as_array(self.keys)), list(as_array(self.values))

    def prepare(self, batch: Batch) -> None:
        """Everything of a step that is the same in all layers."""
        c, tokens = self.config, len(batch.ids)
        self.rows, self.tables, positions, self.slots = (
            np.array(each, np.int64) for each in (batch.rows, batch.tables, batch.positions, batch.slots)
        )
        self.positions = positions
        self.token_cos, self.token_sin = (table.numpy()[positions] for table in (self.cos, self.sin))
        self.queries = np.empty((tokens, c.heads, c.head_dim), np.float32)

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        c, tokens = self.config, len(qkv)
        keys, values = self.layer_keys[layer], self.layer_values[layer]
        parts = as_array(qkv).reshape(tokens, -1, c.head_dim)
        kernels.store(parts, self.token_cos, self.token_sin, self.slots, keys, values, self.queries)
        out = torch.empty(tokens, c.heads * c.head_dim, dtype=self.dtype)
        attend_together(
            self.queries, keys, values, self.tables, self.rows, self.positions,
            as_array(out).reshape(tokens, c.heads, c.head_dim), tiles_a_block=self.block_size // kernels.TILE,
        )  # fmt: skip
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """The same in one pass over each row."""
        out = torch.empty_like(x)
        kernels.rms_norm(as_array(x), as_array(weight), eps, as_array(out))
        return out
