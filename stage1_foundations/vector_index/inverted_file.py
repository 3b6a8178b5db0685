"""IVF: cut the space into cells, look only into the cells next to the query.

k-means gives `lists` centroids; every vector goes into the list of its nearest one. A search compares the query with
all centroids, then with the vectors of the `nprobe` nearest lists. A neighbour that lies just across the border of a
cell that is not probed is lost: nprobe buys recall with time. It is 1 at the start here as in FAISS, which is a trap:
recall is poor until you set it.

The vectors of a list lie one after the other in memory, so that a scan reads in a straight line.

Source: Sivic and Zisserman 2003, "Video Google"; Jegou et al. 2011, section IV.
"""

from typing import Any, Self

import numpy as np

from labkit.errors import LabError
from stage1_foundations.vector_index.index import VectorIndex, demand
from stage1_foundations.vector_index.kernels import aligned_rows, jit
from stage1_foundations.vector_index.kmeans import assign, kmeans
from stage1_foundations.vector_index.top_k import push_rows


class InvertedLists:
    """Which entry belongs to which list: `ids[starts[c]:starts[c + 1]]` are the members of list c."""

    def __init__(self, lists: int) -> None:
        self.labels = np.zeros(0, np.int64)  # list of every id
        self.starts = np.zeros(lists + 1, np.int64)
        self.ids = np.zeros(0, np.int64)

    # exercise: vector_index.group_by_list
    def extend(self, labels: np.ndarray) -> None:
        """Add entries whose lists are `labels` (N,), and group all again; within a list by id."""
        self.labels = np.concatenate([self.labels, labels])
        self.ids = np.argsort(self.labels, kind="stable")
        counts = np.bincount(self.labels, minlength=len(self.starts) - 1)
        self.starts = np.concatenate([[0], np.cumsum(counts)])
    # end exercise


class IVFIndex(VectorIndex):
    """Inverted file over whole vectors.

    Args:
        dimensions: length of every vector.
        metric: "inner_product" or "l2".
        lists: cells; about 4 sqrt(N) to 16 sqrt(N), at most N / 39.
        nprobe: lists that a search looks into. Saved with the index.
        seed: of k-means.

    Attributes:
        distances_computed: by all searches so far, centroids included.
    """

    kind = "ivf"

    def __init__(
        self, dimensions: int, metric: str = "inner_product", lists: int = 256, nprobe: int = 1, seed: int = 1
    ) -> None:
        super().__init__(dimensions, metric)
        if lists < 1 or nprobe < 1:
            raise LabError(f"{lists} lists, nprobe {nprobe}", "at least 1 of each")
        self.lists, self.nprobe, self.seed = int(lists), int(nprobe), seed
        self.distances_computed = 0
        self.centroids: np.ndarray | None = None  # (lists, W)
        self.inverted = InvertedLists(self.lists)
        self.vectors = aligned_rows(np.zeros((0, dimensions), np.float32))  # (N, W), grouped by list

    def __len__(self) -> int:
        return len(self.inverted.ids)

    def train(self, vectors: np.ndarray) -> None:
        """Find the centroids by k-means: spherical for inner products, as FAISS does."""
        vectors = self.checked(vectors, "training vectors")
        what = f"IVF with {self.lists} lists"
        self.set_centroids(kmeans(vectors, self.lists, metric=self.metric, seed=self.seed, what=what))

    def set_centroids(self, centroids: np.ndarray) -> None:
        """Use these centroids (lists, D), for example those of another library, instead of training."""
        centroids = self.checked(centroids, "centroids")
        if len(centroids) != self.lists or len(self):
            raise LabError(f"{len(centroids)} centroids for {self.lists} lists of {len(self)}", "a new index of them")
        self.centroids = aligned_rows(centroids)

    def add(self, vectors: np.ndarray) -> None:
        vectors = self.checked(vectors, "vectors")
        by_id = np.empty((len(self), self.dimensions), np.float32)
        by_id[self.inverted.ids] = self.vectors[:, : self.dimensions]
        self.inverted.extend(assign(vectors, self._trained()[:, : self.dimensions], self.metric))
        self.vectors = aligned_rows(np.concatenate([by_id, vectors])[self.inverted.ids])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        queries = self.checked_queries(queries, k)
        distances, ids, computed = search_lists(
            aligned_rows(queries), self._trained(), self.vectors, self.inverted.starts, self.inverted.ids,
            self.squared, k, min(self.nprobe, self.lists),
        )  # fmt: skip
        self.distances_computed += computed
        return self.scores(distances), ids

    def bytes_per_vector(self) -> float:
        """4 D for the vector and 8 for its id."""
        return 4 * self.dimensions + 8

    def _trained(self) -> np.ndarray:
        if self.centroids is None:
            raise LabError("the IVF index has no centroids", "train(vectors) before add and search")
        return self.centroids

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        settings = {"lists": self.lists, "nprobe": self.nprobe, "seed": self.seed}
        arrays = {"ids": self.inverted.ids, "starts": self.inverted.starts}
        arrays["vectors"] = self.vectors[:, : self.dimensions]
        if self.centroids is not None:
            arrays["centroids"] = self.centroids[:, : self.dimensions]
        return settings, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        index = cls(**settings)
        if "centroids" in arrays:
            index.set_centroids(arrays["centroids"])
        index.inverted = restored_lists(index.lists, arrays)
        vectors = arrays["vectors"]
        demand(vectors.shape == (len(index), index.dimensions) and vectors.dtype == np.float32, "vectors")
        demand(np.isfinite(vectors).all() and (index.centroids is not None or not len(index)), "vectors")
        index.vectors = aligned_rows(vectors)
        return index


def restored_lists(lists: int, arrays: dict[str, np.ndarray]) -> InvertedLists:
    """The lists of a file, checked. Raises ValueError."""
    ids, starts = arrays["ids"], arrays["starts"]
    demand(starts.shape == (lists + 1,) and starts[0] == 0 and starts[-1] == len(ids), "starts")
    demand((np.diff(starts) >= 0).all() and (np.sort(ids) == np.arange(len(ids))).all(), "ids")
    inverted = InvertedLists(lists)
    inverted.ids, inverted.starts = ids.astype(np.int64), starts.astype(np.int64)
    inverted.labels = np.empty(len(ids), np.int64)
    inverted.labels[ids] = np.repeat(np.arange(lists), np.diff(starts))
    return inverted


@jit
def nearest_lists(query, centroids, squared, distances, probes):
    """Fill `distances` and `probes` (nprobe,) with those of the nearest centroids, nearest first."""
    distances[:], probes[:] = np.inf, -1
    push_rows(centroids, 0, centroids.shape[0], query, squared, distances, probes)


@jit
def search_lists(queries, centroids, vectors, starts, ids, squared, k, nprobe):
    """Scan the nprobe nearest lists of every query.

    Returns:
        distances (Q, k), ids (Q, k), and how many distances were computed.
    """
    best = np.full((queries.shape[0], k), np.inf, np.float32)
    found = np.full((queries.shape[0], k), -1, np.int64)
    list_distances, probes = np.empty(nprobe, np.float32), np.empty(nprobe, np.int64)
    computed = queries.shape[0] * centroids.shape[0]
    for i in range(queries.shape[0]):
        query, nearest, rows = queries[i], best[i], found[i]  # views are not free: outside the inner loop
        nearest_lists(query, centroids, squared, list_distances, probes)
        for number in probes:
            computed += starts[number + 1] - starts[number]
            push_rows(vectors, starts[number], starts[number + 1], query, squared, nearest, rows)
        for j in range(k):
            if rows[j] >= 0:
                rows[j] = ids[rows[j]]
    return best, found, computed
