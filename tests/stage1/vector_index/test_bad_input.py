"""Each test names the bug that it catches. Every message is one line that says what to do."""

import numpy as np
import pytest

from labkit.errors import LabError
from stage1_foundations.vector_index import FlatIndex, HNSWIndex, IVFIndex, IVFPQIndex, ProductQuantizer, normalise

KINDS = {
    "flat": lambda: FlatIndex(24),
    "ivf": lambda: IVFIndex(24, lists=8),
    "pq": lambda: ProductQuantizer(24, parts=6, bits=3),
    "ivf_pq": lambda: IVFPQIndex(24, lists=8, parts=6, bits=3),
    "hnsw": lambda: HNSWIndex(24, ef_construction=20),
}


@pytest.fixture(params=list(KINDS))
def index(request, vectors):
    """One of each kind with 500 vectors."""
    made = KINDS[request.param]()
    made.train(vectors)
    made.add(vectors[:500])
    return made


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_vectors(index, vectors, queries, bad):
    """Catches: NaN that enters the index and makes every later answer wrong."""
    broken = vectors[:20].copy()
    broken[[3, 7], 5] = bad
    for call in (index.add, index.train, lambda rows: index.search(rows, 3)):
        with pytest.raises(LabError, match=r"2 of 20 .* hold NaN or infinity \(first: row 3\)"):
            call(broken)
    assert len(index) == 500 and (index.search(queries, 3)[1] < 500).all()


@pytest.mark.parametrize("k", [0, -1, 501])
def test_k_outside_the_index(index, queries, k):
    """Catches: rows of -1 that look like results; an endless or empty list."""
    with pytest.raises(LabError, match=f"k is {k}, but the index holds 500 vectors") as error:
        index.search(queries, k)
    assert error.value.try_next == "k from 1 to 500"


def test_wrong_dimension(index, vectors):
    """Catches: an index of one model searched with the vectors of another."""
    for call in (index.add, index.train, lambda rows: index.search(rows, 3)):
        with pytest.raises(LabError, match="have 23 dimensions, the index 24"):
            call(vectors[:, :23])


@pytest.mark.parametrize("kind", list(KINDS))
def test_empty_set(kind, vectors):
    """Catches: a search in nothing; an empty array added without a word."""
    index = KINDS[kind]()
    with pytest.raises(LabError, match="there are no vectors"):
        index.train(vectors)
        index.add(vectors[:0])
    with pytest.raises(LabError, match="the index is empty"):
        index.search(vectors[:1], 1)


@pytest.mark.parametrize("kind", ["ivf", "pq", "ivf_pq"])
def test_not_trained(kind, vectors):
    """Catches: an error about NoneType."""
    with pytest.raises(LabError, match="no (centroids|codebooks)") as error:
        KINDS[kind]().add(vectors)
    assert "train(vectors)" in error.value.try_next


@pytest.mark.parametrize("wrong", [
    np.zeros((2, 2, 24)), np.array([["a"] * 24]), np.zeros((3, 24), complex), np.zeros((3, 24), bool), np.zeros(()),
])  # fmt: skip
def test_no_matrix_of_numbers(index, wrong):
    """Catches: a traceback from inside NumPy."""
    with pytest.raises(LabError, match="no matrix of numbers"):
        index.add(wrong)


def test_other_number_types_are_converted(index, vectors, queries):
    """Catches: float64 or whole numbers that Numba would compile everything anew for, or refuse."""
    expected = index.search(queries, 5)[1]
    np.testing.assert_array_equal(index.search(queries.astype(np.float64), 5)[1], expected)
    np.testing.assert_array_equal(index.search(np.asfortranarray(queries), 5)[1], expected)
    index.add(np.arange(48).reshape(2, 24))
    assert len(index) == 502


@pytest.mark.parametrize("make", [
    lambda: FlatIndex(24, "cosine"), lambda: FlatIndex(0), lambda: IVFIndex(24, lists=0),
    lambda: IVFIndex(24, nprobe=0), lambda: IVFPQIndex(24, refine=-1),
    lambda: HNSWIndex(24, neighbours=1), lambda: HNSWIndex(24, ef_search=0),
])  # fmt: skip
def test_impossible_settings(make):
    """Catches: a setting that fails only in the middle of a build, or never."""
    with pytest.raises(LabError) as error:
        make()
    assert error.value.try_next and "\n" not in error.value.message


def test_centroids_of_another_number(vectors):
    """Catches: lists that point beyond the centroids; centroids exchanged under a full index."""
    index = IVFIndex(24, lists=8)
    with pytest.raises(LabError, match="9 centroids for 8 lists"):
        index.set_centroids(vectors[:9])
    index.set_centroids(vectors[:8])
    index.add(vectors)
    with pytest.raises(LabError, match="8 centroids for 8 lists of 4000"):
        index.set_centroids(vectors[:8])


def test_a_zero_vector_has_no_direction():
    """Catches: NaN from a division by zero."""
    with pytest.raises(LabError, match="1 vectors are zero"):
        normalise(np.array([[0, 0], [3, 4]]))
    np.testing.assert_allclose(normalise(np.array([3, 4])), [0.6, 0.8])


@pytest.mark.parametrize("words, message", [
    (["sweep", "--preset", "smoke", "--k", 3001], "k is 3001, but there are 3000 vectors"),
    (["sweep", "--preset", "smoke", "--k", 0], "k is 0"),
    (["sweep", "--preset", "smoke", "--queries", 0], "at least one query"),
    (["sweep", "--preset", "smoke", "--families", "hsnw"], "no family is called hsnw"),
    (["sweep", "--preset", "smoke", "--libraries", "fais"], "no library is called fais"),
    (["sweep", "--preset", "smoke", "--libraries", "usearch", "--families", "flat"], "no library is left"),
    (["sweep", "--preset", "smoke", "--parts", 7, "--families", "ivf_pq"], "64 dimensions cannot be cut into 7"),
    (["sweep", "--preset", "smoke", "--lists", 4000, "--families", "ivf"], "4000 centroids from 3000 points"),
    (["sweep", "--data", "sift"], "--data cannot be 'sift'"),
    (["clusters", "--vectors", 20], "20 vectors have no hundredth neighbour"),
])  # fmt: skip
def test_commands_say_it_in_two_lines(cli, words, message):
    """Catches: a traceback, or an error after a minute of building."""
    code, _, error = cli(*words)
    lines = [line for line in error.splitlines() if not line.startswith(("build", "measure", "hnswlib is left out"))]
    assert code == 2 and len(lines) == 2, error
    assert (message in lines[0] or message in error) and lines[1].startswith("  try: ")
