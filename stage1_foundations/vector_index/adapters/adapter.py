"""What every library must be able to do, and the settings that they are compared at."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from labkit.errors import LabError

# family -> what its query argument is called; None where there is nothing to set
FAMILIES = {"flat": None, "ivf": "nprobe", "pq": None, "ivf_pq": "nprobe", "ivf_pq_refine": "nprobe", "hnsw": "ef"}


@dataclass(frozen=True)
class Settings:
    """One set of parameters for all libraries.

    Attributes:
        dimensions, metric: of the vectors ("inner_product" or "l2").
        lists: cells of the IVF family.
        parts: bytes per vector of the PQ family (8 bits each).
        bits: of a PQ code.
        refine: candidates per result that `ivf_pq_refine` compares with the original vectors.
        neighbours, ef_construction: of HNSW.
        seed: where a library takes one.
    """

    dimensions: int
    metric: str = "inner_product"
    lists: int = 256
    parts: int = 10
    bits: int = 8
    refine: int = 10
    neighbours: int = 16
    ef_construction: int = 200
    seed: int = 1


class Adapter(ABC):
    """An index of one library. Everything runs on one thread, so that the algorithms are compared and not the cores."""

    library: ClassVar[str]
    families: ClassVar[tuple[str, ...]]

    def __init__(self, family: str, settings: Settings) -> None:
        if family not in self.families:
            raise LabError(f"{self.library} has no {family} index here", f"one of: {', '.join(self.families)}")
        self.family, self.settings = family, settings

    @property
    def name(self) -> str:
        """For tables and legends: `faiss hnsw`."""
        return f"{self.library} {self.family}"

    @abstractmethod
    def fit(self, vectors: np.ndarray) -> None:
        """Train on and add float32 (N, D) vectors."""

    @abstractmethod
    def set_query_arguments(self, argument: int) -> None:
        """nprobe or ef for the queries that follow; nothing for families without one."""

    @abstractmethod
    def batch_query(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Ids (Q, k) of the nearest vectors of every query (Q, D), nearest first."""

    def query(self, vector: np.ndarray, k: int) -> np.ndarray:
        """Ids (k,) of the nearest vectors of one query (D,)."""
        return self.batch_query(vector[None], k)[0]

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the index to a file, whose size is its measured memory."""


def formula_bytes(family: str, settings: Settings) -> float:
    """Bytes per vector by the textbook, whatever the library: what one more vector costs.

    flat 4 D; IVF adds an id of 8; PQ is parts * bits / 8; refine keeps the 4 D beside the codes; HNSW has 4 D, 2 M
    links of 4 bytes on layer 0, and M links on each of the 1 / (M - 1) further layers a vector has on average.
    """
    whole, code = 4 * settings.dimensions, settings.parts * settings.bits / 8
    links = 8 * settings.neighbours + 4 * settings.neighbours / (settings.neighbours - 1)
    return {
        "flat": whole, "ivf": whole + 8, "pq": code, "ivf_pq": code + 8, "ivf_pq_refine": code + 8 + whole,
        "hnsw": whole + links,
    }[family]  # fmt: skip
