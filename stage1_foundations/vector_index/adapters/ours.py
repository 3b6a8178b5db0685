"""The indexes of this lab."""

from pathlib import Path

import numpy as np

from stage1_foundations.vector_index.adapters.adapter import Adapter, Settings
from stage1_foundations.vector_index.flat import FlatIndex
from stage1_foundations.vector_index.hnsw import HNSWIndex
from stage1_foundations.vector_index.index import VectorIndex
from stage1_foundations.vector_index.inverted_file import IVFIndex
from stage1_foundations.vector_index.ivf_pq import IVFPQIndex
from stage1_foundations.vector_index.product_quantizer import ProductQuantizer


class Ours(Adapter):
    """Hand-written, NumPy and Numba."""

    library = "ours"
    families = ("flat", "ivf", "pq", "ivf_pq", "ivf_pq_refine", "hnsw")

    def fit(self, vectors: np.ndarray) -> None:
        self.index = build(self.family, self.settings)
        self.index.train(vectors)
        self.index.add(vectors)

    def set_query_arguments(self, argument: int) -> None:
        if self.family == "hnsw":
            self.index.ef_search = argument
        elif self.family.startswith("ivf"):
            self.index.nprobe = argument

    def batch_query(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(queries, k)[1]

    def save(self, path: Path) -> None:
        self.index.save(path)


def build(family: str, settings: Settings) -> VectorIndex:
    """An empty index of a family."""
    first, seed = (settings.dimensions, settings.metric), settings.seed
    codes = {"parts": settings.parts, "bits": settings.bits}
    if family == "flat":
        return FlatIndex(*first)
    if family == "ivf":
        return IVFIndex(*first, lists=settings.lists, seed=seed)
    if family == "pq":
        return ProductQuantizer(*first, **codes, seed=seed)
    if family == "hnsw":
        return HNSWIndex(*first, neighbours=settings.neighbours, ef_construction=settings.ef_construction, seed=seed)
    refine = settings.refine if family == "ivf_pq_refine" else 0
    return IVFPQIndex(*first, lists=settings.lists, **codes, refine=refine, seed=seed)
