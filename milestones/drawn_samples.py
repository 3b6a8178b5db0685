"""Texts drawn from the learner's model: its logits, the grader's temperature and random numbers."""

from dataclasses import dataclass

import numpy as np

from milestones.learner_model import LearnerFault, LearnerModel

OPERATIONS = 4e12  # without a KV cache: what two cores compute in about a minute
SMALLEST_WINDOW = 32
CHECKED_STEPS = 4


@dataclass(frozen=True)
class Samples:
    """The texts, and how they were drawn."""

    texts: list[str]
    window: int  # tokens that the model saw at most
    cached: bool  # whether the learner's KV cache was used


def draw_samples(
    model: LearnerModel,
    count: int,
    characters: int,
    temperature: float,
    rng: np.random.Generator,
    tolerance: float,
) -> Samples:
    """`count` texts of `characters` characters, each begun at a line break.

    A KV cache makes this fast. It is used if the model has one, and some of its answers are compared with the
    plain forward pass: if they differ by more than `tolerance` in a probability, all is drawn again without
    it.
    """
    start = first_ids(model)
    ids, checked = _draw(model, start, count, characters, temperature, rng)
    if model.cached and not all(_plain_pass_agrees(model, *step, tolerance) for step in checked):
        model.cached = False
        ids, _ = _draw(model, start, count, characters, temperature, rng)
    texts = [text[:characters] for text in model.decode(ids[:, len(start) :])]
    return Samples(texts, window_of(model, count, characters), model.cached)


def first_ids(model: LearnerModel) -> list[int]:
    """The prompt: a line break, or the first token of a vocabulary that has none."""
    return (model.encode(["\n"])[0] if "\n" in model.known("\n") else []) or [0]


def window_of(model: LearnerModel, count: int, characters: int) -> int:
    """How many tokens the model sees at most: its context.

    Without a KV cache every step reads the whole window again, so a large model gets a smaller window.
    """
    window = model.context
    per_token = 2 * max(1, model.parameters) * count * characters
    while not model.cached and window > SMALLEST_WINDOW and window * per_token > OPERATIONS:
        window //= 2
    return window


def _draw(
    model: LearnerModel,
    start: list[int],
    count: int,
    characters: int,
    temperature: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Ids of all texts, (count, prompt + drawn), and what was asked and answered at a few steps.

    When the window is full, its second half becomes the past: a cache then starts anew.
    """
    ids = past = np.tile(np.array(start, dtype=np.int64), (count, 1))
    checked, to_check = [], set(rng.integers(2, characters // 4, CHECKED_STEPS).tolist())
    for step in range(1, 2 * characters + 1):
        logits = model.next_logits(past)
        if step in to_check:
            checked.append((past, softmax(logits)))
        drawn = sample_rows(softmax(logits / temperature), rng)[:, None]
        ids, past = np.concatenate((ids, drawn), axis=1), np.concatenate((past, drawn), axis=1)
        window = window_of(model, count, characters)
        if past.shape[1] > window:
            past = past[:, -max(1, window // 2) :]
        if step % 50 == 0 and min(map(len, model.decode(ids[:, len(start) :]))) >= characters:
            break
    return ids, checked


def _plain_pass_agrees(model: LearnerModel, ids: np.ndarray, cached: np.ndarray, tolerance: float) -> bool:
    return bool(np.abs(softmax(model.logits(ids)[:, 0]) - cached).max() <= tolerance)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, float64."""
    exponent = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


def sample_rows(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index per row, (B, V) -> (B,) int64."""
    edges = probabilities.cumsum(axis=-1)
    drawn = (edges < rng.random((len(edges), 1)) * edges[:, -1:]).sum(axis=-1)
    return np.minimum(drawn, probabilities.shape[1] - 1)


def check_round_trip(model: LearnerModel, texts: list[str], ids: list[list[int]]) -> None:
    """Raise LearnerFault if decoding does not undo encoding: the bits would be those of less text."""
    for text, again in zip(texts, model.decode(ids), strict=True):
        if again != text:
            raise LearnerFault("the tokenizer does not give back the text that it encoded")
