"""HNSW: a graph one can walk from anywhere to anywhere in a few steps.

Every vector is a node on layer 0; one in M of them also stands on layer 1, one in M of those on layer 2, and so on, as
in a skip list. A search walks greedily on the sparse top layers, which takes long steps, and then widely on layer 0,
where it keeps the `ef_search` best nodes in view. Nothing is learnt; the order of insertion builds the graph.

Source: Malkov and Yashunin 2018, algorithms 1 to 5. Read next: hnsw_graph.py, the compiled loops.
"""

import threading
from typing import Any, Self

import numpy as np

from labkit.errors import LabError
from labkit.progress import progress
from stage1_foundations.vector_index.hnsw_graph import insert_nodes, search_graph
from stage1_foundations.vector_index.index import VectorIndex, demand
from stage1_foundations.vector_index.kernels import aligned_rows

INSERT_CHUNK = 2000  # nodes between two movements of the progress bar
MAX_LEVEL = 30


class HNSWIndex(VectorIndex):
    """Hierarchical navigable small world graph.

    Args:
        dimensions: length of every vector.
        metric: "inner_product" or "l2".
        neighbours: M, links of a node on layers 1 and up; layer 0 has twice as many.
        ef_construction: beam while inserting: a better graph for a longer build.
        ef_search: beam while searching, the knob between recall and speed; at least k is used. Saved with the index.
        seed: of the levels.

    Attributes:
        distances_computed: by all searches so far (a cost that does not depend on the machine).
    """

    kind = "hnsw"

    def __init__(
        self, dimensions: int, metric: str = "inner_product", neighbours: int = 16, ef_construction: int = 200,
        ef_search: int = 64, seed: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(dimensions, metric)
        if neighbours < 2 or ef_construction < 1 or ef_search < 1:
            raise LabError("HNSW wants at least 2 neighbours and a beam of 1", "neighbours=16, ef_construction=200")
        self.neighbours, self.ef_construction, self.ef_search = int(neighbours), int(ef_construction), int(ef_search)
        self.seed, self.entry, self.distances_computed = seed, -1, 0
        self.vectors = aligned_rows(np.zeros((0, dimensions), np.float32))  # (N, W)
        self.levels = np.zeros(0, np.int32)  # (N,)
        self.base_links = np.zeros((0, 2 * self.neighbours), np.int32)  # (N, 2M)
        self.upper_links = np.zeros((0, self.neighbours), np.int32)  # (sum of levels, M)
        self._prepare()

    def __len__(self) -> int:
        return len(self.levels)

    def add(self, vectors: np.ndarray) -> None:
        """Insert vectors one by one, in their order."""
        vectors = self.checked(vectors, "vectors")
        first, new = len(self), len(vectors)
        levels = draw_levels(first + new, self.neighbours, self.seed)[first:]
        both = np.concatenate([self.vectors[:, : self.dimensions], vectors])
        self.vectors = aligned_rows(both)
        self.levels = np.concatenate([self.levels, levels])
        self.base_links = _grown(self.base_links, new)
        self.upper_links = _grown(self.upper_links, int(levels.sum()))
        self._prepare()
        with progress(total=new, description="insert into HNSW") as bar:
            for start in range(first, first + new, INSERT_CHUNK):
                end = min(start + INSERT_CHUNK, first + new)
                self.entry, _ = insert_nodes(
                    self.vectors, self.squared, start, end, self.entry, self.levels, self.base_links,
                    self.upper_links, self.upper_rows, self._visited(), self.ef_construction,
                )  # fmt: skip
                bar.advance(end - start)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        queries = self.checked_queries(queries, k)
        distances, ids, computed = search_graph(
            aligned_rows(queries), self.vectors, self.squared, k, self.entry, int(self.levels[self.entry]),
            self.base_links, self.upper_links, self.upper_rows, self._visited(), max(self.ef_search, k),
        )  # fmt: skip
        self.distances_computed += computed
        return self.scores(distances), ids

    def bytes_per_vector(self) -> float:
        """4 D for the vector, 8 M for layer 0, and 4 M on each of 1 / (M - 1) expected upper layers."""
        upper = 1 / (self.neighbours - 1)
        return 4 * self.dimensions + 8 * self.neighbours + 4 * self.neighbours * upper

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        settings = {
            "neighbours": self.neighbours, "ef_construction": self.ef_construction, "ef_search": self.ef_search,
            "seed": self.seed, "entry": int(self.entry),
        }  # fmt: skip
        arrays = {
            "vectors": self.vectors[:, : self.dimensions], "levels": self.levels.astype(np.uint8),
            "base_links": self.base_links, "upper_links": self.upper_links,
        }  # fmt: skip
        return settings, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        entry = settings.pop("entry")
        index = cls(**settings)
        vectors, count = arrays["vectors"], len(arrays["levels"])
        index.levels = arrays["levels"].astype(np.int32)
        demand(vectors.shape == (count, index.dimensions) and vectors.dtype == np.float32, "vectors")
        demand(np.isfinite(vectors).all() and -1 <= entry < count and (entry >= 0) == (count > 0), "entry")
        for name, shape in (("base_links", (count, 2 * index.neighbours)),
                            ("upper_links", (int(index.levels.sum()), index.neighbours))):  # fmt: skip
            links = arrays[name]
            demand(links.shape == shape and links.dtype == np.int32, name)
            demand(not links.size or (links.min() >= -1 and links.max() < count), name)
            setattr(index, name, np.ascontiguousarray(links))
        index.vectors, index.entry = aligned_rows(vectors), entry
        index._prepare()
        return index

    def _prepare(self) -> None:
        """What follows from the rest: where a node's upper rows begin; marks of visited nodes start afresh."""
        self.upper_rows = np.zeros(len(self), np.int32)
        np.cumsum(self.levels[:-1], out=self.upper_rows[1:])
        self._local = threading.local()

    def _visited(self) -> np.ndarray:
        """This thread's marks, uint32 (N + 1,); the last element is the epoch. So threads may search at once."""
        if not hasattr(self._local, "visited"):
            self._local.visited = np.zeros(len(self) + 1, np.uint32)
        return self._local.visited


def draw_levels(count: int, neighbours: int, seed: int) -> np.ndarray:
    """Levels of the first `count` nodes: floor(-ln(u) / ln(M)), so that one node in M reaches the next layer."""
    uniform = 1 - np.random.default_rng(seed).random(count)  # (0, 1]
    return np.minimum(-np.log(uniform) / np.log(neighbours), MAX_LEVEL).astype(np.int32)


def _grown(links: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([links, np.full((rows, links.shape[1]), -1, np.int32)])
