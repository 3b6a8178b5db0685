"""Each test names the bug that it catches."""

import faiss
import numpy as np
import pytest

from labkit.errors import LabError
from stage1_foundations.vector_index import FlatIndex, IVFPQIndex
from stage1_foundations.vector_index.recall import ground_truth, recall_at_k


@pytest.fixture(scope="module")
def theirs(vectors, faiss_metric):
    """FAISS's index: 16 lists, 8 codes of 6 bits."""
    index = faiss.IndexIVFPQ(faiss.IndexFlat(24, faiss_metric), 24, 16, 8, 6, faiss_metric)
    index.train(vectors)
    index.add(vectors)
    return index


def like(theirs, vectors, metric: str, refine: int = 0) -> IVFPQIndex:
    """Ours with the centroids and codebooks of FAISS."""
    ours = IVFPQIndex(24, metric, lists=16, parts=8, bits=6, refine=refine)
    ours.set_centroids(theirs.quantizer.reconstruct_n(0, 16))
    ours.codebooks.set_centroids(faiss.vector_to_array(theirs.pq.centroids).reshape(8, 64, 3))
    ours.add(vectors)
    return ours


@pytest.mark.parametrize("nprobe", [1, 4, 16])
def test_same_centroids_and_codebooks_same_answers(theirs, vectors, queries, metric, nprobe):
    """Catches: codes of the vector instead of its residual, the list's own term forgotten, a table of another list."""
    ours = like(theirs, vectors, metric)
    ours.nprobe = theirs.nprobe = nprobe
    scores, ids = ours.search(queries, 10)
    expected_scores, expected_ids = theirs.search(queries, 10)
    np.testing.assert_allclose(scores, expected_scores, atol=5e-6)
    assert (ids == expected_ids).mean() > 0.99  # equal codes in one list have equal distances, in any order


def test_refine_removes_the_ceiling(theirs, vectors, queries, metric):
    """Catches: candidates that are not compared again; scores that are still those of the codes."""
    truth = ground_truth(queries, vectors, metric)
    plain, refined = like(theirs, vectors, metric), like(theirs, vectors, metric, refine=10)
    plain.nprobe = refined.nprobe = 16
    low = recall_at_k(plain.search(queries, 10)[1], truth)
    scores, ids = refined.search(queries, 10)
    assert recall_at_k(ids, truth) > max(0.97, low + 0.1)
    flat = FlatIndex(24, metric)
    flat.add(vectors)
    expected_scores, expected_ids = flat.search(queries, 10)
    np.testing.assert_allclose(scores[ids == expected_ids], expected_scores[ids == expected_ids], atol=2e-6)


def test_refining_everything_is_exact(theirs, vectors, queries, metric):
    """Catches: refine times k beyond the size of the index."""
    ours = like(theirs, vectors, metric, refine=1000)
    ours.nprobe = 16
    flat = FlatIndex(24, metric)
    flat.add(vectors)
    np.testing.assert_array_equal(ours.search(queries, 10)[1], flat.search(queries, 10)[1])


def test_refine_needs_the_originals(theirs, vectors, queries, metric):
    """Catches: a read beyond an empty array."""
    ours = like(theirs, vectors, metric)
    ours.refine = 4
    with pytest.raises(LabError, match="originals"):
        ours.search(queries, 10)


def test_recall_of_own_training_is_that_of_faiss(vectors, queries, metric, faiss_metric):
    """Catches: residuals or codebooks worse than FAISS's (mean of four seeds and three settings)."""
    truth, differences = ground_truth(queries, vectors, metric), []
    for seed in range(1, 5):
        ours = IVFPQIndex(24, metric, lists=16, parts=8, bits=6, seed=seed)
        theirs = faiss.IndexIVFPQ(faiss.IndexFlat(24, faiss_metric), 24, 16, 8, 6, faiss_metric)
        theirs.cp.seed = theirs.pq.cp.seed = seed
        for index in (ours, theirs):
            index.train(vectors)
            index.add(vectors)
        for nprobe in (2, 4, 16):
            ours.nprobe = theirs.nprobe = nprobe
            found, expected = ours.search(queries, 10)[1], theirs.search(queries, 10)[1]
            differences.append(recall_at_k(found, truth) - recall_at_k(expected, truth))
    assert abs(np.mean(differences)) <= 0.01


def test_adding_in_pieces_is_adding_at_once(theirs, vectors, queries, metric):
    """Catches: codes that stay in the old order when lists are grouped again."""
    whole = like(theirs, vectors, metric, refine=2)
    pieces = like(theirs, vectors[:700], metric, refine=2)
    pieces.add(vectors[700:])
    whole.nprobe = pieces.nprobe = 4
    np.testing.assert_array_equal(pieces.codes, whole.codes)
    np.testing.assert_array_equal(pieces.search(queries, 10)[1], whole.search(queries, 10)[1])
