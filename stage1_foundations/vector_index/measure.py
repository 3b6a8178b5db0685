"""Recall, speed, size: the same clock and the same rules for every library.

- One thread. Compilation, warm-up and ground truth are outside the clock.
- Single queries are timed one by one through Python, as an application would call. Noise on a machine only ever adds
  time, so the best of several rounds counts, for each query and for the batch; p95 is therefore that of slow queries,
  not of a busy machine. Libraries take turns within a round.
- QPS at a recall is interpolated between two measured points, and is "-" where a library never got there.
"""

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from labkit.progress import progress
from stage1_foundations.vector_index.adapters import Adapter
from stage1_foundations.vector_index.recall import GroundTruth, recall_at_k


@dataclass(frozen=True)
class Point:
    """One index at one query argument.

    Attributes:
        name: library and family. argument: nprobe or ef; 0 where there is none.
        recall: as recall.DEFINITION has it.
        qps: single queries a second. p50_ms, p95_ms: of single queries.
        batch_qps: queries a second when all are handed over at once.
    """

    name: str
    argument: int
    recall: float
    qps: float
    p50_ms: float
    p95_ms: float
    batch_qps: float


@dataclass(frozen=True)
class Built:
    """What an index cost before the first query: seconds, and bytes per vector in its file."""

    name: str
    seconds: float
    bytes_per_vector: float


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS on one thread, too. (Its threads also wait by spinning: on a busy machine two are slower than one.)"""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def build(adapter: Adapter, vectors: np.ndarray) -> Built:
    """Fit an adapter; measures its time and the size of its file."""
    start = time.perf_counter()
    adapter.fit(vectors)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        adapter.save(path)
        size = path.stat().st_size
    return Built(adapter.name, seconds, size / len(vectors))


def warm_up(adapter: Adapter, vectors: np.ndarray) -> None:
    """Compile what a library compiles, on a handful of vectors and outside the clock."""
    few = vectors[:1000]
    small = type(adapter)(adapter.family, replace(adapter.settings, lists=4, bits=4, ef_construction=10))
    small.fit(few)
    small.set_query_arguments(1)
    small.batch_query(few[:8], 1)
    small.query(few[0], 1)


def measure(
    adapters: Sequence[Adapter], grids: Sequence[Sequence[int]], truth: GroundTruth, k: int = 10, rounds: int = 2
) -> list[list[Point]]:
    """All points of several fitted indexes, measured in turns.

    Args:
        grids: query arguments for each adapter; [0] where there is none.

    Returns:
        One list of points for each adapter.
    """
    points: list[list[Point]] = [[] for _ in adapters]
    longest = max(len(grid) for grid in grids)
    with progress(total=sum(len(grid) for grid in grids), description="measure") as bar:
        for step in range(longest):
            now = [(number, grids[number][step]) for number in range(len(adapters)) if step < len(grids[number])]
            best: dict[int, tuple[np.ndarray, float]] = {}
            for _ in range(rounds):
                for number, argument in now:
                    adapters[number].set_query_arguments(argument)
                    single, batch = _clock(adapters[number], truth.queries, k)
                    if number in best:
                        single, batch = np.minimum(single, best[number][0]), min(batch, best[number][1])
                    best[number] = single, batch
            for number, argument in now:
                adapters[number].set_query_arguments(argument)
                points[number].append(_point(adapters[number], argument, truth, k, *best[number]))
                bar.advance()
    return points


def _clock(adapter: Adapter, queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Seconds of every single query, and of all in one batch."""
    adapter.query(queries[0], k)  # the first touch of an index reads it into the cache
    seconds = np.empty(len(queries))
    for i, query in enumerate(queries):
        start = time.perf_counter()
        adapter.query(query, k)
        seconds[i] = time.perf_counter() - start
    start = time.perf_counter()
    adapter.batch_query(queries, k)
    return seconds, time.perf_counter() - start


def _point(adapter: Adapter, argument: int, truth: GroundTruth, k: int, single: np.ndarray, batch: float) -> Point:
    p50, p95 = np.percentile(single, (50, 95)) * 1e3
    recall = recall_at_k(adapter.batch_query(truth.queries, k), truth, k)
    count = len(truth.queries)
    return Point(adapter.name, argument, recall, count / single.sum(), p50, p95, count / batch)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both recall and QPS, by rising recall."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (-point.recall, -point.qps)):
        if not front or point.qps > front[-1].qps:
            front.append(point)
    return front[::-1]


def qps_at(points: Sequence[Point], recall: float, batch: bool = False) -> float | None:
    """Queries a second at a recall, or None where no point reaches it.

    Between two points of the Pareto front log(QPS) is taken as linear in recall. Where even the fastest point is
    better than asked for, it is that point's QPS: nothing is extrapolated.
    """
    front = pareto(points)
    reached = [i for i, point in enumerate(front) if point.recall >= recall]
    if not reached:
        return None
    upper = front[reached[0]]
    value = (lambda point: point.batch_qps) if batch else (lambda point: point.qps)
    if reached[0] == 0:
        return value(upper)
    lower = front[reached[0] - 1]
    share = (recall - lower.recall) / (upper.recall - lower.recall)
    return math.exp((1 - share) * math.log(value(lower)) + share * math.log(value(upper)))
