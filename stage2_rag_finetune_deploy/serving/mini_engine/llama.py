"""The model of the Llama family, written for serving: a forward pass over the tokens of many sequences at once.

- no batch dimension: the tokens of all chunks lie one after the other, so there is no padding to compute
- everything but attention treats each token by itself; attention finds a token's past through the block tables
- one product for query, key and value; logits only for tokens whose successor is wanted
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stage2_rag_finetune_deploy.serving.mini_engine.attention import Attention
from stage2_rag_finetune_deploy.serving.mini_engine.checkpoint import LlamaConfig
from stage2_rag_finetune_deploy.serving.mini_engine.linear import PlainLinear, make_linear


@dataclass(frozen=True)
class Layer:
    """The weights of one block."""

    attention_norm: Tensor  # (C,)
    qkv: PlainLinear  # C -> (H + 2 K) * D
    out: PlainLinear  # H * D -> C
    feed_forward_norm: Tensor  # (C,)
    gate: PlainLinear  # C -> I
    up: PlainLinear  # C -> I
    down: PlainLinear  # I -> C


class Llama:
    """Weights and the forward pass."""

    def __init__(self, config: LlamaConfig, weights: dict[str, Tensor], dtype: torch.dtype, device: torch.device):
        self.config, self.dtype, self.device = config, dtype, device

        def take(name: str) -> Tensor:
            return weights[name].to(device, dtype)

        self.embedding = take("embed_tokens.weight")
        self.norm = take("norm.weight")
        self.head = make_linear(self.embedding if config.tied else take("lm_head.weight"))
        self.layers = [self._layer(weights, f"layers.{number}.", take) for number in range(config.layers)]

    def _layer(self, weights: dict[str, Tensor], prefix: str, take) -> Layer:  # noqa: ANN001 - a local function
        def joined(names: list[str]) -> Tensor:
            return torch.cat([take(prefix + name) for name in names])

        parts = [f"self_attn.{part}_proj" for part in "qkv"]
        biased = f"{prefix}{parts[0]}.bias" in weights
        bias = joined([f"{part}.bias" for part in parts]) if biased else None
        return Layer(
            take(f"{prefix}input_layernorm.weight"), make_linear(joined([f"{part}.weight" for part in parts]), bias),
            make_linear(take(f"{prefix}self_attn.o_proj.weight")), take(f"{prefix}post_attention_layernorm.weight"),
            *(make_linear(take(f"{prefix}mlp.{name}_proj.weight")) for name in ("gate", "up", "down")),
        )  # fmt: skip

    def forward(self, ids: Tensor, wanted: Tensor, attention: Attention) -> Tensor:
        """Logits of the tokens whose successor is wanted; keys and values of all of them are written to the cache.

        Args:
            ids: (T,) the tokens of all chunks.
            wanted: (S,) which of them.
            attention: prepared for these tokens: it knows their positions and where their pasts lie.

        Returns:
            (S, V), in the model's dtype.
        """
        norm, eps = attention.rms_norm, self.config.norm_eps
        x = self.embedding[ids]  # (T, C)
        for number, layer in enumerate(self.layers):
            heads = attention(number, layer.qkv(norm(x, layer.attention_norm, eps)))  # (T, H * D)
            x = layer.out.plus(heads, x)
            h = norm(x, layer.feed_forward_norm, eps)
            x = layer.down.plus(layer.up.times(h, layer.gate.silu(h)), x)
        if not len(wanted):
            return x.new_empty(0, self.config.vocab_size)
        return self.head(norm(x[wanted], self.norm, eps))
