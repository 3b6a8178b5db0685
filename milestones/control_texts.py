"""Negative controls: writers that a criterion of coherence must not be fooled by.

Each is a real sampler over a real text, cheap to build, and knows nothing that a language model knows. Month
1's thresholds lie between them and the reference; `python -m milestones.calibrate` shows where, and
tests/milestones/test_negative_controls.py keeps it so.
"""

import random
from collections import defaultdict
from collections.abc import Callable

from milestones.text_coherence import Units

Writer = Callable[[random.Random, int], str]  # (random, characters) -> text


class MarkovWriter:
    """Draws each character from what followed the last `order` characters in the training text.

    Order 0 draws from the frequencies of single characters; order 3 is a 4-gram sampler.
    """

    def __init__(self, text: str, order: int) -> None:
        self.order = order
        self._followers: dict[str, list[str]] = defaultdict(list)
        for i in range(order, len(text)):
            self._followers[text[i - order : i]].append(text[i])
        self._starts = sorted(self._followers)

    def __call__(self, rng: random.Random, characters: int) -> str:
        text = rng.choice(self._starts)
        while len(text) < characters + self.order:
            past = text[len(text) - self.order :]
            followers = self._followers.get(past) or self._followers[rng.choice(self._starts)]
            text += rng.choice(followers)
        return text[self.order :]


def copying_writer(text: str, piece: int | None = None) -> Writer:
    """Copies passages of the training text: one, or pieces of `piece` characters put end to end."""

    def write(rng: random.Random, characters: int) -> str:
        size = piece or characters
        starts = [rng.randrange(len(text) - size) for _ in range(-(-characters // size))]
        return "".join(text[start : start + size] for start in starts)[:characters]

    return write


def repeating_writer(sentence: str) -> Writer:
    """One good sentence, again and again."""

    def write(rng: random.Random, characters: int) -> str:
        return (sentence * (characters // len(sentence) + 1))[:characters]

    return write


def shuffled_text(text: str, units: Units, rng: random.Random) -> str:
    """The text with its words (characters where there are no spaces) in random order; its lines stay."""
    words, gap = (text.split(), " ") if units.name == "words" else (list("".join(text.split())), "")
    rng.shuffle(words)
    fresh = iter(words)
    lines = (line.split() if gap else "".join(line.split()) for line in text.split("\n"))
    return "\n".join(gap.join(next(fresh) for _ in line) for line in lines)


def write_texts(writer: Writer, rng: random.Random, count: int, characters: int) -> list[str]:
    """`count` texts of a writer."""
    return [writer(rng, characters) for _ in range(count)]
