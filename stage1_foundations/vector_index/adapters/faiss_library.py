"""FAISS (Douze et al. 2024), by its index classes."""

from pathlib import Path

import faiss
import numpy as np

from stage1_foundations.vector_index.adapters.adapter import Adapter, Settings

METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


class Faiss(Adapter):
    """faiss-cpu."""

    library = "faiss"
    families = ("flat", "ivf", "pq", "ivf_pq", "ivf_pq_refine", "hnsw")

    def fit(self, vectors: np.ndarray) -> None:
        faiss.omp_set_num_threads(1)
        self.index, self.inner = build(self.family, self.settings)
        self.index.train(vectors)
        self.index.add(vectors)

    def set_query_arguments(self, argument: int) -> None:
        if self.family == "hnsw":
            self.inner.hnsw.efSearch = argument
        elif self.family.startswith("ivf"):
            self.inner.nprobe = argument

    def batch_query(self, queries: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(queries, k)[1]

    def save(self, path: Path) -> None:
        faiss.write_index(self.index, str(path))


def build(family: str, s: Settings) -> tuple[faiss.Index, faiss.Index]:
    """The index to search, and the one inside it that has the query argument (the same but for refine)."""
    metric = METRICS[s.metric]
    coarse = faiss.IndexFlat(s.dimensions, metric)
    if family == "flat":
        index = coarse
    elif family == "ivf":
        index = faiss.IndexIVFFlat(coarse, s.dimensions, s.lists, metric)
    elif family == "pq":
        index = faiss.IndexPQ(s.dimensions, s.parts, s.bits, metric)
    elif family == "hnsw":
        index = faiss.IndexHNSWFlat(s.dimensions, s.neighbours, metric)
        index.hnsw.efConstruction = s.ef_construction
    else:
        index = faiss.IndexIVFPQ(coarse, s.dimensions, s.lists, s.parts, s.bits, metric)
    if family.startswith("ivf"):
        index.cp.seed = s.seed
        coarse.this.disown()  # the index frees its quantiser
        index.own_fields = True
    if family != "ivf_pq_refine":
        return index, index
    refined = faiss.IndexRefineFlat(index)
    refined.k_factor = s.refine
    index.this.disown()
    refined.own_fields = True
    return refined, index
