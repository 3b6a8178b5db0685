"""One suite that every library must pass. Each test names the bug that it catches."""

import numpy as np
import pytest

from labkit.errors import LabError
from stage1_foundations.vector_index import adapters
from stage1_foundations.vector_index.adapters import LIBRARIES, Settings, make_adapter, why_missing
from stage1_foundations.vector_index.adapters.adapter import FAMILIES, formula_bytes
from stage1_foundations.vector_index.measure import build
from stage1_foundations.vector_index.recall import ground_truth, recall_at_k

PAIRS = [(library, family) for library in LIBRARIES for family in FAMILIES
         if family == "hnsw" or library in ("ours", "faiss")]  # fmt: skip
LOWEST = {"flat": 1.0, "ivf": 0.95, "pq": 0.4, "ivf_pq": 0.4, "ivf_pq_refine": 0.95, "hnsw": 0.95}


@pytest.fixture(scope="module")
def fitted(vectors):
    """fitted(library, family, metric) -> an adapter that holds the vectors."""
    made = {}

    def get(library: str, family: str, metric: str):
        if reason := why_missing(library):
            pytest.skip(reason)
        key = library, family, metric
        if key not in made:
            settings = Settings(24, metric, lists=32, parts=8, bits=6, neighbours=10, ef_construction=60)
            made[key] = make_adapter(library, family, settings)
            made[key].fit(vectors)
            made[key].set_query_arguments(40)
        return made[key]

    return get


@pytest.mark.parametrize("library, family", PAIRS)
def test_finds_the_neighbours(fitted, vectors, queries, metric, library, family):
    """Catches: the wrong metric, ids of another kind, one thread that answers in another order."""
    adapter = fitted(library, family, metric)
    found = adapter.batch_query(queries, 10)
    assert found.shape == (100, 10) and found.dtype == np.int64
    assert recall_at_k(found, ground_truth(queries, vectors, metric)) >= LOWEST[family]


@pytest.mark.parametrize("library, family", PAIRS)
def test_one_query_equals_the_batch(fitted, queries, metric, library, family):
    """Catches: QPS of single queries measured on something other than the recall."""
    adapter = fitted(library, family, metric)
    batch = adapter.batch_query(queries[:20], 5)
    for query, expected in zip(queries[:20], batch, strict=True):
        found = adapter.query(query, 5)
        assert found.shape == (5,) and (found == expected).mean() >= 0.6  # FAISS's BLAS path may swap near-ties


@pytest.mark.parametrize("library, family", [pair for pair in PAIRS if FAMILIES[pair[1]]])
def test_the_query_argument_is_obeyed(fitted, vectors, queries, library, family):
    """Catches: a sweep of which all points are the same."""
    k = 1 if family == "hnsw" else 50  # a graph's beam is at least k; a cell holds the nearest one, but not all 50
    adapter, truth = fitted(library, family, "l2"), ground_truth(queries, vectors, "l2", depth=k)
    recalls = []
    for argument in (1, 40):
        adapter.set_query_arguments(argument)
        recalls.append(recall_at_k(adapter.batch_query(queries, k), truth, k))
    assert recalls[0] < recalls[1]


@pytest.mark.parametrize("library, family", PAIRS)
def test_measured_size_is_near_the_formula(vectors, library, family):
    """Catches: an index of which only a part is saved; a formula that forgets the ids or the originals."""
    if reason := why_missing(library):
        pytest.skip(reason)
    settings = Settings(24, lists=4, parts=8, bits=8, neighbours=10, ef_construction=20)
    if family in ("pq", "ivf_pq", "ivf_pq_refine"):
        settings = Settings(24, lists=4, parts=8, bits=4)
    built = build(make_adapter(library, family, settings), vectors)
    expected = formula_bytes(family, settings)
    if library == "ours" and settings.bits == 4:
        expected += 4  # our codes are not packed: a byte for each part
    # learnt once: centroids, codebooks, headers; HNSW libraries keep an id, counts and levels beside the links
    assert expected - 1 <= built.bytes_per_vector <= expected + 24 and built.seconds > 0


def test_unknown_names():
    """Catches: KeyError."""
    with pytest.raises(LabError, match="no library is called fiass"):
        make_adapter("fiass", "hnsw", Settings(8))
    with pytest.raises(LabError, match="usearch has no ivf index") as error:
        make_adapter("usearch", "ivf", Settings(8))
    assert error.value.try_next == "one of: hnsw"


def test_a_missing_library_is_left_out_with_its_reason(monkeypatch):
    """Catches: a lab that cannot start without a compiler."""
    monkeypatch.setitem(LIBRARIES, "hnswlib", "no_such_package_anywhere:Index")
    reason = why_missing("hnswlib")
    assert "hnswlib is left out" in reason and "C++ compiler" in reason
    assert why_missing("ours") is None and set(adapters.OPTIONAL) <= set(LIBRARIES)
