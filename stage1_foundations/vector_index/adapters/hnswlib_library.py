"""hnswlib, the HNSW authors' own. Optional: it has no wheels and wants a C++ compiler."""

from pathlib import Path

import hnswlib
import numpy as np

from stage1_foundations.vector_index.adapters.adapter import Adapter


class Hnswlib(Adapter):
    """Malkov's HNSW in C++. `ef` is not in its file: set it again after loading."""

    library = "hnswlib"
    families = ("hnsw",)

    def fit(self, vectors: np.ndarray) -> None:
        s = self.settings
        self.index = hnswlib.Index({"inner_product": "ip", "l2": "l2"}[s.metric], s.dimensions)
        self.index.init_index(len(vectors), M=s.neighbours, ef_construction=s.ef_construction, random_seed=s.seed)
        self.index.set_num_threads(1)
        self.index.add_items(vectors)

    def set_query_arguments(self, argument: int) -> None:
        self.index.set_ef(argument)

    def batch_query(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self.index.knn_query(queries, k)[0].astype(np.int64)

    def save(self, path: Path) -> None:
        self.index.save_index(str(path))
