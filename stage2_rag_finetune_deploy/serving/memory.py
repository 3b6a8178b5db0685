"""How much memory a model needs to be served: weights, and the keys and values of every token that is being worked on.

    weights    parameters x bytes a parameter, divided by the cards that share them (tensor parallelism)
    KV cache   2 (keys, values) x layers x KV heads x head size x bytes, for each token of each running request
    what fits  (memory x utilisation - weights - the rest) / KV bytes a token, in whole blocks

A 7B model in bf16 is 15 GB of weights, and every token of context costs another 56 KB: 32,768 tokens, 1.9 GB. With
grouped heads (4 KV heads for 28 query heads) that is a seventh of what it would be without.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit.errors import LabError

GIB = 1 << 30
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True)
class Shape:
    """What of a Llama-like model decides its memory (Llama, Qwen2, SmolLM2: RMSNorm, gated MLP)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    qkv_bias: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """From a config.json.

        Raises:
            LabError: it lacks the fields of such a model.
        """
        try:
            hidden, heads = config["hidden_size"], config["num_attention_heads"]
            return cls(
                layers=config["num_hidden_layers"], hidden=hidden, heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_dim=config.get("head_dim") or hidden // heads,
                intermediate=config["intermediate_size"], vocabulary=config["vocab_size"],
                tied=bool(config.get("tie_word_embeddings")),
                qkv_bias=config.get("attention_bias", config.get("model_type") == "qwen2"),
            )  # fmt: skip
        except KeyError as error:
            raise LabError(f"this config.json has no {error}", "a Llama-like model: Llama, Qwen2.5, SmolLM2") from None


SHAPES = {
    "smollm2-135m": Shape(30, 576, 9, 3, 64, 1536, 49_152, tied=True),
    "qwen2.5-0.5b": Shape(24, 896, 14, 2, 64, 4864, 151_936, tied=True, qkv_bias=True),
    "qwen2.5-7b": Shape(28, 3584, 28, 4, 128, 18_944, 152_064, tied=False, qkv_bias=True),
}


def linear_parameters(shape: Shape) -> int:
    """Weights of the matrices inside the layers: what a 4-bit quantiser packs."""
    width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = shape.hidden * (width + 2 * kv_width) + width * shape.hidden
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def other_parameters(shape: Shape) -> int:
    """Embedding, output head where it is not the embedding, norms, biases: these keep 16 bits."""
    biases = (shape.heads + 2 * shape.kv_heads) * shape.head_dim if shape.qkv_bias else 0
    tables = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return tables + shape.layers * (2 * shape.hidden + biases) + shape.hidden


def weight_bytes(shape: Shape, dtype: str, cards: int = 1, group_size: int = 128) -> float:
    """Bytes of weights on each card.

    int4 packs the layers' matrices, with 16 bits of scale and 4 of zero point a group; the rest keeps 16 bits. Norms
    and biases stand whole on every card; they are so few that they are divided like the rest here.
    """
    per_linear = BYTES[dtype] + (2.5 / group_size if dtype == "int4" else 0)
    per_other = max(BYTES[dtype], 2.0)
    return (linear_parameters(shape) * per_linear + other_parameters(shape) * per_other) / cards


# exercise: serving.kv_bytes_per_token
def kv_bytes_per_token(shape: Shape, cards: int = 1, dtype: str = "bf16") -> float:
    """Bytes of KV cache on each card for one token: a key and a value in every layer for every KV head there.

    Tensor parallelism deals out whole heads. A card has at least one: with more cards than KV heads they are repeated.
    """
    heads_here = max(1, math.ceil(shape.kv_heads / cards))
    return 2 * shape.layers * heads_here * shape.head_dim * BYTES[dtype]
# end exercise


# exercise: serving.cache_tokens
def cache_tokens(shape: Shape, space: float, block_size: int, cards: int = 1, dtype: str = "bf16") -> int:
    """How many tokens fit into `space` bytes on each card: whole blocks of `block_size` tokens."""
    return int(space // (kv_bytes_per_token(shape, cards, dtype) * block_size)) * block_size
# end exercise


def check_cards(shape: Shape, cards: int) -> None:
    """Refuse a tensor-parallel size that the heads cannot be dealt out to.

    Raises:
        LabError: with the sizes that can be had.
    """
    if cards < 1 or shape.heads % cards or (shape.kv_heads % cards and cards % shape.kv_heads):
        good = [n for n in range(1, shape.heads + 1)
                if not (shape.heads % n or (shape.kv_heads % n and n % shape.kv_heads))]  # fmt: skip
        raise LabError(f"{shape.heads} heads cannot be dealt out to {cards} cards", f"one of {good}")
