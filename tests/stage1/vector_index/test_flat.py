"""Each test names the bug that it catches."""

import os

import faiss
import numpy as np
import pytest

from stage1_foundations.vector_index.flat import DIRECT, FlatIndex
from stage1_foundations.vector_index.kernels import aligned_rows, drop_stale_code
from stage1_foundations.vector_index.top_k import push_rows


@pytest.mark.parametrize("count", [1, 63, 1024, 1025, 4000])
def test_same_ids_as_faiss(vectors, queries, metric, faiss_metric, count):
    """Catches: a block's offset that is off by one; a last block that is not full; a wrong sign of the metric."""
    ours, theirs = FlatIndex(24, metric), faiss.IndexFlat(24, faiss_metric)
    ours.add(vectors[:count])
    theirs.add(vectors[:count])
    k = min(10, count)
    scores, ids = ours.search(queries, k)
    expected_scores, expected_ids = theirs.search(queries, k)
    np.testing.assert_array_equal(ids, expected_ids)
    # unit vectors; |q|^2 - 2 q.x + |x|^2 in float32 is off by a few roundings of numbers near 2: 1e-6
    np.testing.assert_allclose(scores, expected_scores, atol=2e-6)


def test_one_query_and_a_batch_agree(vectors, queries, metric):
    """Catches: a difference between the BLAS path and the direct one."""
    index = FlatIndex(24, metric)
    index.add(vectors)
    scores, ids = index.search(queries, 7)
    for start in range(0, 20, DIRECT):
        some_scores, some_ids = index.search(queries[start : start + DIRECT], 7)
        np.testing.assert_array_equal(some_ids, ids[start : start + DIRECT])
        np.testing.assert_allclose(some_scores, scores[start : start + DIRECT], atol=2e-6)
    one_scores, one_ids = index.search(queries[0], 7)
    assert one_ids.shape == (1, 7) and one_ids.dtype == np.int64 and one_scores.dtype == np.float32


@pytest.mark.parametrize("first, end", [(0, 0), (0, 1), (0, 3), (0, 4), (5, 12), (7, 8), (2, 1003)])
def test_push_rows_takes_all_rows_once(vectors, queries, metric, first, end):
    """Catches: rows left over when four are computed at a time; a fourth row beyond the end; the wrong number."""
    rows, query, squared = aligned_rows(vectors), aligned_rows(queries)[0], metric == "l2"
    best, ids = np.full(5, np.inf, np.float32), np.full(5, -1, np.int64)
    push_rows(rows, first, end, query, squared, best, ids)
    part = rows[first:end].astype(np.float64)
    exact = ((part - query) ** 2).sum(axis=1) if squared else -(part @ query)
    order = np.argsort(exact)[:5]
    found = min(5, end - first)
    assert ids.tolist() == [*(first + order), *[-1] * (5 - found)]
    np.testing.assert_allclose(best[:found], exact[order], atol=2e-6)


def test_adding_in_pieces_is_adding_at_once(vectors, queries):
    """Catches: ids that start again at zero with the second call."""
    whole, pieces = FlatIndex(24), FlatIndex(24)
    whole.add(vectors)
    for start in range(0, 4000, 1500):
        pieces.add(vectors[start : start + 1500])
    assert len(pieces) == 4000
    np.testing.assert_array_equal(pieces.search(queries, 5)[1], whole.search(queries, 5)[1])


def test_k_may_be_the_whole_index(vectors, queries):
    """Catches: a list of the k best that stops one short."""
    index = FlatIndex(24)
    index.add(vectors[:50])
    scores, ids = index.search(queries, 50)
    assert (np.sort(ids, axis=1) == np.arange(50)).all()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_equal_distances_keep_the_order_of_adding(vectors):
    """Catches: duplicates in an order that changes from run to run."""
    index = FlatIndex(24)
    index.add(np.repeat(vectors[:3], 5, axis=0))
    _, ids = index.search(np.repeat(vectors[1:2], 9, axis=0), 5)
    np.testing.assert_array_equal(ids, np.tile([5, 6, 7, 8, 9], (9, 1)))


def test_rows_are_padded_and_aligned(rows):
    """Catches: a row that straddles cache lines, padding that is not zero, an input that is changed."""
    padded = aligned_rows(rows)
    assert padded.shape == (len(rows), 32) and padded.ctypes.data % 64 == 0
    assert padded.dtype == np.float32 and padded.flags.c_contiguous
    np.testing.assert_array_equal(padded[:, :24], rows)
    assert not padded[:, 24:].any()


def test_code_compiled_before_a_source_changed_is_dropped(tmp_path):
    """Catches: a change in kernels.py or top_k.py that has no effect, because its callers were compiled before."""
    (tmp_path / "__pycache__").mkdir()
    source, old, new = tmp_path / "kernels.py", tmp_path / "__pycache__" / "a.nbi", tmp_path / "__pycache__" / "b.nbi"
    for path, seconds in ((source, 2000), (old, 1000), (new, 3000)):
        path.touch()
        os.utime(path, (seconds, seconds))
    drop_stale_code(tmp_path)
    assert new.exists() and not old.exists() and source.exists()
    drop_stale_code(tmp_path)
    assert new.exists()
