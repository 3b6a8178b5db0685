"""A character n-gram model: what counting alone achieves.

Source: Witten and Bell 1991, interpolated: each order trusts its counts the more, the fewer kinds of
successors a past has had.
P(c | past) = (count(past, c) + kinds(past) * P(c | shorter past)) / (count(past) + kinds(past))
"""

import math
from collections import Counter, defaultdict


class NgramModel:
    """Counts of every past of up to n - 1 characters, over a text's own alphabet."""

    def __init__(self, text: str, n: int) -> None:
        self.n = n
        self._alphabet = len(set(text)) + 1  # one more for all that is unknown
        self._counts: list[dict[str, Counter]] = []
        for order in range(n):
            counts: dict[str, Counter] = defaultdict(Counter)
            for i in range(order, len(text)):
                counts[text[i - order : i]][text[i]] += 1
            self._counts.append({past: followers for past, followers in counts.items()})
        self._totals = [{past: c.total() for past, c in counts.items()} for counts in self._counts]

    def probability(self, past: str, character: str) -> float:
        """Of a character after a past; only the last n - 1 characters of the past matter."""
        p = 1 / self._alphabet
        for order in range(min(self.n, len(past) + 1)):
            tail = past[len(past) - order :]
            followers = self._counts[order].get(tail)
            if followers is None:
                break
            p = (followers[character] + len(followers) * p) / (self._totals[order][tail] + len(followers))
        return p

    def bits_per_character(self, passages: list[tuple[str, str]]) -> float:
        """Mean surprise over passages, each given with what stands before it."""
        bits = characters = 0.0
        for before, passage in passages:
            text, start = before + passage, len(before)
            for i in range(start, len(text)):
                bits -= math.log2(self.probability(text[max(0, i - self.n + 1) : i], text[i]))
            characters += len(passage)
        return bits / characters
