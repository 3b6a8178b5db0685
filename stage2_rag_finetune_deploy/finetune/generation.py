"""Many answers at once, the way a server does it, in thirty lines of its own.

- prompts of similar length share a batch, padded on the left: all end in the last column
- what all prompts of a batch begin with is computed once and its keys and values are copied
- a KV cache that is copied neither for every head of queries nor for every token
- only the last position goes through the head
- a row that ended leaves the batch: later steps are smaller
- on a processor, weights that are arranged for products with few rows, once answers turn out to be long
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from labkit.packed_product import packed_linear_layers
from labkit.progress import progress
from stage2_rag_finetune_deploy.finetune.chat_format import Message, encode
from stage2_rag_finetune_deploy.finetune.grouped_attention import without_copies
from stage2_rag_finetune_deploy.finetune.growing_cache import give_room

LONG = 8  # new tokens from which on arranging the weights (0.4 s for SmolLM2) is likely to pay


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many ids all rows begin with; at least one id of every row stays outside."""
    first, shortest = rows[0], min(len(row) for row in rows)
    for place in range(shortest - 1):
        if any(row[place] != first[place] for row in rows):
            return place
    return shortest - 1


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Message]], max_new_tokens: int = 96, temperature: float = 0,
    seed: int = 0, batch: int = 64, description: str = "answers",
) -> list[str]:  # fmt: skip
    """The answers to prompts given as chat messages, in their order.

    Args:
        max_new_tokens: an answer that has not ended by then is cut.
        temperature: 0 takes the most probable token, the same every time.
        seed: of the draws at a temperature above 0.
        batch: prompts at once.
    """
    limit = model.config.max_position_embeddings - max_new_tokens
    rows = [encode(tokenizer, messages, max_length=limit).ids for messages in prompts]
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    chance = torch.Generator().manual_seed(seed)
    answers = [""] * len(rows)
    for start in progress(range(0, len(rows), batch), description=description):
        chosen = order[start : start + batch]
        ends = generate_ids(
            model, [rows[number] for number in chosen], max_new_tokens, tokenizer.eos_token_id, temperature, chance
        )
        for number, ids in zip(chosen, ends, strict=True):
            answers[number] = tokenizer.decode(ids, skip_special_tokens=True)
    return answers


@torch.inference_mode()
def generate_ids(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, end_id: int, temperature: float = 0,
    chance: torch.Generator | None = None,
) -> list[list[int]]:  # fmt: skip
    """One batch: prompts as ids in, new ids out, without the end of turn."""
    was_training = model.training
    model.eval()
    answers: list[list[int]] = [[] for _ in prompts]
    for alive, ids in decode(model, *prefill(model, prompts), max_new_tokens, end_id,
                             lambda logits: pick(logits, temperature, chance)):  # fmt: skip
        for row, token in zip(alive, ids, strict=True):
            if token != end_id:
                answers[row].append(token)
    model.train(was_training)
    return answers


def decode(
    model: Any, logits: Tensor, cache: DynamicCache, mask: Tensor, max_new_tokens: int, end_id: int,
    draw: Callable[[Tensor], Tensor],
) -> Iterator[tuple[list[int], list[int]]]:  # fmt: skip
    """Go on from a prefilled batch, one token a row and step, until all rows have ended or the limit is reached.

    Args:
        logits, cache, mask: as `prefill` returns them.
        draw: ids (rows,) of logits (rows, V).

    Yields:
        which rows of the batch are still going, and their new ids; the last id of a row that ends is `end_id`.
    """
    alive = torch.arange(len(logits))
    give_room(cache)
    with without_copies(model), ExitStack() as packing:
        for step in range(max_new_tokens):
            if step == LONG:
                packing.enter_context(packed_linear_layers(model))
            ids = draw(logits)  # (rows,)
            yield alive.tolist(), ids.tolist()
            going = ids != end_id
            if step + 1 == max_new_tokens or not going.any():
                break
            if not going.all():
                cache.batch_select_indices(going.nonzero()[:, 0])
                ids, mask, alive = ids[going], mask[going], alive[going.cpu()]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            positions = mask.sum(1, keepdim=True) - 1
            logits = model(
                ids[:, None].to(mask.device), attention_mask=mask, position_ids=positions, past_key_values=cache
            ).logits[:, -1]  # (rows, V)


def prefill(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, DynamicCache, Tensor]:
    """Run the prompts: logits of the next token (B, V), the cache, and the mask (B, T) with 0 on padding."""
    shared, device = common_prefix(prompts) if len(prompts) > 1 else 0, model.device
    cache = DynamicCache(config=model.config)
    if shared:
        model.model(torch.tensor([prompts[0][:shared]], device=device), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(prompts))
    rests = [list(prompt[shared:]) for prompt in prompts]
    width = max(map(len, rests))
    ids = torch.tensor([[0] * (width - len(rest)) + rest for rest in rests], device=device)  # (B, T - shared)
    mask = torch.tensor(
        [[1] * shared + [0] * (width - len(rest)) + [1] * len(rest) for rest in rests], device=device
    )  # (B, T): the padding lies between the shared beginning and the rest
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
    hidden = model.model(
        ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    # in two dimensions: of a strided (B, 1, C) and frozen weights PyTorch makes a product with B copies of the head
    return model.lm_head(hidden[:, -1]), cache, mask


def pick(logits: Tensor, temperature: float, chance: torch.Generator | None) -> Tensor:
    """One token a row from logits (rows, V)."""
    if temperature == 0:
        return logits.float().argmax(-1)
    return torch.multinomial((logits.float() / temperature).softmax(-1).cpu(), 1, generator=chance)[:, 0]
