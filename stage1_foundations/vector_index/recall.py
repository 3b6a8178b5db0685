"""Recall, defined once. Four definitions are in use (README.md); all figures of this lab come from this function."""

from dataclasses import dataclass

import numpy as np

from stage1_foundations.vector_index.flat import FlatIndex

DEFINITION = (
    "recall@k = share of the k results that are among the k true nearest neighbours, averaged over the queries; "
    "a result at the same distance as the k-th true neighbour counts (a tie), an id returned twice counts once."
)
TIE = 1e-6  # relative: distances are compared in float64, and float32 vectors carry seven digits


@dataclass(frozen=True)
class GroundTruth:
    """The exact neighbours of some queries, and what is needed to judge other answers.

    Attributes:
        queries: (Q, D). vectors: (N, D). metric: of the index.
        ids: (Q, depth) the true neighbours, nearest first.
    """

    queries: np.ndarray
    vectors: np.ndarray
    metric: str
    ids: np.ndarray


def ground_truth(
    queries: np.ndarray, vectors: np.ndarray, metric: str = "inner_product", depth: int = 10
) -> GroundTruth:
    """Exact neighbours by FlatIndex."""
    flat = FlatIndex(vectors.shape[1], metric)
    flat.add(vectors)
    _, ids = flat.search(queries, min(depth, len(vectors)))
    return GroundTruth(queries, vectors, metric, ids)


# exercise: vector_index.recall_at_k
def recall_at_k(found: np.ndarray, truth: GroundTruth, k: int = 10) -> float:
    """Recall as in `DEFINITION`.

    Args:
        found: ids (Q, at least k) in the order of an index's answer; -1 for "nothing found".
        truth: exact neighbours, at least k deep.
        k: how many results count.

    Returns:
        0 to 1.
    """
    found = found[:, :k]
    threshold = _distances(truth, truth.ids[:, :k]).max(axis=1, keepdims=True)
    hit = _distances(truth, found) <= threshold + TIE * np.abs(threshold) + 1e-12
    repeated = np.zeros(found.shape, bool)
    for column in range(1, found.shape[1]):
        repeated[:, column] = (found[:, :column] == found[:, column : column + 1]).any(axis=1)
    return float((hit & ~repeated & (found >= 0)).sum() / (len(found) * truth.ids[:, :k].shape[1]))
# end exercise


def _distances(truth: GroundTruth, ids: np.ndarray) -> np.ndarray:
    """Distances (smaller is nearer) of the queries to the vectors with these ids, (Q, k) in float64."""
    vectors = truth.vectors[ids].astype(np.float64)  # (Q, k, D); -1 picks the last, which the caller leaves out
    queries = truth.queries.astype(np.float64)[:, None]
    return ((vectors - queries) ** 2).sum(axis=2) if truth.metric == "l2" else -(vectors * queries).sum(axis=2)
