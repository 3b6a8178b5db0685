"""Product quantisation: a vector in a few bytes.

Cut the vector into `parts` pieces; for each piece learn a codebook of 2^bits centroids; keep only the numbers of the
nearest centroids. 50 floats (200 bytes) become 10 bytes, and 256^10 different vectors can still be told apart.

A search never decodes. The distance to a coded vector is a sum over the parts, and each summand can take only 2^bits
values: compute them once per query (the ADC table: the query is exact, the database is quantised, "asymmetric"), then a
distance is `parts` look-ups and additions.

The price: two vectors with the same code cannot be told apart, so recall has a ceiling that no search parameter lifts.
Refining with the original vectors (ivf_pq.py) does.

Source: Jegou, Douze, Schmid 2011, "Product quantization for nearest neighbor search", sections II and III.
"""

from typing import Any, Self

import numpy as np

from labkit.errors import LabError
from stage1_foundations.vector_index.index import VectorIndex, check_vectors, demand
from stage1_foundations.vector_index.kernels import jit
from stage1_foundations.vector_index.kmeans import assign, check_enough, kmeans
from stage1_foundations.vector_index.top_k import push


class Codebooks:
    """The quantiser itself: vectors to codes and back.

    Args:
        dimensions: length of the vectors, a multiple of `parts`.
        parts: pieces, that is bytes per vector.
        bits: 1 to 8; each codebook has 2^bits centroids.

    Attributes:
        centroids: float32 (parts, 2^bits, D / parts), None before training.
    """

    def __init__(self, dimensions: int, parts: int, bits: int = 8) -> None:
        if parts < 1 or dimensions % parts:
            fitting = [n for n in range(1, dimensions + 1) if dimensions % n == 0]
            nearest = min(fitting, key=lambda n: abs(n - parts))
            raise LabError(f"{dimensions} dimensions cannot be cut into {parts} equal parts", f"parts={nearest}")
        if not 1 <= bits <= 8:
            raise LabError(f"codes of {bits} bits", "bits from 1 to 8: a code is kept in one byte")
        self.dimensions, self.parts, self.bits = dimensions, parts, bits
        self.centroids: np.ndarray | None = None

    def train(self, vectors: np.ndarray, seed: int = 1) -> None:
        """Learn every part's codebook by k-means. 8 bits want 39 * 256 = 9,984 vectors at least (a warning below)."""
        check_enough(len(vectors), 2**self.bits, f"PQ with {self.bits} bits")
        pieces = self._pieces(vectors)
        self.centroids = np.stack([
            _quiet_kmeans(pieces[:, part], 2**self.bits, seed + part) for part in range(self.parts)
        ])  # fmt: skip

    def set_centroids(self, centroids: np.ndarray) -> None:
        """Use these codebooks (parts, 2^bits, D / parts) instead of training."""
        shape = (self.parts, 2**self.bits, self.dimensions // self.parts)
        if np.shape(centroids) != shape:
            raise LabError(f"codebooks of shape {np.shape(centroids)}", f"shape {shape}")
        flat = check_vectors(np.reshape(centroids, (-1, shape[2])), shape[2], "codebooks")
        self.centroids = flat.reshape(shape)

    def trained(self) -> np.ndarray:
        """The codebooks, or an error that says what to do."""
        if self.centroids is None:
            raise LabError("the product quantiser has no codebooks", "train(vectors) before add and search")
        return self.centroids

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """The number of the nearest centroid of every piece.

        Args:
            vectors: float32 (N, D).

        Returns:
            uint8 (N, parts).
        """
        pieces, centroids = self._pieces(vectors), self.trained()
        codes = [assign(pieces[:, part], centroids[part]) for part in range(self.parts)]
        return np.stack(codes, axis=1).astype(np.uint8)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """The vectors that the codes stand for, (N, D)."""
        return self.trained()[np.arange(self.parts), codes].reshape(len(codes), self.dimensions)

    # exercise: vector_index.adc_tables
    def tables(self, queries: np.ndarray, squared: bool) -> np.ndarray:
        """What every centroid of every part contributes to the distance from each query.

        Args:
            queries: float32 (Q, D).
            squared: squared L2 distances; else minus the inner product.

        Returns:
            float32 (Q, parts, 2^bits). The distance to a code is the sum over parts of `table[part, code[part]]`.
        """
        pieces = self._pieces(queries)  # (Q, parts, d)
        centroids = self.trained()
        products = np.einsum("qpd,pcd->qpc", pieces, centroids, optimize=True)
        if not squared:
            return np.ascontiguousarray(-products)
        lengths = np.einsum("qpd,qpd->qp", pieces, pieces)[:, :, None]
        return np.ascontiguousarray(lengths - 2 * products + np.einsum("pcd,pcd->pc", centroids, centroids))
    # end exercise

    def _pieces(self, vectors: np.ndarray) -> np.ndarray:
        return vectors.reshape(len(vectors), self.parts, self.dimensions // self.parts)


class ProductQuantizer(VectorIndex):
    """All vectors as codes, searched one after the other by table look-ups.

    Args:
        dimensions: length of every vector, a multiple of `parts`.
        metric: "inner_product" or "l2".
        parts: bytes per vector.
        bits: 1 to 8 bits for each part.
        seed: of k-means.
    """

    kind = "pq"

    def __init__(
        self, dimensions: int, metric: str = "inner_product", parts: int = 8, bits: int = 8, seed: int = 1
    ) -> None:
        super().__init__(dimensions, metric)
        self.codebooks, self.seed = Codebooks(dimensions, parts, bits), seed
        self.codes = np.zeros((0, parts), np.uint8)

    def __len__(self) -> int:
        return len(self.codes)

    def train(self, vectors: np.ndarray) -> None:
        """Learn the codebooks."""
        self.codebooks.train(self.checked(vectors, "training vectors"), self.seed)

    def add(self, vectors: np.ndarray) -> None:
        codes = self.codebooks.encode(self.checked(vectors, "vectors"))
        self.codes = np.concatenate([self.codes, codes])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        queries = self.checked_queries(queries, k)
        distances, ids = search_codes(self.codebooks.tables(queries, self.squared), self.codes, k)
        return self.scores(distances), ids

    def bytes_per_vector(self) -> float:
        """One byte for each part (also below 8 bits, where packing would save more)."""
        return float(self.codebooks.parts)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays = {"codes": self.codes}
        if self.codebooks.centroids is not None:
            arrays["codebooks"] = self.codebooks.centroids
        return {"parts": self.codebooks.parts, "bits": self.codebooks.bits, "seed": self.seed}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        index = cls(**settings)
        if "codebooks" in arrays:
            index.codebooks.set_centroids(arrays["codebooks"])
        index.codes = restored_codes(index.codebooks, arrays["codes"])
        return index


def restored_codes(codebooks: Codebooks, codes: np.ndarray) -> np.ndarray:
    """The codes of a file, checked. Raises ValueError."""
    demand(codes.ndim == 2 and codes.shape[1] == codebooks.parts and codes.dtype == np.uint8, "codes")
    demand(not codes.size or int(codes.max()) < 2**codebooks.bits, "codes")
    return np.ascontiguousarray(codes)


def _quiet_kmeans(pieces: np.ndarray, centroids: int, seed: int) -> np.ndarray:
    """k-means whose warning was already given for all parts at once."""
    import warnings

    from stage1_foundations.vector_index.kmeans import TooFewPoints

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TooFewPoints)
        return kmeans(np.ascontiguousarray(pieces), centroids, iterations=16, seed=seed, what="PQ codebooks")


@jit
def code_distance(table, codes, row):
    """Sum of the table's entries that a row of codes (N, parts) picks."""
    total = np.float32(0)
    for part in range(codes.shape[1]):
        total += table[part, codes[row, part]]
    return total


@jit
def search_codes(tables, codes, k):
    """Scan all codes for every query: distances (Q, k) and ids (Q, k)."""
    best = np.full((tables.shape[0], k), np.inf, np.float32)
    ids = np.full((tables.shape[0], k), -1, np.int64)
    for i in range(tables.shape[0]):
        table, nearest, names = tables[i], best[i], ids[i]
        for row in range(codes.shape[0]):
            near = code_distance(table, codes, row)
            if near < nearest[k - 1]:
                push(nearest, names, near, row)
    return best, ids
