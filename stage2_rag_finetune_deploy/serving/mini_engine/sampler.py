"""From logits to tokens, for a whole batch whose rows want different things.

A row's randomness is a number made from its seed and the position of its token: not from a generator that the whole
batch shares. So a request draws the same tokens whoever is in the batch with it, and after a preemption as well (as
far as the logits are the same: a product with more rows may round otherwise).
"""

from collections.abc import Sequence as Rows

import numpy as np
import torch
from torch import Tensor

from stage2_rag_finetune_deploy.serving.mini_engine.sequence import Sequence

CANDIDATES = (256, 4096)  # sorting 49,152 logits is slow; the largest few nearly always hold what top-p keeps
MASK = (1 << 64) - 1


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing else (SplitMix64, Steele et al. 2014)."""
    z = (seed + (position + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)


def sample(logits: Tensor, sequences: Rows[Sequence], seeds: Rows[int]) -> list[int]:
    """The next token of every row.

    Args:
        logits: (S, V) any dtype.
        sequences: (S,) whose they are.
        seeds: (S,) of the sequences.
    """
    tokens = most_probable(logits)
    drawn = [row for row, sequence in enumerate(sequences) if not sequence.params.greedy]
    if drawn:
        chance = [uniform(seeds[row], len(sequences[row].output_ids)) for row in drawn]
        picked = draw(logits[drawn].float(), [sequences[row] for row in drawn], chance)
        for row, token in zip(drawn, picked, strict=True):
            tokens[row] = token
    return tokens


def most_probable(logits: Tensor) -> list[int]:
    """The greedy token of every row. NumPy finds it in a twentieth of the time that PyTorch takes on a processor."""
    if logits.device.type == "cpu":
        return logits.float().numpy().argmax(-1).tolist()
    return logits.argmax(-1).tolist()


def draw(logits: Tensor, sequences: Rows[Sequence], chance: Rows[float]) -> list[int]:
    """Sample each row: temperature, then top-k, then top-p, then the token at `chance` of what is left.

    Args:
        logits: (R, V) float32.
        chance: (R,) in [0, 1).
    """
    params = [sequence.params for sequence in sequences]

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=logits.device)[:, None]

    size = logits.shape[-1]
    top_k = column([each.top_k if each.top_k > 0 else size for each in params])  # (R, 1)
    top_p = column([each.top_p for each in params])
    logits = logits / column([each.temperature for each in params])
    where = torch.tensor(chance, dtype=torch.float64, device=logits.device)[:, None]
    if not bool((top_k < size).any() or (top_p < 1).any()):
        return pick(logits.softmax(-1), where)[:, 0].tolist()
    for width in sorted({min(width, size) for width in (*CANDIDATES, size)}):
        largest, ids = logits.topk(width)
        probs = (largest - logits.logsumexp(-1, keepdim=True)).exp()  # (R, width) of the whole distribution
        kept, enough = keep(probs, top_k, top_p)
        if bool(enough.all()):
            break
    return ids.gather(1, pick(kept, where))[:, 0].tolist()


# exercise: serving.top_k_top_p
def keep(probs: Tensor, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """Zero what top-k and top-p leave out; top-p counts the probabilities that top-k has left, made to sum to one.

    The token that crosses p is kept, so at least one always is.

    Args:
        probs: (R, W) the W largest probabilities of each row, falling.
        top_k, top_p: (R, 1).

    Returns:
        kept (R, W), not normalised; and enough (R, 1): whether what lies below the W largest could not be kept anyway.
    """
    width = probs.shape[-1]
    kept = probs * (torch.arange(width, device=probs.device) < top_k)
    within_k = top_k <= width
    total = torch.where(within_k, kept.sum(-1, keepdim=True), 1.0)
    before = kept.cumsum(-1) - kept  # the probability of all that is more probable
    enough = within_k | (kept.sum(-1, keepdim=True) >= top_p * total)
    return kept * (before < top_p * total), enough
# end exercise


def pick(weights: Tensor, chance: Tensor) -> Tensor:
    """The column where the running sum passes `chance` (float64) of the whole: (R, 1)."""
    sums = weights.double().cumsum(-1)  # (R, W)
    return torch.searchsorted(sums, chance * sums[:, -1:], right=True).clamp(max=weights.shape[-1] - 1)


def fresh_seed() -> int:
    """A seed for a request that has none."""
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
