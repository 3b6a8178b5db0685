"""usearch, a compact HNSW."""

from pathlib import Path

import numpy as np
from usearch.index import Index

from stage1_foundations.vector_index.adapters.adapter import Adapter


class Usearch(Adapter):
    """usearch with float32 vectors."""

    library = "usearch"
    families = ("hnsw",)

    def fit(self, vectors: np.ndarray) -> None:
        s = self.settings
        self.index = Index(
            ndim=s.dimensions, metric={"inner_product": "ip", "l2": "l2sq"}[s.metric], dtype="f32",
            connectivity=s.neighbours, expansion_add=s.ef_construction,
        )  # fmt: skip
        self.index.add(np.arange(len(vectors)), vectors, threads=1)

    def set_query_arguments(self, argument: int) -> None:
        self.index.expansion_search = argument

    def batch_query(self, queries: np.ndarray, k: int) -> np.ndarray:
        keys = self.index.search(queries, k, threads=1).keys
        return np.asarray(keys).astype(np.int64).reshape(len(queries), -1)

    def save(self, path: Path) -> None:
        self.index.save(str(path))
