"""Tokens a second: a long prompt at once (prefill), and one token after another (decode)."""

import time
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

PROMPT = 16  # tokens before the decoding that is timed


@torch.inference_mode()
def prefill_rate(model: Any, ids: Tensor) -> float:
    """Prompt tokens a second. ids: (1, T)."""
    start = time.perf_counter()
    model(ids, use_cache=False, logits_to_keep=1)
    return ids.shape[1] / (time.perf_counter() - start)


@torch.inference_mode()
def decode_rate(model: Any, ids: Tensor, tokens: int, seconds: float = 0.7) -> float:
    """New tokens a second at batch 1, greedily, after a short prompt with a KV cache.

    Args:
        ids: (1, T); the first PROMPT are the prompt.
        tokens: how many to write.
        seconds: stop after so long; a layer without a kernel is slow.
    """
    cache = DynamicCache(config=model.config)
    token = model(ids[:, :PROMPT], past_key_values=cache, logits_to_keep=1).logits.argmax(-1)  # (1, 1)
    start, written = time.perf_counter(), 0
    while written < tokens and (written == 0 or time.perf_counter() - start < seconds):
        token = model(token, past_key_values=cache).logits.argmax(-1)
        written += 1
    return written / (time.perf_counter() - start)
