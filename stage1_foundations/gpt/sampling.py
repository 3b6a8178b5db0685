"""Sampling: from logits to the next token, one token at a time, with the KV cache.

    temperature   divides the logits: below 1 sharper, above 1 flatter, 0 always the best (greedy)
    top-k         keep the k most likely tokens
    top-p         keep the fewest tokens that hold p of the probability (Holtzman et al. 2020)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from labkit.errors import LabError
from stage1_foundations.gpt.compiled_decoder import CompiledDecoder
from stage1_foundations.gpt.kv_cache import KVCache
from stage1_foundations.gpt.model import GPT
from stage1_foundations.gpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How to draw, and when to stop."""

    tokens: int = 300
    temperature: float = 0.8
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise LabError(f"temperature {self.temperature} is negative", "--temperature 0 for greedy, 0.8 for text")
        if self.top_k < 0:
            raise LabError(f"top-k {self.top_k} is negative", "--top-k 40, or 0 for all tokens")
        if not 0 < self.top_p <= 1:
            raise LabError(f"top-p {self.top_p} is not a share between 0 and 1", "--top-p 0.9")


# exercise: gpt.filter_logits
def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Set the logits of the tokens that may not be drawn to -inf.

    Args:
        logits: (B, V).

    Returns:
        (B, V); at least the best token stays.
    """
    if top_k and top_k < logits.shape[-1]:
        kth = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if top_p < 1.0:
        ranked, order = logits.sort(dim=-1, descending=True)
        before = ranked.softmax(dim=-1).cumsum(dim=-1) - ranked.softmax(dim=-1)  # mass of the better tokens
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, float("-inf"))
    return logits
# end exercise


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None) -> Tensor:
    """The next token of every row: (B, V) -> (B, 1)."""
    if sampling.temperature == 0:
        return logits.float().argmax(dim=-1, keepdim=True)  # bfloat16 argmax is slow on a CPU
    scaled = filter_logits(logits.float() / sampling.temperature, sampling.top_k, sampling.top_p)
    return torch.multinomial(scaled.softmax(dim=-1), 1, generator=generator)


@torch.inference_mode()
def generate_ids(
    model: GPT, prompt: Tensor, sampling: Sampling, decoder: CompiledDecoder | None = None
) -> Iterator[Tensor]:
    """Draw tokens after a prompt.

    When the context is full, its second half becomes the new past: positions have moved, so it is read again.

    Args:
        prompt: (B, T) int64, T at least 1.
        decoder: this model's compiled step, for B = 1; its cache has to hold the prompt and the tokens, or the context.

    Yields:
        (B, 1) int64, `sampling.tokens` times.
    """
    device = prompt.device
    generator = None
    if sampling.seed is not None:
        generator = torch.Generator(device=device).manual_seed(sampling.seed)
    context = model.config.context
    past = prompt[:, -context:]
    cache = decoder.new_cache() if decoder else model.new_cache(prompt.shape[0], past.shape[1] + sampling.tokens)
    fresh = past
    for _ in range(sampling.tokens):
        if cache.length + fresh.shape[1] > cache.capacity:
            fresh = past[:, -max(1, context // 2) :]
            cache = KVCache.like(cache)
        logits = decoder(fresh, cache) if decoder else model(fresh, cache, last_only=True)
        token = draw(logits[:, -1], sampling, generator)
        yield token
        past = torch.cat((past, token), dim=1)[:, -context:]
        fresh = token


def generate(
    model: GPT, tokenizer: Tokenizer, prompt: str, sampling: Sampling, compile: bool = False
) -> Iterator[str]:
    """Stream the text that follows a prompt, piece by piece, up to a stop string.

    A token may be a part of a character: text is held back until it is whole, and as long as it may be the
    beginning of a stop string.
    """
    start = tokenizer.encode(prompt) or [0]
    ids = torch.tensor([start], device=next(model.parameters()).device)
    drawn: list[int] = []
    shown = ""
    decoder = CompiledDecoder(model, len(start) + sampling.tokens) if compile else None
    for token in generate_ids(model, ids, sampling, decoder):
        drawn.append(int(token))
        text = tokenizer.decode(drawn)
        cut = min((at for at in (text.find(stop) for stop in sampling.stop) if at >= 0), default=None)
        if cut is not None:
            yield text[len(shown) : cut]
            return
        safe = text[: len(text) - held_back(text, sampling.stop)]
        if len(safe) > len(shown):
            yield safe[len(shown) :]
            shown = safe
    yield tokenizer.decode(drawn)[len(shown) :]


def held_back(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end are not yet certain: a broken character, or a stop string's beginning."""
    whole = text.rstrip("�")
    beginnings = [n for stop in stops for n in range(1, len(stop)) if whole.endswith(stop[:n])]
    return len(text) - len(whole) + max(beginnings, default=0)
