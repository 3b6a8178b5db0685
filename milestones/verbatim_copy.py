"""What was copied: the longest run of characters that a text shares with a corpus.

Idea: two texts share a run of L characters exactly when a window of L characters of one equals a window of
the other. All windows of a length are compared at once through a rolling hash, so megabytes take tenths of a
second; the longest shared run follows by bisection, because whoever shares L characters also shares L - 1.

Source: Karp and Rabin 1987, "Efficient randomized pattern-matching algorithms".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
INVERSE = pow(BASE, -1, 2**64)
FILTER_BITS = 22


@dataclass(frozen=True)
class Copy:
    """The longest run found: its length in characters, and the run itself."""

    length: int
    text: str


class RollingHash:
    """Hashes of all windows of a text, for any window length, from one pass over the text."""

    def __init__(self, text: str) -> None:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
        codes = _mixed(codes + np.uint64(1))
        self._powers_back = _powers(INVERSE, len(codes) + 1)
        self._sums = np.zeros(len(codes) + 1, dtype=np.uint64)
        np.cumsum(codes * _powers(BASE, len(codes)), out=self._sums[1:])

    def __len__(self) -> int:
        return len(self._sums) - 1

    def windows(self, length: int) -> np.ndarray:
        """One hash per start, (len(text) - length + 1,) uint64; empty when the text is shorter."""
        count = len(self) - length + 1
        if count <= 0:
            return np.zeros(0, dtype=np.uint64)
        sums = self._sums[length : length + count] - self._sums[:count]
        return _mixed(sums * self._powers_back[:count])


class VerbatimIndex:
    """Finds what texts share with a corpus, character for character.

    Args:
        corpus: the text that may have been copied from.
    """

    def __init__(self, corpus: str) -> None:
        self._corpus = RollingHash(corpus)

    def shared(self, texts: Sequence[str], length: int) -> list[np.ndarray]:
        """For every text: whether the window of `length` characters from each position is in the corpus."""
        hashes = [RollingHash(text).windows(length) for text in texts]
        return self._found(hashes, length)

    def longest(self, texts: Sequence[str]) -> Copy:
        """The longest run of characters that any of the texts shares with the corpus."""
        rolling = [RollingHash(text) for text in texts]
        best = Copy(0, "")
        low, high = 0, max(map(len, texts), default=0)
        while low < high:
            middle = (low + high + 1) // 2
            found = self._found([one.windows(middle) for one in rolling], middle)
            where = [(text, hits.argmax()) for text, hits in zip(texts, found, strict=True) if hits.any()]
            if where:
                text, start = where[0]
                low, best = middle, Copy(middle, text[start : start + middle])
            else:
                high = middle - 1
        return best

    def copied_share(self, texts: Sequence[str], length: int) -> float:
        """Share of all characters that lie in a run of `length` or more characters found in the corpus."""
        copied = 0
        for text, hits in zip(texts, self.shared(texts, length), strict=True):
            inside = np.zeros(
                len(text) + 1, dtype=np.int64
            )  # +1 where a copied window opens, -1 where one closes
            inside[: len(hits)] += hits
            inside[length : length + len(hits)] -= hits
            copied += int((np.cumsum(inside) > 0).sum())
        return copied / max(1, sum(map(len, texts)))

    def _found(self, hashes: list[np.ndarray], length: int) -> list[np.ndarray]:
        wanted = np.concatenate(hashes) if hashes else np.zeros(0, dtype=np.uint64)
        maybe = np.zeros(1 << FILTER_BITS, dtype=bool)  # a cheap filter first
        maybe[_low_bits(wanted)] = True
        corpus = self._corpus.windows(length)
        corpus = corpus[maybe[_low_bits(corpus)]]
        return [np.isin(one, corpus) for one in hashes]


def _powers(base: int, count: int) -> np.ndarray:
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread every bit over the whole word (the finaliser of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    return values ^ (values >> np.uint64(33))


def _low_bits(values: np.ndarray) -> np.ndarray:
    return (values & np.uint64((1 << FILTER_BITS) - 1)).astype(np.int64)
