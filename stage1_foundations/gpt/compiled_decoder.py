"""Decoding at batch 1, with the whole step compiled into one function.

Eager decoding of a small model spends its time between the products: some 600 operations a token, each with its own
call. Here torch.compile sees one step as a whole, which asks for two things:

- shapes that never change: the cache has a fixed length, the position is a tensor, and places not yet filled are masked
- products written so that they can be merged with their neighbours: `row_product`, `one_query_attention`

Compiling takes a minute or so, once for a model (torch keeps the result on disk). Figures: NOTES.md.
"""

from types import FunctionType

import torch
from torch import Tensor

from stage1_foundations.gpt.kv_cache import KVCache
from stage1_foundations.gpt.model import GPT

# Fused multiply-add; and no check that the arguments still have the shapes they had: they always do.
OPTIONS = {
    "cpp.enable_floating_point_contract_flag": "fast",
    "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
}


class CompiledDecoder:
    """One token in, the next token's logits out, for one model and one length of cache.

    Args:
        length: positions that the cache holds, prompt and drawn tokens together.
    """

    def __init__(self, model: GPT, length: int) -> None:
        self.model = model
        self.length = min(length, model.config.context)
        # torch finds compiled graphs by the function's code; without guards, two decoders must not share it
        own_step = FunctionType(decode_step.__code__.replace(), decode_step.__globals__)
        self._step = torch.compile(own_step, dynamic=False, fullgraph=True, options=OPTIONS)

    def new_cache(self) -> KVCache:
        """An empty cache of the fixed length; zeros, since a masked place still takes part in sums."""
        cache = self.model.new_cache(1, self.length)
        cache.keys.zero_()
        cache.values.zero_()
        return cache

    def __call__(self, ids: Tensor, cache: KVCache) -> Tensor:
        """(1, T) -> logits of the last position, (1, 1, V); compiled for T = 1 with a past, eager for a prompt."""
        if ids.shape != (1, 1) or cache.last_token is None:
            return self.model(ids, cache, last_only=True)
        if cache.length >= self.length:
            raise ValueError(f"KV cache holds {self.length} positions, {cache.length + 1} are needed")
        position = torch.tensor([cache.length], device=ids.device)
        logits = self._step(self.model, cache.last_token, ids, position, cache.keys, cache.values)
        cache.advance(ids)
        return logits


class StepCache:
    """What a decoder block asks of a KVCache, for one new token at a position that is a tensor."""

    def __init__(self, keys: Tensor, values: Tensor, position: Tensor, last_token: Tensor) -> None:
        self.keys, self.values, self.position, self.last_token = keys, values, position, last_token

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's new position and return the layer's whole cache, (B, H, length, D)."""
        self.keys[layer].index_copy_(2, self.position, key)
        self.values[layer].index_copy_(2, self.position, value)
        return self.keys[layer], self.values[layer]


def decode_step(
    model: GPT, last_token: Tensor, token: Tensor, position: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """`GPT.forward` for one token, with `position` (1,) as data in place of a number: (1, 1) -> (1, 1, V)."""
    config = model.config
    cache = StepCache(keys, values, position, last_token)
    x = model.token_embedding(token)
    if config.bigram_rows:
        x = x + model.bigram_embedding(model.bigram_rows(token, cache))
    if config.position == "learned":
        x = x + model.position_embedding(position)
    elif config.position == "sinusoidal":
        x = x + model.position_table.index_select(0, position)
    rope = None
    if config.position == "rope":
        rope = model.rope_cos.index_select(0, position), model.rope_sin.index_select(0, position)
    bias = past_bias(model, position, keys.shape[3])
    for layer, block in enumerate(model.blocks):
        x = block(x, rope, bias, cache, layer)
    return model.head(model.final_norm(x))


def past_bias(model: GPT, position: Tensor, length: int) -> Tensor:
    """What is added to the scores: -inf after `position`, ALiBi's penalty before it; (1 or H, 1, length)."""
    distance = position[:, None] - torch.arange(length, device=position.device)  # (1, length)
    bias = torch.zeros(1, 1, length, device=position.device)
    if model.config.position == "alibi":
        bias = -model.alibi_slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, float("-inf"))


