"""What everyone falls into once, shown on FAISS or hnswlib and on the hand-written indexes.

Each test names the bug that it catches.
"""

import faiss
import numpy as np
import pytest

from stage1_foundations.vector_index import FlatIndex, HNSWIndex, IVFIndex, load_index, normalise
from stage1_foundations.vector_index.recall import ground_truth, recall_at_k


def test_nprobe_is_one_unless_you_set_it(vectors, queries):
    """Trap: IVF with the default nprobe "has bad recall". Catches: a default that differs from FAISS's; a search that
    does not read the setting."""
    theirs = faiss.IndexIVFFlat(faiss.IndexFlatIP(24), 24, 64, faiss.METRIC_INNER_PRODUCT)
    ours = IVFIndex(24, lists=64)
    assert theirs.nprobe == ours.nprobe == 1
    truth = ground_truth(queries, vectors)
    for index in (ours, theirs):
        index.train(vectors)
        index.add(vectors)
        at_one = recall_at_k(index.search(queries, 10)[1], truth)
        index.nprobe = 16
        assert at_one < 0.95 < recall_at_k(index.search(queries, 10)[1], truth)


def test_nprobe_is_saved_with_the_index(vectors, queries, tmp_path):
    """Trap: an index saved with nprobe 1 is served with nprobe 1. Catches: a loaded index with the default again."""
    index = IVFIndex(24, lists=64, nprobe=16)
    index.train(vectors)
    index.add(vectors)
    assert load_index(index.save(tmp_path / "ivf.index")).nprobe == 16


def test_ef_after_load(vectors, queries, tmp_path):
    """Trap: hnswlib's ef is 10 again after loading, and recall falls. Catches: ours doing the same."""
    truth = ground_truth(queries, vectors)
    index = HNSWIndex(24, neighbours=6, ef_construction=40, ef_search=120)
    index.add(vectors)
    before = recall_at_k(index.search(queries, 10)[1], truth)
    again = load_index(index.save(tmp_path / "hnsw.index"))
    assert again.ef_search == 120 and recall_at_k(again.search(queries, 10)[1], truth) == before
    again.ef_search = 10  # what hnswlib would do
    assert recall_at_k(again.search(queries, 10)[1], truth) < before - 0.01


def test_ef_after_load_of_hnswlib(vectors, queries, tmp_path):
    """The trap itself. Catches: an adapter that relies on the file."""
    hnswlib = pytest.importorskip("hnswlib", reason="optional: pip install hnswlib wants a C++ compiler")
    index = hnswlib.Index("ip", 24)
    index.init_index(len(vectors), M=6, ef_construction=40)
    index.add_items(vectors)
    index.set_ef(120)
    index.save_index(str(tmp_path / "hnswlib.index"))
    again = hnswlib.Index("ip", 24)
    again.load_index(str(tmp_path / "hnswlib.index"))
    assert index.ef == 120 and again.ef == 10


def test_inner_product_is_not_cosine():
    """Trap: vectors that were not normalised: long ones win. Catches: `normalise` that does not."""
    draw = np.random.default_rng(1)
    vectors = draw.standard_normal((2000, 16)).astype(np.float32) * draw.lognormal(0, 1, (2000, 1)).astype(np.float32)
    queries = draw.standard_normal((100, 16)).astype(np.float32)
    cosine = (queries @ vectors.T) / np.linalg.norm(vectors, axis=1)
    expected = np.argsort(-cosine, axis=1)[:, :10]
    raw, unit = FlatIndex(16), FlatIndex(16)
    raw.add(vectors)
    unit.add(normalise(vectors))

    def agreement(ids: np.ndarray) -> float:
        return float(np.mean([len(set(a) & set(b)) for a, b in zip(ids, expected, strict=True)])) / 10

    assert agreement(raw.search(queries, 10)[1]) < 0.5
    assert agreement(unit.search(normalise(queries), 10)[1]) > 0.999
    squared = FlatIndex(16, "l2")  # on unit vectors all three metrics rank alike
    squared.add(normalise(vectors))
    assert agreement(squared.search(normalise(queries), 10)[1]) > 0.999


def test_duplicates_do_not_lower_recall(vectors, queries):
    """Trap: ten copies of one passage fill the first ten places, and id-based recall calls the other copies misses.
    Catches: recall that depends on which copy came first."""
    doubled = np.repeat(vectors[:1000], 12, axis=0)
    truth = ground_truth(queries, doubled)
    other = doubled.shape[0] - 1 - FlatIndex_of(doubled[::-1]).search(queries, 10)[1]  # the last copies instead
    assert np.mean([len(set(a) & set(b)) for a, b in zip(other, truth.ids, strict=True)]) < 9
    assert recall_at_k(other, truth) == 1.0


def test_duplicates_starve_the_graph(vectors, queries):
    """Trap: copies link to copies. With more copies than links, HNSW's walk cannot leave them, and recall falls;
    take duplicates out before. Catches: a build that hangs or fails on them."""
    copies = np.repeat(vectors[:300], 40, axis=0)
    recalls = {}
    for name, rows in (("copies", copies), ("distinct", vectors)):
        index = HNSWIndex(24, neighbours=8, ef_construction=60, ef_search=40)
        index.add(rows)
        recalls[name] = recall_at_k(index.search(queries, 10)[1], ground_truth(queries, rows))
    assert recalls["distinct"] > 0.95 > recalls["copies"]


def FlatIndex_of(vectors: np.ndarray) -> FlatIndex:  # noqa: N802 - reads like the class
    """A filled FlatIndex."""
    index = FlatIndex(vectors.shape[1])
    index.add(vectors)
    return index
