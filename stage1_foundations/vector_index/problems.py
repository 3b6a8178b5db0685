"""What is searched: real word vectors, real passages, and two synthetic sets.

    glove       GloVe 6B in 50 dimensions (Pennington et al. 2014), some words held out as queries
    passages    the passages of SQuAD as an encoder of the embeddings lab sees them; its questions are the queries
    uniform     points spread evenly over a sphere: no structure at all
    clustered   points on many small, curved sheets: structure such as learnt embeddings have

All are of unit length, so inner product, cosine and L2 rank alike.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from labkit.errors import LabError
from labkit.runs import Run
from stage1_foundations.vector_index.index import normalise

PROBLEMS = ("glove", "passages", "uniform", "clustered")


@dataclass(frozen=True)
class Problem:
    """Vectors (N, D) and held-out queries (Q, D), float32, of unit length; `metric` for an index."""

    name: str
    vectors: np.ndarray
    queries: np.ndarray
    metric: str = "inner_product"

    @property
    def dimensions(self) -> int:
        """D."""
        return self.vectors.shape[1]

    def note(self, run: Run) -> None:
        """Record in the run's report what was searched: vectors and queries, by their SHA-256."""
        digest = hashlib.sha256(self.vectors)
        digest.update(self.queries)
        run.data(self.name, digest.hexdigest(), self.vectors.nbytes + self.queries.nbytes)


def load_problem(
    name: str, vectors: int = 50_000, queries: int = 500, seed: int = 1, encoder: str = "minilm"
) -> Problem:
    """One of PROBLEMS.

    Args:
        vectors: at most so many; 0 for all there are.
        queries: held out of them (passages: of the questions).
        encoder: of the embeddings lab, for `passages`.
    """
    if queries < 1 or vectors < 0:
        raise LabError(f"{vectors} vectors and {queries} queries", "at least one query; 0 vectors means all")
    draw = np.random.default_rng(seed)
    if name == "glove":
        import data

        found = normalise(data.load_vectors("glove-50d")[1])
        return held_out("GloVe 50d", found[draw.permutation(len(found))], vectors, queries)
    if name == "passages":
        return passages(vectors, queries, seed, encoder)
    if name in ("uniform", "clustered"):
        make = uniform if name == "uniform" else clustered
        return held_out(name, make((vectors or 50_000) + queries, 64, seed), vectors, queries)
    raise LabError(f"no problem is called {name}", f"one of: {', '.join(PROBLEMS)}")


def held_out(name: str, rows: np.ndarray, vectors: int, queries: int) -> Problem:
    """The first rows are the queries, the next ones the vectors."""
    if queries >= len(rows):
        raise LabError(f"{queries} queries out of {len(rows)} vectors of {name}", f"--queries {len(rows) // 2}")
    end = min(len(rows), queries + vectors) if vectors else len(rows)
    return Problem(name, np.ascontiguousarray(rows[queries:end]), np.ascontiguousarray(rows[:queries]))


def passages(vectors: int, queries: int, seed: int, encoder: str) -> Problem:
    """SQuAD's passages and questions, encoded (and kept in the embedding cache, shared with the other labs)."""
    import data
    from stage1_foundations.embeddings.encoders import load_encoder

    model = load_encoder(encoder)
    questions = data.load_retrieval("squad").sample(queries=queries, passages=vectors or None, seed=seed)
    found = model.encode(list(questions.corpus.values()), "passage")
    asked = model.encode(list(questions.queries.values()), "query")
    return Problem(f"SQuAD, {model.name}", found, asked)


def uniform(count: int, dimensions: int, seed: int = 1) -> np.ndarray:
    """Unit vectors in all directions alike, float32 (count, dimensions)."""
    return normalise(np.random.default_rng(seed).standard_normal((count, dimensions)))


def clustered(count: int, dimensions: int, seed: int = 1, clusters: int = 100, degrees: int = 6) -> np.ndarray:
    """Unit vectors in clusters, each on a curved sheet of `degrees` dimensions, float32 (count, dimensions).

    A point is sin(W u) around its cluster's centre: u has few numbers, W is a random matrix of the cluster.
    """
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((clusters, dimensions)).astype(np.float32)
    maps = draw.standard_normal((clusters, degrees, dimensions)).astype(np.float32) / np.sqrt(degrees)
    member = draw.integers(clusters, size=count)
    inner = draw.standard_normal((count, degrees)).astype(np.float32)  # u
    sheet = np.empty((count, dimensions), np.float32)
    for number in range(clusters):
        rows = member == number
        sheet[rows] = centres[number] + np.sin(inner[rows] @ maps[number])
    return normalise(sheet)
