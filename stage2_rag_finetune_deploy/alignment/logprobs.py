"""How probable completions are under a model: what all three losses are made of.

A row of SFT, the two answers of a DPO pair, the group of GRPO: each is a prompt with completions. The prompt runs once
and its keys and values are copied for its completions, so that a group of eight costs one prompt and not eight; its
gradient comes back through the copies as a sum. Only positions that predict a completion's token go through the head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stage2_rag_finetune_deploy.finetune.generation import prefill


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as (B, T), padded on the right with 0, and the mask (B, T) of what is no padding."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows], device=device)
    return ids, mask


def completion_logits(
    model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], group: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The logits from which each token of each completion would have been drawn.

    Args:
        prompts: Q rows of ids.
        completions: B = Q * group rows; rows [i * group, (i + 1) * group) belong to prompt i. None is empty.

    Returns:
        logits of the first tokens (B, V); of all others, row by row, (N - B, V); ids (B, T); mask (B, T), N times True.
        `per_token` lays out values of the two.
    """
    first, cache, seen = prefill(model, prompts)  # (Q, V), (Q, P)
    if group > 1:
        first, seen = first.repeat_interleave(group, 0), seen.repeat_interleave(group, 0)
        cache.batch_repeat_interleave(group)
    ids, mask = pad(completions, seen.device)  # (B, T)
    if ids.shape[1] == 1:
        return first, first[:0], ids, mask
    attended = torch.cat([seen, mask[:, :-1].to(seen.dtype)], 1)
    positions = seen.sum(1, keepdim=True) + torch.arange(ids.shape[1] - 1, device=seen.device)  # (B, T - 1)
    hidden = model.model(
        ids[:, :-1], attention_mask=attended, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state  # (B, T - 1, C): the state at t predicts the token at t + 1
    return first, model.lm_head(hidden[mask[:, 1:]]), ids, mask


def per_token(first: Tensor, others: Tensor, mask: Tensor) -> Tensor:
    """Values of the first tokens (B,) and of all others (N - B,) in their places, (B, T); zeros on padding."""
    rest = torch.zeros(mask[:, 1:].shape, device=mask.device).masked_scatter(mask[:, 1:], others.float())
    return torch.cat([first.float()[:, None], rest], 1)


def completion_logprobs(
    model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], group: int = 1
) -> tuple[Tensor, Tensor]:
    """Log-probability of every token of every completion, (B, T) float32 with zeros on padding, and the mask (B, T)."""
    first, others, ids, mask = completion_logits(model, prompts, completions, group)
    picked = [
        -cross_entropy(logits.float(), wanted, reduction="none")
        for logits, wanted in ((first, ids[:, 0]), (others, ids[:, 1:][mask[:, 1:]]))
    ]
    return per_token(*picked, mask), mask
