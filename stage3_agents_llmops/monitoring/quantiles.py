"""Percentiles: exact ones from values, estimated ones from a histogram's buckets, and when to say "too few samples".

A percentile cannot be averaged: the mean of two servers' 95th percentiles is nobody's 95th percentile. What adds up are
counts, so a server exports how many answers took at most 0.1 s, at most 0.3 s and so on, and the percentile is computed
last, from the sum. The price is that within a bucket nothing is known: the estimate is right to one bucket, and right
exactly where it matters only if an edge lies on the objective.

Definitions: nearest rank (Hyndman & Fan 1996, type 1) for values; for buckets what Prometheus computes
(`histogram_quantile`, promql/quantile.go). Both look at the same rank, so both always lie in the same bucket.
"""

import math
from collections.abc import Sequence

BEYOND = 10  # values that must lie beyond a percentile before it is worth printing


# exercise: monitoring.exact_quantile
def exact_quantile(values: Sequence[float], q: float) -> float:
    """The smallest value such that at least a share q of the values is not above it (nearest rank).

    Args:
        values: at least one, in any order.
        q: above 0, at most 1.

    Raises:
        ValueError: no values, or no such q.
    """
    if not values or not 0 < q <= 1:
        raise ValueError(f"no quantile {q} of {len(values)} values")
    return sorted(values)[math.ceil(q * len(values)) - 1]


# end exercise


# exercise: monitoring.bucket_quantile
def bucket_quantile(edges: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """The quantile of a histogram, as Prometheus estimates it: values lie evenly within their bucket.

    The rank q * n falls into the first bucket whose cumulative count reaches it. Between that bucket's lower and upper
    edge the estimate is as far as the rank is between the counts below and within. The first bucket begins at 0 (where
    its edge is not above 0, the edge itself is the estimate). Where the rank falls past the last edge, nothing is known
    but that the value is above it: the last edge is returned.

    Args:
        edges: upper edges, rising, without infinity.
        counts: cumulative: how many values are at most each edge, and last, for infinity, all of them.
        q: above 0, at most 1.

    Returns:
        None without any value.

    Raises:
        ValueError: the numbers of edges and counts do not fit, or counts fall, or no such q.
    """
    if len(counts) != len(edges) + 1 or list(counts) != sorted(counts) or not edges or not 0 < q <= 1:
        raise ValueError(f"{len(edges)} edges and counts {list(counts)} are no histogram, or {q} is no quantile")
    if not counts[-1]:
        return None
    rank = q * counts[-1]
    place = next(i for i, count in enumerate(counts) if count >= rank)
    if place == len(edges):
        return edges[-1]
    if place == 0 and edges[0] <= 0:
        return edges[0]
    low, below = (edges[place - 1], counts[place - 1]) if place else (0.0, 0)
    return low + (edges[place] - low) * (rank - below) / (counts[place] - below)


# end exercise


def bucket_counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Cumulative counts: how many values are at most each edge; last, all of them."""
    return [*(sum(value <= edge for value in values) for edge in edges), len(values)]


def same_bucket(one: float, other: float, edges: Sequence[float]) -> bool:
    """Whether no edge lies between two values; a value on an edge belongs to the bucket that the edge closes."""

    def place(value: float) -> int:
        return sum(value > edge for edge in edges)

    return place(one) == place(other)


def enough_for(q: float, beyond: int = BEYOND) -> int:
    """How many values a quantile needs: 10 beyond it by default, which is 20 for P50, 200 for P95, 1,000 for P99."""
    return math.ceil(round(beyond / min(q, 1 - q), 6)) if 0 < q < 1 else beyond


def sure_quantile(values: Sequence[float], q: float, beyond: int = BEYOND) -> float | None:
    """The exact quantile, or None where there are too few values to speak of it."""
    return exact_quantile(values, q) if len(values) >= max(1, enough_for(q, beyond)) else None
