"""Bits per character of the learner's model on text it never saw, and whether it saw only the past.

Every scored token has at least half a context before it: windows of one full context move on by half a
context, and the second half of each is scored. Causality: a few windows are asked for cut short, before any
whole one is, so that the learner's process cannot know what follows; the whole ones must agree with them.
"""

import math
import random
from collections.abc import Sequence

import numpy as np

from milestones.drawn_samples import check_round_trip, softmax
from milestones.learner_model import LearnerFault, LearnerModel

UNKNOWN_BITS = math.log2(0x110000)  # a character that the tokenizer cannot write costs its Unicode number
BATCH = 8


def held_out_bits(
    model: LearnerModel,
    passages: Sequence[tuple[str, str]],
    rng: random.Random,
    prefixes: int,
    tolerance: float,
) -> tuple[float, int]:
    """Bits per character over all passages, and the number of characters that the tokenizer did not know.

    Args:
        passages: (what stands before, the passage to score), the former for context only.
        prefixes: how many places are asked twice for causality.
        tolerance: largest difference of a probability between the two answers.

    Raises:
        LearnerFault: the model sees the future, or the tokenizer loses text.
    """
    known = model.known("".join(sorted(set("".join(text for pair in passages for text in pair)))))
    cleaned = [["".join(c for c in text if c in known) for text in pair] for pair in passages]
    unknown = sum(len(pair[1]) - len(clean[1]) for pair, clean in zip(passages, cleaned, strict=True))
    texts = [text for pair in cleaned for text in pair]
    ids = model.encode(texts)
    check_round_trip(model, texts, ids)
    length = min(model.context, *(len(before) for before in ids[0::2])) if ids else 0
    if length < 1:
        raise LearnerFault("the tokenizer knows almost none of the held-out text")
    windows, counts = cut_windows(ids, length)
    nats = score_windows(model, windows, counts, rng, prefixes, tolerance)
    characters = sum(len(passage) for _, passage in passages)
    return (nats / math.log(2) + unknown * UNKNOWN_BITS) / characters, unknown


def cut_windows(ids: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of `length` tokens and the one that follows, (W, length + 1), and how many each scores.

    Args:
        ids: before, passage, before, passage, ...; every `before` has at least `length` tokens.
    """
    stride = max(1, length // 2)
    windows, counts = [], []
    for before, passage in zip(ids[0::2], ids[1::2], strict=True):
        both, start = [*before, *passage], len(before)
        for first in range(start, len(both), stride):
            end = min(first + stride, len(both))
            windows.append(both[end - length - 1 : end])
            counts.append(end - first)
    return np.array(windows, dtype=np.int64), np.array(counts)


def score_windows(
    model: LearnerModel,
    windows: np.ndarray,
    counts: np.ndarray,
    rng: random.Random,
    prefixes: int,
    tolerance: float,
) -> float:
    """Sum of the scored tokens' surprise in nats; see `held_out_bits` for the rest."""
    stride = int(counts.max())
    asked = ask_prefixes(model, windows, stride, rng, prefixes)
    total = 0.0
    for first in range(0, len(windows), BATCH):
        batch = windows[first : first + BATCH]
        logits = model.logits(batch[:, :-1], last=stride)  # (B, stride, V)
        for row in range(len(batch)):
            for position, probabilities in asked.get(first + row, ()):
                again = softmax(logits[row, stride - 1 - position])
                if np.abs(again - probabilities).max() > tolerance:
                    raise LearnerFault(
                        "the model sees the future (or dropout is on): its answers change with what follows"
                    )
            count = counts[first + row]
            logp = log_softmax(logits[row, -count:])
            total -= float(logp[np.arange(count), batch[row, -count:]].sum())
    return total


def ask_prefixes(
    model: LearnerModel, windows: np.ndarray, stride: int, rng: random.Random, prefixes: int
) -> dict[int, list[tuple[int, np.ndarray]]]:
    """The model's distributions in the middle of windows, asked without what follows.

    Returns:
        window -> [(tokens that were cut off, probabilities (V,))]; four different cuts.
    """
    asked: dict[int, list[tuple[int, np.ndarray]]] = {}
    for _ in range(4):
        cut = rng.randrange(1, stride) if stride > 1 else 0
        rows = rng.sample(range(len(windows)), min(max(1, prefixes // 4), len(windows)))
        if cut:
            logits = model.logits(windows[rows, : -1 - cut])
            for row, one in zip(rows, logits, strict=True):
                asked.setdefault(row, []).append((cut, softmax(one[0])))
    return asked


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
