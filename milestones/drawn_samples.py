"""Texts drawn from the learner's model by the grader: its temperature, its random numbers, the model's logits."""

from dataclasses import dataclass

import numpy as np

from milestones.learner_model import LearnerFault, LearnerModel

OPERATIONS = 4e12  # without a KV cache: what two cores compute in about a minute
CHECKED_STEPS = 8


@dataclass(frozen=True)
class Samples:
    """The texts, and how they were drawn."""

    texts: list[str]
    window: int  # tokens that the model saw at most
    cached: bool  # whether the learner's KV cache was used


def draw_samples(
    model: LearnerModel, count: int, characters: int, temperature: float, rng: np.random.Generator, tolerance: float
) -> Samples:
    """`count` texts of `characters` characters, each begun at a line break.

    A KV cache makes this fast; it is used if the model has one, and its last steps are compared with the plain
    forward pass. If they differ by more than `tolerance` in a probability, all is drawn again without it.
    """
    start = first_ids(model)
    window = model.context
    ids, steps = _draw(model, start, count, characters, temperature, rng, window)
    if model.cached and not _plain_pass_agrees(model, ids, steps, tolerance):
        model.cached = False
        ids, _ = _draw(model, start, count, characters, temperature, rng, uncached_window(model, count, characters))
    texts = [text[:characters] for text in model.decode(ids[:, len(start) :])]
    return Samples(texts, window if model.cached else uncached_window(model, count, characters), model.cached)


def first_ids(model: LearnerModel) -> list[int]:
    """The prompt: a line break, or the first token of a vocabulary that has none."""
    return (model.encode(["\n"])[0] if "\n" in model.known("\n") else []) or [0]


def uncached_window(model: LearnerModel, count: int, characters: int) -> int:
    """The largest power of two of tokens that the plain forward pass can read at every step in reasonable time."""
    per_token = 2 * max(1, model.parameters) * count * characters
    window = model.context
    while window > 32 and window * per_token > OPERATIONS:
        window = 1 << (window - 1).bit_length() - 1
    return window


def _draw(
    model: LearnerModel, start: list[int], count: int, characters: int, temperature: float,
    rng: np.random.Generator, window: int,
) -> tuple[np.ndarray, list[np.ndarray]]:  # fmt: skip
    """Ids of all texts, (count, prompt + drawn), and the last steps' probabilities, (count, V) each.

    When the window is full, its second half becomes the past: a cache then starts anew.
    """
    ids = np.tile(np.array(start, dtype=np.int64), (count, 1))
    past, steps = ids[:, -window:], []
    for step in range(1, 2 * characters + 1):
        logits = model.next_logits(past)
        if not model.cached and window > (window := min(window, uncached_window(model, count, characters))):
            past = past[:, -window:]
        steps = [*steps, (past, softmax(logits))][-CHECKED_STEPS:]
        drawn = sample_rows(softmax(logits / temperature), rng)[:, None]
        ids = np.concatenate((ids, drawn), axis=1)
        past = np.concatenate((past, drawn), axis=1)
        if past.shape[1] > window:
            past = past[:, -max(1, window // 2) :]
        if step % 50 == 0 and step >= characters / 8:
            texts = model.decode(ids[:, len(start) :])
            if min(map(len, texts)) >= characters:
                break
    return ids, steps


def _plain_pass_agrees(model: LearnerModel, ids: np.ndarray, steps: list, tolerance: float) -> bool:
    for past, probabilities in steps:
        plain = softmax(model.logits(past)[:, 0])
        if np.abs(plain - probabilities).max() > tolerance:
            return False
    return True


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
    """Raise LearnerFault if decoding what was encoded gives another text: its bits would be those of less text."""
    for text, again in zip(texts, model.decode(ids), strict=True):
        if again != text:
            raise LearnerFault("the tokenizer does not give back the text that it encoded")
