"""Where a unit falls: a number that looks random, is the same on every machine, and needs no memory.

    sha1("retrieval.user.u-17")  ->  60 bits  ->  segment 0 to 9,999 of the layer `retrieval`

The salt in front of the unit is what makes two layers independent of each other: without it, whoever is in the first
tenth of one layer is in the first tenth of all. Python's own `hash` changes with every start, and `id % 100` is no
hash at all: ids that were given out in order carry the month in which people signed up.

Two published schemes, each reproduced exactly: PlanOut's (used by the lab) and GrowthBook's (for comparison).
"""

import hashlib
from collections.abc import Sequence

SEGMENTS = 10_000  # a layer's traffic in hundredths of a per cent
BITS = 60  # PlanOut takes 15 hexadecimal digits


# exercise: experiments.hashed
def hashed(*parts: str) -> int:
    """The parts joined by dots as a whole number below 2**60: the first 15 hexadecimal digits of their SHA-1.

    Source: PlanOut, `ops/random.py` (Bakshy, Eckles, Bernstein 2014).
    """
    return int(hashlib.sha1(".".join(parts).encode()).hexdigest()[:15], 16)
# end exercise


def uniform(*parts: str) -> float:
    """The same as a number strictly between 0 and 1: its logarithm exists."""
    return (hashed(*parts) + 0.5) / 2**BITS


def segment(*parts: str) -> int:
    """The same as one of a layer's 10,000 segments."""
    return hashed(*parts) % SEGMENTS


def fnv1a32(text: str) -> int:
    """FNV-1a of 32 bits over UTF-16 code units, as JavaScript's `charCodeAt` gives them."""
    value = 0x811C9DC5
    for code in memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H"):
        value = ((value ^ code) * 0x01000193) & 0xFFFFFFFF
    return value


def growthbook_hash(seed: str, value: str, version: int = 2) -> float | None:
    """GrowthBook's bucket of a unit, in [0, 1); None for a version that it does not know.

    Version 1 hashes once, and its last characters decide too much; version 2 hashes the hash.
    """
    if version == 2:
        return fnv1a32(str(fnv1a32(seed + value))) % 10_000 / 10_000
    if version == 1:
        return fnv1a32(value + seed) % 1_000 / 1_000
    return None


def growthbook_ranges(
    arms: int, coverage: float = 1.0, weights: Sequence[float] | None = None
) -> list[tuple[float, float]]:
    """GrowthBook's range of buckets for every arm. `coverage` trims each range at its end, so no start ever moves.

    Weights that are not one an arm or do not sum to 1 (by more than 0.01) are replaced by equal ones.
    """
    coverage = min(max(coverage, 0.0), 1.0)
    if weights is None or len(weights) != arms or not 0.99 <= sum(weights) <= 1.01:
        weights = [1 / arms] * arms
    starts = [sum(weights[:place]) for place in range(arms)]
    return [(start, start + coverage * weight) for start, weight in zip(starts, weights, strict=True)]
