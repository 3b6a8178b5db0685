"""Drift: do customers ask for other things than they used to?  PSI by hand, and a chi-square test beside it.

    PSI = sum over bins of (now - then) * ln(now / then)          (shares of the bin)

PSI is the symmetric Kullback-Leibler divergence of two histograms. The rules of thumb come from credit scoring
(Siddiqi 2006): below 0.1 stable, above 0.25 shifted. Without any drift its expected value is about
(bins - 1) * (1/then + 1/now), so with 50 runs in 10 bins 0.25 is nothing special: an alarm needs the test as well.

Bins of a number are the deciles of the reference, fixed before looking at what is new; bins of a category are its
values. The reference is fixed: a window that moves along would follow a slow drift and never see it.
"""

import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.files import write_json
from stage3_agents_llmops.monitoring.quantiles import exact_quantile
from stage3_agents_llmops.monitoring.run_record import RunRecord

BINS = 10
SMOOTH = 0.5  # runs added to every bin, so that an empty one gives no infinity
SHIFTED = 0.25
SURE = 0.001  # p-value
LEAST = 100  # runs on either side
REFERENCE_RUNS, RECENT_RUNS = 500, 200
WATCHED = ("intent", "query_chars", "retrieval_score")


# exercise: monitoring.population_stability
def population_stability(then: Sequence[float], now: Sequence[float], smooth: float = SMOOTH) -> float:
    """PSI of two histograms over the same bins.

    `smooth` is added to every count before the counts become shares.

    Args:
        then: counts of the reference, one a bin.
        now: counts of what is new.

    Returns:
        0 for equal shares, otherwise above 0; the same with then and now exchanged.

    Raises:
        ValueError: the bins are not the same, or there are none.
    """
    if len(then) != len(now) or not then:
        raise ValueError(f"{len(then)} bins against {len(now)}")
    before, after = sum(then) + smooth * len(then), sum(now) + smooth * len(now)
    shares = [((a + smooth) / before, (b + smooth) / after) for a, b in zip(then, now, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in shares)


# end exercise


def chi_square(then: Sequence[int], now: Sequence[int]) -> float:
    """p-value of the same shares on both sides (chi-square test of homogeneity); bins empty on both sides do not count.

    The test wants about five expected counts a bin; rarer bins are put together.
    """
    from scipy.special import chdtrc  # scipy.stats takes ten times as long to import

    pairs = sorted(((a, b) for a, b in zip(then, now, strict=True) if a + b), key=sum)
    total, smaller = sum(map(sum, pairs)), min(sum(then), sum(now))
    merged = [[0, 0]]
    for a, b in pairs:
        if sum(merged[-1]) * smaller >= 5 * total:
            merged.append([0, 0])
        merged[-1][0] += a
        merged[-1][1] += b
    if len(merged) < 2:
        merged = [list(pair) for pair in pairs]
    if len(merged) < 2:
        return 1.0
    statistic = 0.0
    for place, side in enumerate((sum(then), sum(now))):
        for pair in merged:
            expected = sum(pair) * side / total
            statistic += (pair[place] - expected) ** 2 / expected
    return float(chdtrc(len(merged) - 1, statistic))


def decile_edges(values: Sequence[float], bins: int = BINS) -> list[float]:
    """Edges between `bins` equally full bins of the reference; fewer where many values are the same."""
    return sorted({exact_quantile(values, place / bins) for place in range(1, bins)})


@dataclass(frozen=True)
class Reference:
    """What is normal, for one thing that is watched: the bins, and how many runs fell into each.

    Attributes:
        edges: of a number: a value belongs to the first edge that it is not above. Empty for a category.
        counts: bin -> runs; a category's bins are its values, a number's "0", "1", ...
    """

    what: str
    edges: tuple[float, ...]
    counts: Mapping[str, int]

    @classmethod
    def of(cls, what: str, values: Sequence[Any]) -> "Reference":
        """From the values of the reference."""
        numeric = not isinstance(values[0], str)
        edges = tuple(decile_edges(values)) if numeric else ()
        empty = {str(place): 0 for place in range(len(edges) + 1)} if numeric else {}
        return cls(what, edges, empty | Counter(bin_of(value, edges) for value in values))

    @property
    def n(self) -> int:
        """Runs behind it."""
        return sum(self.counts.values())

    def compare(self, values: Sequence[Any]) -> "Drift":
        """How far new values are from it; a category that the reference lacks is a bin of its own."""
        now = Counter(bin_of(value, self.edges) for value in values)
        bins = tuple(sorted(set(self.counts) | set(now), key=lambda name: (len(name) if self.edges else 0, name)))
        then_counts = tuple(self.counts.get(name, 0) for name in bins)
        now_counts = tuple(now.get(name, 0) for name in bins)
        if self.n < LEAST or len(values) < LEAST:
            return Drift(self.what, bins, then_counts, now_counts, None, None)
        psi = population_stability(then_counts, now_counts)
        return Drift(self.what, bins, then_counts, now_counts, psi, chi_square(then_counts, now_counts))


def bin_of(value: Any, edges: Sequence[float]) -> str:
    """The name of a value's bin."""
    return value if isinstance(value, str) else str(bisect_left(edges, value))


@dataclass(frozen=True)
class Drift:
    """One comparison. PSI and p are None with too few runs on a side."""

    what: str
    bins: tuple[str, ...]
    then: tuple[int, ...]
    now: tuple[int, ...]
    psi: float | None
    p_value: float | None

    @property
    def shifted(self) -> bool:
        """Whether it is far (PSI) and no chance (chi-square)."""
        return self.psi is not None and self.psi > SHIFTED and self.p_value < SURE


def values_of(runs: Iterable[RunRecord], what: str) -> list[Any]:
    """What customers' runs show of one thing that is watched, where they show it."""
    asked = [run for run in runs if not run.probe and run.query_chars]  # a click on "yes" is no question
    return [value for run in asked if (value := getattr(run, what)) is not None]


def references(runs: Sequence[RunRecord]) -> dict[str, Reference]:
    """What is normal, from runs of a time that was."""
    found = {what: values_of(runs, what) for what in WATCHED}
    return {what: Reference.of(what, values) for what, values in found.items() if values}


def drifts(normal: Mapping[str, Reference], runs: Sequence[RunRecord], recent: int = RECENT_RUNS) -> list[Drift]:
    """Each thing that is watched: the last `recent` runs that show it against what is normal."""
    return [reference.compare(values_of(runs, what)[-recent:]) for what, reference in normal.items()]


def save_references(normal: Mapping[str, Reference], path: Path) -> None:
    """Keep what is normal in a file."""
    write_json(path, {what: {"edges": list(each.edges), "counts": dict(each.counts)} for what, each in normal.items()})


def load_references(path: Path) -> dict[str, Reference]:
    """What `save_references` kept.

    Raises:
        LabError: no such file, or it holds something else.
    """
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        return {what: Reference(what, tuple(each["edges"]), each["counts"]) for what, each in kept.items()}
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}", "drift --save FILE makes it") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LabError(f"{path} holds no reference", "drift --save FILE makes it") from None
