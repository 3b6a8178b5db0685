"""How much a text resembles its language, measured without a model.

    known_share      share of its words that the language has
    distinct_share   share of its n-grams that are not repeats of one another

English is counted in words. Chinese writes no spaces, so it is counted in characters, and a "word" is a run
of characters inside a phrase.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
HAN_TEXT = 0.3  # a text with more Chinese characters than this share is counted in characters


@dataclass(frozen=True)
class Units:
    """What a text is counted in: "words" or "characters"."""

    name: str

    def split(self, text: str) -> list[str]:
        """The text's units in order, punctuation left out."""
        if self.name == "words":
            return [word.lower() for word in WORD.findall(text)]
        return [character for phrase in HAN.findall(text) for character in phrase]

    def words(self, text: str, length: int) -> list[str]:
        """What `known_share` looks up: words of at least `length` letters, or runs of `length` characters."""
        if self.name == "words":
            return [word for word in self.split(text) if len(word) >= length]
        return [
            phrase[i : i + length] for phrase in HAN.findall(text) for i in range(len(phrase) - length + 1)
        ]


def units_of(text: str) -> Units:
    """Characters for Chinese, words for anything else."""
    head = text[:100_000]
    return Units("characters" if sum(map(len, HAN.findall(head))) > HAN_TEXT * len(head) else "words")


def known_share(texts: Sequence[str], vocabulary: set[str], units: Units, length: int) -> float:
    """Share of the texts' words that the vocabulary has; 0 when there are none."""
    words = [word for text in texts for word in units.words(text, length)]
    return sum(word in vocabulary for word in words) / max(1, len(words))


def vocabulary_of(texts: Iterable[str], units: Units, length: int) -> set[str]:
    """All words of the texts."""
    return {word for text in texts for word in units.words(text, length)}


def distinct_share(texts: Sequence[str], units: Units, n: int) -> float:
    """Distinct n-grams divided by n-grams, over all texts together; 0 when there are none.

    Source: Li et al. 2016, "A Diversity-Promoting Objective Function", section 4 (distinct-n).
    """
    grams = []
    for text in texts:
        split = units.split(text)
        grams += [tuple(split[i : i + n]) for i in range(len(split) - n + 1)]
    return len(set(grams)) / max(1, len(grams))
