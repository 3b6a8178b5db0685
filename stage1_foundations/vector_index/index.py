"""What all indexes have in common: the interface, the checks on what comes in, and the file.

    index = IVFIndex(dimensions=384, lists=64)
    index.train(vectors); index.add(vectors)
    scores, ids = index.search(queries, k=10)
    index.save("passages.index"); index = load_index("passages.index")

Ids are the positions in the order of adding. Scores are what the metric says: inner products (larger is nearer) or
squared L2 distances (smaller is nearer), as in FAISS; nearest first; id -1 where an index found fewer than k.
"""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self
from zipfile import BadZipFile

import numpy as np

from labkit.errors import LabError
from labkit.files import atomic_path

METRICS = ("inner_product", "l2")
FORMAT, VERSION = "course-lab vector index", 1


class VectorIndex(ABC):
    """A set of vectors that can be searched.

    Args:
        dimensions: length of every vector.
        metric: "inner_product" or "l2". For cosine similarity, `normalise` vectors and queries and use inner products.
    """

    kind: ClassVar[str]  # the name in the file
    kinds: ClassVar[dict[str, type["VectorIndex"]]] = {}

    def __init__(self, dimensions: int, metric: str = "inner_product") -> None:
        if metric not in METRICS:
            raise LabError(f"unknown metric {metric}", f"one of: {', '.join(METRICS)}; for cosine, normalise first")
        if dimensions < 1:
            raise LabError(f"vectors of {dimensions} dimensions", "the number of columns of your vectors")
        self.dimensions, self.metric = int(dimensions), metric
        self.metadata: dict[str, str] = {}  # kept in the file; for example {"model": "minilm"}

    def __init_subclass__(cls) -> None:
        VectorIndex.kinds[cls.kind] = cls

    @abstractmethod
    def __len__(self) -> int:
        """Vectors in the index."""

    def train(self, vectors: np.ndarray) -> None:
        """Learn centroids or codebooks from (N, D) vectors. Flat and HNSW have nothing to learn."""
        self.checked(vectors, "training vectors")

    @abstractmethod
    def add(self, vectors: np.ndarray) -> None:
        """Append (N, D) vectors; their ids go on from `len(self)`."""

    @abstractmethod
    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest vectors of every query, nearest first.

        Args:
            queries: (Q, D) or (D,), finite.
            k: 1 to len(self).

        Returns:
            scores float32 (Q, k) and ids int64 (Q, k).

        Raises:
            LabError: wrong shape, NaN, empty set, k larger than the index, not trained.
        """

    @abstractmethod
    def bytes_per_vector(self) -> float:
        """Memory by the formula: what one more vector costs, without what is learnt once (centroids, codebooks)."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Everything a file must hold: settings (arguments and search parameters) and arrays."""

    @classmethod
    @abstractmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """The inverse of `state`. Raises ValueError or KeyError where they do not fit together."""

    @property
    def squared(self) -> bool:
        """Whether distances are squared L2."""
        return self.metric == "l2"

    def save(self, path: str | Path) -> Path:
        """Write the index to one file, atomically."""
        settings, arrays = self.state()
        header = {
            "format": FORMAT, "version": VERSION, "kind": self.kind, "metadata": self.metadata,
            "settings": {"dimensions": self.dimensions, "metric": self.metric, **settings},
        }  # fmt: skip
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, **expected: Any) -> Self:
        """Read an index of this class; see `load_index`."""
        index = load_index(path, **expected)
        if not isinstance(index, cls):
            raise LabError(f"{path} holds a {index.kind} index, not {cls.kind}", "load_index, which takes any kind")
        return index

    def checked(self, vectors: np.ndarray, what: str) -> np.ndarray:
        """The vectors as float32 (N, D), or an error that says what is wrong with them."""
        return check_vectors(vectors, self.dimensions, what)

    def checked_queries(self, queries: np.ndarray, k: int) -> np.ndarray:
        """The queries as float32 (Q, D), after checking that k of the index's vectors can be found."""
        queries = np.asarray(queries)
        queries = self.checked(queries[None] if queries.ndim == 1 else queries, "queries")
        if not len(self):
            raise LabError("the index is empty", "add(vectors) before search")
        if not 1 <= k <= len(self):
            raise LabError(f"k is {k}, but the index holds {len(self)} vectors", f"k from 1 to {len(self)}")
        return queries

    def scores(self, distances: np.ndarray) -> np.ndarray:
        """Kernel distances (smaller is nearer) as scores of the metric."""
        return distances if self.squared else -distances


def check_vectors(vectors: np.ndarray, dimensions: int, what: str = "vectors") -> np.ndarray:
    """The vectors as float32 (N, D), contiguous.

    Raises:
        LabError: not a matrix of numbers, another dimension, no rows, NaN or infinity.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        shape = f"shape {vectors.shape}, {vectors.dtype}"
        raise LabError(f"the {what} are no matrix of numbers ({shape})", "a float32 array of shape (N, D)")
    if vectors.shape[1] != dimensions:
        raise LabError(
            f"the {what} have {vectors.shape[1]} dimensions, the index {dimensions}",
            "the model that the index was built with, or build it again",
        )
    if not len(vectors):
        raise LabError(f"there are no {what}", "at least one row")
    vectors = np.ascontiguousarray(vectors, np.float32)
    if not np.isfinite(vectors).all():
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        advice = "drop those rows; models in float16 overflow, encode in float32"
        raise LabError(f"{len(bad)} of {len(vectors)} {what} hold NaN or infinity (first: row {bad[0]})", advice)
    return vectors


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Vectors of unit length, float32, so that their inner product is the cosine.

    Raises:
        LabError: a zero vector, which has no direction.
    """
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (lengths > 0).all():
        raise LabError(f"{int((lengths <= 0).sum())} vectors are zero and have no direction", "drop those rows")
    return vectors / lengths


def load_index(path: str | Path, dimensions: int | None = None, **metadata: str) -> VectorIndex:
    """Read any index that `save` wrote.

    Args:
        path: the file.
        dimensions: refuse an index of other dimensions.
        metadata: refuse an index whose metadata differ, for example `model="minilm"`.

    Raises:
        LabError: no such file, a foreign or damaged one, or an index of another model.
    """
    advice = "build the index again and save it"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        if header.get("format") != FORMAT:
            raise LabError(f"{path} is not an index of this lab", advice)
        if header["version"] != VERSION:
            raise LabError(f"{path} has version {header['version']} of the format, this is {VERSION}", advice)
        index = VectorIndex.kinds[header["kind"]].from_state(header["settings"], arrays)
        index.metadata = header["metadata"]
    except FileNotFoundError:
        raise LabError(f"there is no index at {path}", "index.save(path), or another path") from None
    except IsADirectoryError:
        raise LabError(f"{path} is a folder, not an index file", "the path given to index.save") from None
    except PermissionError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, OSError, BadZipFile) as error:
        raise LabError(f"{path} is damaged or not an index of this lab ({type(error).__name__})", advice) from None
    if dimensions is not None and index.dimensions != dimensions:
        message = f"{path} holds vectors of {index.dimensions} dimensions, not {dimensions}"
        raise LabError(message, "the model that the index was built with, or build it again")
    for name, value in metadata.items():
        if index.metadata.get(name) != value:
            message = f"{path} was built with {name} {index.metadata.get(name, 'unknown')}, not {value}"
            raise LabError(message, f"that {name}, or build the index again")
    return index


def demand(condition: bool, reason: str) -> None:
    """For `from_state`: refuse arrays that do not fit together, before a compiled loop runs over their ends."""
    if not condition:
        raise ValueError(reason)
