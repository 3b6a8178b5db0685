"""Anisotropy, mistakes, shared words. Each test names the bug that it catches."""

import numpy as np
import pytest

from data import RetrievalSet
from stage1_foundations.embeddings.anisotropy import effective_dimensions, mean_cosine, random_cosines, remove_mean
from stage1_foundations.embeddings.encoders import RandomEncoder, unit_length
from stage1_foundations.embeddings.evaluation import score_task
from stage1_foundations.embeddings.mistakes import ndcg, query_ndcg, spread, texts_of
from stage1_foundations.embeddings.tasks import HeldOut
from stage1_foundations.embeddings.word_overlap import EDGES, Overlap, by_overlap, measure_overlap, word_overlap


@pytest.fixture
def cone() -> np.ndarray:
    """(200, 20) unit rows that share a direction."""
    rng = np.random.default_rng(0)
    return unit_length(rng.normal(size=(200, 20)) + 3 * np.eye(20)[0])


def test_mean_cosine_is_the_mean_over_all_pairs(cone):
    """Catches: the diagonal counted in, or a mean over N² instead of N (N - 1) pairs."""
    cosines = cone @ cone.T
    assert mean_cosine(cone) == pytest.approx(cosines[~np.eye(200, dtype=bool)].mean(), abs=1e-5)
    assert random_cosines(cone, 4000).mean() == pytest.approx(mean_cosine(cone), abs=0.02)
    assert random_cosines(cone, 4000).max() < 0.9999  # no row beside itself


def test_removing_the_mean_opens_the_cone(cone):
    """Catches: lengths that are not set back to 1; a mean along the wrong axis."""
    opened = remove_mean(cone, cone.mean(axis=0))
    assert mean_cosine(cone) > 0.2 and abs(mean_cosine(opened)) < 0.02
    np.testing.assert_allclose(np.linalg.norm(opened, axis=1), 1, atol=1e-5)


def test_effective_dimensions_by_hand():
    """Catches: singular values in place of eigenvalues: equal variance in k directions counts k."""
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], np.float32)
    assert effective_dimensions(corners) == pytest.approx(2)
    stretched = corners * [2, 1, 1]
    assert effective_dimensions(stretched) == pytest.approx((4 + 1) ** 2 / (16 + 1))


def test_our_ndcg_is_mtebs(secret_set):
    """Catches: ranks off by one, ids and rows exchanged. mteb rounds its score to five digits."""
    chosen = secret_set.sample(60, 90)
    encoder = RandomEncoder(dimensions=16)
    queries, passages = (encoder.encode(texts, kind) for texts, kind in
                         zip(texts_of(chosen), ("query", "passage"), strict=True))  # fmt: skip
    theirs = score_task(encoder, HeldOut(chosen))
    assert 0.02 < theirs.score < 0.3
    assert ndcg(chosen, queries, passages) == pytest.approx(100 * theirs.score, abs=1e-3)
    by_id = dict(zip(chosen.queries, query_ndcg(chosen, queries, passages), strict=True))
    np.testing.assert_allclose([by_id[name] for name in sorted(by_id)], theirs.items.values, atol=1e-6)


def test_spread_pairs_questions_with_their_own_passages(secret_set):
    """Catches: gold passages by position. An encoder that sorts letters sees the pair's shared numbers."""

    class Numbers(RandomEncoder):
        def embed(self, texts, prompt=""):
            rows = np.zeros((len(texts), 40), np.float32)
            for row, text in enumerate(texts):
                rows[row, [int(word[3:]) for word in text.split()]] = 1
            return rows

    found = spread(Numbers(40), secret_set.sample(80, 120))
    assert found.gold.min() == pytest.approx(1, abs=1e-5) and found.raw == pytest.approx(100, abs=2)
    assert found.random.mean() < 0.3


def test_word_overlap_by_hand():
    """Catches: repeated words counted twice, stop words counted, the share of the passage instead of the question."""
    assert word_overlap("What did the red fox eat?", "The fox, red as fire, slept. It did eat.") == 1.0
    assert word_overlap("red red fox", "a red house") == 0.5
    assert word_overlap("red", "a red house with a red door") == 1.0
    assert word_overlap("画蛇", "蛇") == pytest.approx(1 / 3)  # two characters and their pair
    assert word_overlap("the of", "the of") == 0.0


def test_bands_of_overlap():
    """Catches: an overlap of exactly 1 falling out of the last band; bands weighted by set."""
    rows = [Overlap("a", np.array([0.0, 1.0]), {"m": np.array([0.2, 0.8])}),
            Overlap("b", np.array([0.1, 0.5, 1.0]), {"m": np.array([0.4, 0.5, 0.2])})]  # fmt: skip
    found = by_overlap(rows, "m")
    assert [count for _, count in found] == [2, 0, 1, 0, 2] and len(found) == len(EDGES) - 1
    assert [found[0][0], found[2][0], found[4][0]] == pytest.approx([30, 50, 50])
    assert np.isnan(found[1][0])


def test_search_by_words_needs_shared_words():
    """Catches: the comparison's claim turned round: BM25 is perfect where words are shared, blind where none is."""
    corpus = {f"p{n}": f"alpha{n} beta{n} gamma{n}" for n in range(30)}
    shared = RetrievalSet("shared", "en", corpus, {f"q{n}": f"gamma{n}" for n in range(30)},
                          {f"q{n}": {f"p{n}": 1} for n in range(30)})  # fmt: skip
    foreign = RetrievalSet("foreign", "en", corpus, {f"q{n}": f"delta{n}" for n in range(30)}, shared.qrels)
    easy, hard = measure_overlap(shared, [RandomEncoder()]), measure_overlap(foreign, [RandomEncoder()])
    assert (easy.overlap == 1).all() and (easy.ndcg["bm25"] == 1).all()
    assert (hard.overlap == 0).all() and (hard.ndcg["bm25"] == 0).all()
    assert hard.ndcg["random"].mean() < 0.4
