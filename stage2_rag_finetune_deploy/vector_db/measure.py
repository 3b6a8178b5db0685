"""One store at one size: how fast it takes records in, answers, how right it is, and what it keeps on the disk."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db.exact import recall_at_k, unit_rows
from stage2_rag_finetune_deploy.vector_db.filters import Range
from stage2_rag_finetune_deploy.vector_db.store import Collection, CollectionSpec, Record, VectorStore

BATCH = 1000
WARM_UP = 5
SHARE = 0.1  # of the records that the filter lets through


@dataclass(frozen=True)
class Problem:
    """Word vectors, and the exact answers to held-out ones.

    Attributes:
        vectors: (N, D), unit length. queries: (Q, D). truth: (Q, k) row numbers.
        words: of the rows; the text of a record is its word. asked: for hybrid search, each query's nearest word.
    """

    vectors: np.ndarray
    queries: np.ndarray
    truth: np.ndarray
    words: list[str]
    asked: list[str]


def load_problem(rows: int, queries: int, k: int, seed: int = 1) -> Problem:
    """GloVe 6B in 50 dimensions (Pennington et al. 2014): a sample, and other words as queries."""
    import data
    from stage2_rag_finetune_deploy.vector_db.exact import exact_neighbours

    words, vectors = data.load_vectors("glove-50d")
    if not k <= rows <= len(words) - queries or queries < 1:
        raise LabError(f"{rows:,} rows and {queries:,} queries out of {len(words):,} words", "--sizes 2000,20000")
    order = np.random.default_rng(seed).permutation(len(words))
    asked, kept = order[:queries], order[queries : queries + rows]
    found, questions = unit_rows(vectors[kept]), unit_rows(vectors[asked])
    truth, names = exact_neighbours(questions, found, k), [words[i] for i in kept]
    return Problem(found, questions, truth, names, [names[row] for row in truth[:, 0]])


@dataclass
class Measured:
    """The figures of one store at one size; milliseconds a query, one at a time, from one client."""

    store: str
    rows: int
    ingest: float  # records a second, until acknowledged
    persist: float  # seconds, until flushed and indexed
    recall: float
    disk: int  # bytes, with logs written ahead
    p50: dict[str, float] = field(default_factory=dict)  # of "search", "filter", "hybrid"
    p95: dict[str, float] = field(default_factory=dict)


def measure(store: VectorStore, label: str, spec: CollectionSpec, problem: Problem, folder: Path, k: int) -> Measured:
    """Fill a new collection, ask it, drop it.

    Args:
        folder: what the store keeps on the disk lies below it; what was there before is not counted.
    """
    before = folder_bytes(folder)
    collection = store.create(spec)
    records = [
        Record(str(row), vector, word, {"number": row})
        for row, (vector, word) in enumerate(zip(problem.vectors, problem.words, strict=True))
    ]
    started = time.perf_counter()
    for start in range(0, len(records), BATCH):
        collection.upsert(records[start : start + BATCH])
    taken = time.perf_counter() - started
    started = time.perf_counter()
    collection.persist()
    figures = Measured(label, len(records), len(records) / taken, time.perf_counter() - started, 0.0, 0)
    ask_all(collection, problem, k, figures)
    figures.disk = folder_bytes(folder) - before
    store.drop(spec.name)
    return figures


def ask_all(collection: Collection, problem: Problem, k: int, figures: Measured) -> None:
    """Every query three times: alone, with a filter, with its word."""
    where = Range("number", below=int(SHARE * len(problem.vectors)))
    pairs = list(zip(problem.queries, problem.asked, strict=True))
    kinds: dict[str, Callable] = {
        "search": lambda vector, word: collection.search(vector, k),
        "filter": lambda vector, word: collection.search(vector, k, where),
        "hybrid": lambda vector, word: collection.hybrid_search(vector, word, k),
    }
    for kind, question in kinds.items():
        for pair in pairs[: min(WARM_UP, len(pairs) // 4)]:
            question(*pair)
        answers, times = [], []
        for pair in pairs:
            started = time.perf_counter()
            answers.append(question(*pair))
            times.append((time.perf_counter() - started) * 1000)
        figures.p50[kind], figures.p95[kind] = (float(np.percentile(times, share)) for share in (50, 95))
        if kind == "search":
            found = [[int(hit.id) for hit in hits] for hits in answers]
            figures.recall = recall_at_k(found, problem.truth.tolist(), k)


def folder_bytes(folder: Path) -> int:
    """Bytes that the files below a folder take on the disk (blocks, not lengths: logs are reserved ahead)."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:  # a server removes its files while we look
            continue
    return total
