"""Perplexity block by block, so that two models can be compared on the same text with an interval."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stage1_foundations.embeddings.bootstrap import interval, resample_counts

DRAWS = 2000


@torch.inference_mode()
def block_losses(model: Any, ids: Tensor, batch: int = 4) -> np.ndarray:
    """Mean loss of each block, in nats a token; a block's first token is only context. (blocks,).

    Args:
        ids: (blocks, length).
    """
    losses = []
    for part in ids.to(model.device).split(batch):
        logits = model(part, use_cache=False).logits[:, :-1].float()  # (batch, length - 1, V)
        loss = cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none")
        losses.append(loss.mean(1).cpu())
    return torch.cat(losses).numpy()


def perplexity(losses: Sequence[float] | np.ndarray) -> float:
    """exp of the mean loss of blocks of one length."""
    return math.exp(np.mean(losses))


def ratio_interval(
    losses: np.ndarray, baseline: np.ndarray, seed: int = 1, draws: int = DRAWS
) -> tuple[float, float, float]:
    """Perplexity divided by the baseline's, with its 95 % bootstrap interval over blocks: (ratio, low, high).

    Both are computed on the same resamples of the same blocks: a hard block is hard for both.
    """
    difference = np.asarray(losses, float) - np.asarray(baseline, float)
    means = resample_counts(len(difference), draws, seed) @ difference / len(difference)
    low, high = interval(np.exp(means))
    return math.exp(difference.mean()), low, high
