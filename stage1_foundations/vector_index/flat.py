"""Flat: compare the query with every vector. Exact, and the yardstick of all others.

A batch of queries against a block of vectors is one matrix product, which BLAS does at the speed of the processor; so
the art is to find the k best of its result without writing that result to main memory. A block of the product
(queries x 1,024 vectors) stays in the cache and is scanned at once against the k-th best so far.

For L2: |q - x|^2 = |q|^2 - 2 q.x + |x|^2, so the same product serves. The subtraction costs digits where the vectors
are long and close together; a single query is therefore computed directly.
"""

from typing import Any, Self

import numpy as np

from stage1_foundations.vector_index.index import VectorIndex, demand
from stage1_foundations.vector_index.kernels import aligned_rows, jit
from stage1_foundations.vector_index.top_k import push_block, push_rows

BLOCK = 1024  # vectors in a block of the product
BATCH = 256  # queries in a block of the product
DIRECT = 4  # up to this many queries are computed one by one, without BLAS


class FlatIndex(VectorIndex):
    """Exact search by comparing with everything."""

    kind = "flat"

    def __init__(self, dimensions: int, metric: str = "inner_product") -> None:
        super().__init__(dimensions, metric)
        self.vectors = aligned_rows(np.zeros((0, dimensions), np.float32))
        self.squared_lengths = np.zeros(0, np.float32)

    def __len__(self) -> int:
        return len(self.vectors)

    def add(self, vectors: np.ndarray) -> None:
        vectors = self.checked(vectors, "vectors")
        self._set(np.concatenate([self.vectors[:, : self.dimensions], vectors]))

    def _set(self, vectors: np.ndarray) -> None:
        self.vectors = aligned_rows(vectors)
        self.squared_lengths = np.einsum("nd,nd->n", self.vectors, self.vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        queries = self.checked_queries(queries, k)
        if len(queries) <= DIRECT:
            distances, ids = search_direct(aligned_rows(queries), self.vectors, self.squared, k)
        else:
            parts = [queries[start : start + BATCH] for start in range(0, len(queries), BATCH)]
            results = [self._search_blocks(part, k) for part in parts]
            distances, ids = (np.concatenate(column) for column in zip(*results, strict=True))
        return self.scores(distances), ids

    def _search_blocks(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        best = np.full((len(queries), k), np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        sign = -2 * queries if self.squared else -queries
        product = np.empty((len(queries), BLOCK), np.float32)
        for first in range(0, len(self), BLOCK):
            vectors = self.vectors[first : first + BLOCK, : self.dimensions]  # (B, D)
            block = product if len(vectors) == BLOCK else np.empty((len(queries), len(vectors)), np.float32)
            np.matmul(sign, vectors.T, out=block)  # (Q, B)
            if self.squared:
                block += self.squared_lengths[first : first + BLOCK]
            push_block(block, first, best, ids)
        if self.squared:
            best = np.maximum(best + np.einsum("qd,qd->q", queries, queries)[:, None], 0)
        return best, ids

    def bytes_per_vector(self) -> float:
        """4 D."""
        return 4 * self.dimensions

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {"vectors": self.vectors[:, : self.dimensions]}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        index, vectors = cls(**settings), arrays["vectors"]
        demand(vectors.ndim == 2 and vectors.shape[1] == index.dimensions and vectors.dtype == np.float32, "vectors")
        demand(np.isfinite(vectors).all(), "vectors")
        index._set(vectors)
        return index


@jit
def search_direct(queries, vectors, squared, k):
    """Exact search, one query at a time: distances (Q, k) and ids (Q, k)."""
    best = np.full((queries.shape[0], k), np.inf, np.float32)
    ids = np.full((queries.shape[0], k), -1, np.int64)
    for i in range(queries.shape[0]):
        push_rows(vectors, 0, vectors.shape[0], queries[i], squared, best[i], ids[i])
    return best, ids
