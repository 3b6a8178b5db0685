"""Each test names the bug that it catches."""

import faiss
import numpy as np
import pytest

from labkit.errors import LabError
from stage1_foundations.vector_index import ProductQuantizer
from stage1_foundations.vector_index.kmeans import TooFewPoints
from stage1_foundations.vector_index.product_quantizer import Codebooks
from stage1_foundations.vector_index.recall import ground_truth, recall_at_k


@pytest.fixture(scope="module", params=[(6, 6), (12, 4), (24, 5)], ids=["6x6", "12x4", "24x5"])
def pair(request, vectors):
    """FAISS's quantiser, and ours with the same codebooks."""
    parts, bits = request.param
    theirs = faiss.ProductQuantizer(24, parts, bits)
    theirs.train(vectors)
    ours = Codebooks(24, parts, bits)
    ours.set_centroids(faiss.vector_to_array(theirs.centroids).reshape(parts, 2**bits, 24 // parts))
    return ours, theirs


def unpacked(codes: np.ndarray, parts: int, bits: int) -> np.ndarray:
    """FAISS packs codes of fewer than 8 bits one after the other, lowest bit first."""
    stream = np.unpackbits(codes, axis=1, bitorder="little")[:, : parts * bits].reshape(len(codes), parts, bits)
    return (stream * 2 ** np.arange(bits)).sum(axis=2)


def test_same_codebooks_same_codes(pair, vectors):
    """Catches: pieces cut in another order, the second nearest centroid."""
    ours, theirs = pair
    expected = unpacked(theirs.compute_codes(vectors), ours.parts, ours.bits)
    np.testing.assert_array_equal(ours.encode(vectors), expected)


def test_same_codebooks_same_codes_of_8_bits():
    """Catches: numbers above 127 that become negative."""
    many = np.random.default_rng(1).standard_normal((10_000, 8)).astype(np.float32)
    theirs = faiss.ProductQuantizer(8, 2, 8)
    theirs.cp.niter = 3
    theirs.train(many)
    ours = Codebooks(8, 2, 8)
    ours.set_centroids(faiss.vector_to_array(theirs.centroids).reshape(2, 256, 4))
    codes = ours.encode(many)
    assert codes.max() == 255
    np.testing.assert_array_equal(codes, theirs.compute_codes(many))


def test_decode_equals_faiss(pair, vectors):
    """Catches: parts put together in the wrong order."""
    ours, theirs = pair
    codes = theirs.compute_codes(vectors)
    np.testing.assert_array_equal(ours.decode(unpacked(codes, ours.parts, ours.bits)), theirs.decode(codes))


@pytest.mark.parametrize("squared", [False, True])
def test_tables_sum_to_the_distance_of_the_decoded_vector(pair, vectors, queries, squared):
    """Catches: |q|^2 counted once for every part, a sign, a table of the wrong part."""
    ours, _ = pair
    codes = ours.encode(vectors[:50])
    tables = ours.tables(queries, squared)
    sums = tables[:, np.arange(ours.parts), codes].sum(axis=2)  # (Q, 50)
    decoded = ours.decode(codes)
    exact = ((queries[:, None] - decoded) ** 2).sum(axis=2) if squared else -(queries @ decoded.T)
    np.testing.assert_allclose(sums, exact, atol=2e-6)


def test_search_equals_faiss(vectors, queries, metric, faiss_metric):
    """Catches: an error in the scan; ids in another order."""
    theirs = faiss.IndexPQ(24, 12, 5, faiss_metric)
    theirs.train(vectors)
    theirs.add(vectors)
    ours = ProductQuantizer(24, metric, parts=12, bits=5)
    ours.codebooks.set_centroids(faiss.vector_to_array(theirs.pq.centroids).reshape(12, 32, 2))
    ours.add(vectors)
    scores, ids = ours.search(queries, 10)
    expected_scores, expected_ids = theirs.search(queries, 10)
    np.testing.assert_allclose(scores, expected_scores, atol=2e-6)
    assert (ids == expected_ids).mean() > 0.99  # vectors of the same code have the same distance, in any order


def test_recall_of_own_training_is_that_of_faiss(vectors, queries, metric, faiss_metric):
    """Catches: codebooks worse than FAISS's (mean of four seeds)."""
    truth, differences = ground_truth(queries, vectors, metric), []
    for seed in range(1, 5):
        ours = ProductQuantizer(24, metric, parts=12, bits=6, seed=seed)
        theirs = faiss.IndexPQ(24, 12, 6, faiss_metric)
        theirs.pq.cp.seed = seed
        for index in (ours, theirs):
            index.train(vectors)
            index.add(vectors)
        found, expected = ours.search(queries, 10)[1], theirs.search(queries, 10)[1]
        differences.append(recall_at_k(found, truth) - recall_at_k(expected, truth))
    assert abs(np.mean(differences)) <= 0.01


def test_8_bits_want_9984_vectors(vectors):
    """Catches: a quantiser that fits the noise of 4,000 vectors without a word."""
    quantizer = ProductQuantizer(24, parts=2)
    with pytest.warns(TooFewPoints, match="39 \\* 256 = 9984") as found:
        quantizer.train(vectors)
    assert len(found) == 1  # once, not once a part
    with pytest.raises(LabError, match="256 centroids from 255 points"):
        quantizer.train(vectors[:255])


@pytest.mark.parametrize("parts, bits, message", [
    (5, 8, "cannot be cut into 5 equal parts"), (0, 8, "0 equal parts"), (6, 9, "9 bits"), (6, 0, "0 bits"),
])  # fmt: skip
def test_impossible_codes(parts, bits, message):
    """Catches: dimensions silently dropped; codes that overflow their byte."""
    with pytest.raises(LabError, match=message):
        ProductQuantizer(24, parts=parts, bits=bits)


def test_codebooks_of_another_shape():
    """Catches: a scan over the end of the table."""
    with pytest.raises(LabError, match="codebooks of shape"):
        Codebooks(24, 6, 4).set_centroids(np.zeros((6, 15, 4)))
