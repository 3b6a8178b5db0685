"""IVF-PQ: lists of codes, and optionally a second look at the originals.

The list already says roughly where a vector is, so the code describes only the rest: the residual x - c, which is
shorter and quantises better. With c the list's centroid and r the decoded residual,

    inner product   q.x   ~ q.c + q.r                the table of q.r serves all lists
    L2              |q - x|^2 ~ |(q - c) - r|^2      one table for every probed list

`refine`: fetch `refine * k` candidates by codes, compute their true distances, keep the best k. That takes the
original vectors beside the codes (more memory, though they may lie on a slow disk), and removes PQ's ceiling.

Source: Jegou, Douze, Schmid 2011, section IV; refining: Jegou et al. 2011, "Searching in one billion vectors: re-rank
with source coding" (there with a second code).
"""

from typing import Any, Self

import numpy as np

from labkit.errors import LabError
from stage1_foundations.vector_index.index import VectorIndex, demand
from stage1_foundations.vector_index.inverted_file import InvertedLists, nearest_lists, restored_lists
from stage1_foundations.vector_index.kernels import aligned_rows, distance, jit
from stage1_foundations.vector_index.kmeans import assign, kmeans
from stage1_foundations.vector_index.product_quantizer import Codebooks, code_distance, restored_codes
from stage1_foundations.vector_index.top_k import push


class IVFPQIndex(VectorIndex):
    """Inverted file over product-quantised residuals.

    Args:
        dimensions: length of every vector, a multiple of `parts`.
        metric: "inner_product" or "l2".
        lists, nprobe: as in IVFIndex.
        parts, bits: of the codes, as in ProductQuantizer.
        refine: candidates per result that are compared again with their original vectors; 0 keeps no originals.
            Can be changed later where it was at least 1 when the vectors were added.
        seed: of k-means.
    """

    kind = "ivf_pq"

    def __init__(
        self, dimensions: int, metric: str = "inner_product", lists: int = 256, parts: int = 8, bits: int = 8,
        nprobe: int = 1, refine: int = 0, seed: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(dimensions, metric)
        if lists < 1 or nprobe < 1 or refine < 0:
            raise LabError(f"{lists} lists, nprobe {nprobe}, refine {refine}", "lists=256, nprobe=8, refine=4")
        self.lists, self.nprobe, self.refine, self.seed = int(lists), int(nprobe), int(refine), seed
        self.keeps_vectors = refine > 0
        self.codebooks = Codebooks(dimensions, parts, bits)
        self.centroids: np.ndarray | None = None  # (lists, W)
        self.inverted = InvertedLists(self.lists)
        self.codes = np.zeros((0, parts), np.uint8)  # grouped by list
        self.vectors = aligned_rows(np.zeros((0, dimensions), np.float32))  # by id; empty without refine

    def __len__(self) -> int:
        return len(self.inverted.ids)

    def train(self, vectors: np.ndarray) -> None:
        """Find the lists' centroids, then the codebooks of the residuals."""
        vectors = self.checked(vectors, "training vectors")
        what = f"IVF with {self.lists} lists"
        self.set_centroids(kmeans(vectors, self.lists, metric=self.metric, seed=self.seed, what=what))
        labels = assign(vectors, self._coarse(), self.metric)
        self.codebooks.train(vectors - self._coarse()[labels], self.seed)

    def set_centroids(self, centroids: np.ndarray) -> None:
        """Use these centroids (lists, D) instead of training; the codebooks have a `set_centroids` of their own."""
        centroids = self.checked(centroids, "centroids")
        if len(centroids) != self.lists or len(self):
            raise LabError(f"{len(centroids)} centroids for {self.lists} lists of {len(self)}", "a new index of them")
        self.centroids = aligned_rows(centroids)

    def add(self, vectors: np.ndarray) -> None:
        vectors = self.checked(vectors, "vectors")
        labels = assign(vectors, self._coarse(), self.metric)
        by_id = np.empty_like(self.codes)
        by_id[self.inverted.ids] = self.codes
        by_id = np.concatenate([by_id, self.codebooks.encode(vectors - self._coarse()[labels])])
        self.inverted.extend(labels)
        self.codes = by_id[self.inverted.ids]
        if self.keeps_vectors:
            self.vectors = aligned_rows(np.concatenate([self.vectors[:, : self.dimensions], vectors]))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        queries = self.checked_queries(queries, k)
        if self.refine and not self.keeps_vectors:
            raise LabError("the index does not keep the originals that refine needs", "refine=1 or more from the start")
        centroids, codebooks = self._trained(), self.codebooks.trained()
        wanted = min(max(self.refine, 1) * k, len(self))
        padded = aligned_rows(queries)
        tables = self.codebooks.tables(queries, self.squared)
        distances, ids = search_coded_lists(
            padded, tables, centroids, codebooks, self.codes, self.inverted.starts, self.inverted.ids, self.squared,
            wanted, min(self.nprobe, self.lists),
        )  # fmt: skip
        if self.refine:
            distances, ids = refined(padded, self.vectors, ids, self.squared, k)
        return self.scores(distances), ids

    def bytes_per_vector(self) -> float:
        """One byte for each part, 8 for the id, and 4 D where the originals are kept."""
        return self.codebooks.parts + 8 + (4 * self.dimensions if self.keeps_vectors else 0)

    def _trained(self) -> np.ndarray:
        if self.centroids is None:
            raise LabError("the IVF-PQ index has no centroids", "train(vectors) before add and search")
        return self.centroids

    def _coarse(self) -> np.ndarray:
        return self._trained()[:, : self.dimensions]

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        settings = {
            "lists": self.lists, "parts": self.codebooks.parts, "bits": self.codebooks.bits, "nprobe": self.nprobe,
            "refine": self.refine, "seed": self.seed, "keeps_vectors": self.keeps_vectors,
        }  # fmt: skip
        arrays = {"codes": self.codes, "ids": self.inverted.ids, "starts": self.inverted.starts}
        arrays["vectors"] = self.vectors[:, : self.dimensions]
        if self.centroids is not None and self.codebooks.centroids is not None:
            arrays |= {"centroids": self._coarse(), "codebooks": self.codebooks.centroids}
        return settings, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        keeps_vectors = settings.pop("keeps_vectors")
        index = cls(**settings)
        index.keeps_vectors = keeps_vectors
        if "centroids" in arrays:
            index.set_centroids(arrays["centroids"])
            index.codebooks.set_centroids(arrays["codebooks"])
        index.inverted = restored_lists(index.lists, arrays)
        index.codes = restored_codes(index.codebooks, arrays["codes"])
        vectors = arrays["vectors"]
        demand(len(index.codes) == len(index) and (index.centroids is not None or not len(index)), "codes")
        demand(vectors.shape == (len(index) if keeps_vectors else 0, index.dimensions), "vectors")
        demand(vectors.dtype == np.float32 and np.isfinite(vectors).all(), "vectors")
        index.vectors = aligned_rows(vectors)
        return index


@jit
def residual_table(query, centroid, codebooks, table):
    """Squared L2 between the pieces of `query - centroid` and every codebook entry, into `table` (parts, 2^bits)."""
    size = codebooks.shape[2]
    for part in range(codebooks.shape[0]):
        for number in range(codebooks.shape[1]):
            total = np.float32(0)
            for j in range(size):
                column = part * size + j
                difference = query[column] - centroid[column] - codebooks[part, number, j]
                total += difference * difference
            table[part, number] = total


@jit
def search_coded_lists(queries, tables, centroids, codebooks, codes, starts, ids, squared, k, nprobe):
    """Scan the codes of the nprobe nearest lists of every query: approximate distances (Q, k) and ids (Q, k)."""
    best = np.full((queries.shape[0], k), np.inf, np.float32)
    found = np.full((queries.shape[0], k), -1, np.int64)
    list_distances, probes = np.empty(nprobe, np.float32), np.empty(nprobe, np.int64)
    table = np.empty(tables.shape[1:], np.float32)
    for i in range(queries.shape[0]):
        nearest, names = best[i], found[i]
        nearest_lists(queries[i], centroids, squared, list_distances, probes)
        if not squared:
            table[:] = tables[i]
        for place in range(nprobe):
            number, offset = probes[place], list_distances[place]
            if squared:
                residual_table(queries[i], centroids[number], codebooks, table)
                offset = np.float32(0)
            for row in range(starts[number], starts[number + 1]):
                near = offset + code_distance(table, codes, row)
                if near < nearest[k - 1]:
                    push(nearest, names, near, ids[row])
    return best, found


@jit
def refined(queries, vectors, candidates, squared, k):
    """The k best of the candidates (Q, C) by their true distances: distances (Q, k) and ids (Q, k)."""
    best = np.full((queries.shape[0], k), np.inf, np.float32)
    found = np.full((queries.shape[0], k), -1, np.int64)
    for i in range(queries.shape[0]):
        query, nearest, names = queries[i], best[i], found[i]
        for candidate in candidates[i]:
            if candidate >= 0:
                near = distance(vectors, candidate, query, squared)
                if near < nearest[k - 1]:
                    push(nearest, names, near, candidate)
    return best, found
