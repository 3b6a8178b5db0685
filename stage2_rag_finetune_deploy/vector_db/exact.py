"""Exact neighbours and recall: what every approximate answer is judged by."""

from collections.abc import Sequence

import numpy as np

BLOCK = 256  # queries a product, to keep the scores of 100,000 vectors below 100 MB


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; a row of zeros stays."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


# exercise: vector_db.exact_neighbours
def exact_neighbours(queries: np.ndarray, vectors: np.ndarray, k: int = 10) -> np.ndarray:
    """Row numbers of the k vectors of largest cosine for each query, best first: (Q, k) int64.

    Args:
        queries: (Q, D). vectors: (N, D), N >= k. Neither needs to be of unit length.
    """
    vectors = unit_rows(vectors)
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), BLOCK):
        scores = unit_rows(queries[start : start + BLOCK]) @ vectors.T  # (B, N)
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k] if k < len(vectors) else np.argsort(-scores, axis=1)
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found[start : start + BLOCK] = np.take_along_axis(best, order, axis=1)
    return found
# end exercise


def recall_at_k(answers: Sequence[Sequence], truth: Sequence[Sequence], k: int = 10) -> float:
    """Share of the k true neighbours that are among the first k answers, averaged over the queries."""
    hits = [len(set(answer[:k]) & set(true[:k])) for answer, true in zip(answers, truth, strict=True)]
    return sum(hits) / (k * len(hits))
