"""Each test names the bug that it catches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import LabError
from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.hybrid import HybridRetriever, fuse_scores, standardise
from stage2_rag_finetune_deploy.rag.pair_reranker import PairReranker, RememberedScores
from stage2_rag_finetune_deploy.rag.reranker import RerankedRetriever, Reranker, blend
from stage2_rag_finetune_deploy.rag.retriever import Corpus, Hit
from stage2_rag_finetune_deploy.vector_db.filters import Eq

TEXTS = {
    "bees": "Honey bees are dancing to tell each other where food is.",
    "tin": "Food was kept in cans that were lined with tin.",
    "bridge": "The bridge was opened in 1932 and carries eight lanes.",
    "优惠": "优惠券须在提交订单时使用。",
}
KINDS = {"bees": {"kind": "animal"}, "tin": {"kind": "metal"}, "bridge": {"kind": "road"}, "优惠": {"kind": "shop"}}


@pytest.fixture
def corpus() -> Corpus:
    return Corpus.from_texts(TEXTS, KINDS)


class Fixed:
    """A retriever with a list of its own."""

    def __init__(self, name: str, scores: dict[str, float]) -> None:
        self.name, self.scores, self.asked = name, scores, []

    def retrieve(self, query, k, filter=None):
        self.asked.append(k)
        best = sorted(self.scores, key=lambda name: -self.scores[name])[:k]
        return [Hit(name, self.scores[name], name, {}, {self.name: self.scores[name]}) for name in best]


class ByTable(Reranker):
    """A reranker whose opinion is a table."""

    name = "table"

    def __init__(self, table: dict[str, float], depth: int = 10, weight: float = 1.0) -> None:
        self.table, self.depth, self.weight = table, depth, weight

    def score(self, query, hits):
        return np.array([self.table[hit.id] for hit in hits])


def test_bm25_finds_another_form_of_the_word(corpus):
    """Catches: stems in the index and whole words in the query, or the other way round."""
    assert [hit.id for hit in Bm25Retriever(corpus).retrieve("who dances for food?", 4)][0] == "bees"


def test_bm25_reads_chinese(corpus):
    """Catches: a Chinese sentence as one word that nothing equals."""
    assert [hit.id for hit in Bm25Retriever(corpus).retrieve("什么时候用优惠券", 4)] == ["优惠"]


@pytest.mark.parametrize("query", ["", "?!", "zebra", "the of and"])
def test_bm25_without_a_known_word_finds_nothing(corpus, query):
    """Catches: passages of score 0 presented as found, or an error for an empty question."""
    assert Bm25Retriever(corpus).retrieve(query, 3) == []


def test_bm25_of_a_corpus_without_words():
    """Catches: bm25s refusing an empty vocabulary."""
    assert Bm25Retriever(Corpus.from_texts({"a": "...", "b": "!"})).retrieve("dance", 2) == []


def test_weighted_words_add_up(corpus):
    """Catches: RM3's weights landing on the wrong words when some are unknown."""
    bm25 = Bm25Retriever(corpus)
    one, two = bm25.scores(["bee"]), bm25.scores(["food"])
    mixed = bm25.scores(["zebra", "bee", "food"], np.array([9.0, 2.0, 0.5]))
    np.testing.assert_allclose(mixed, 2 * one + 0.5 * two, rtol=1e-6)


def test_filters_apply_before_the_cut(corpus):
    """Catches: a filter after the best k are taken, which loses what it should find."""
    bm25 = Bm25Retriever(corpus)
    assert [hit.id for hit in bm25.retrieve("food", 1, Eq("kind", "metal"))] == ["tin"]
    with pytest.raises(LabError):
        bm25.retrieve("food", 1, Eq("colour", "red"))


def test_an_empty_corpus_and_k_of_zero_are_refused(corpus):
    """Catches: an index over nothing; a list of nothing for k = 0."""
    with pytest.raises(LabError):
        Corpus.from_texts({})
    with pytest.raises(LabError):
        Bm25Retriever(corpus).retrieve("food", 0)


def test_score_fusion_by_hand():
    """Catches: lists that are not standardised, and a missing passage that counts as average instead of lowest."""
    fused = fuse_scores([{"a": 100.0, "b": 300.0}, {"b": 0.1, "c": 0.2}], [0.5, 0.5])
    assert fused == pytest.approx({"a": -1.0, "b": 0.0, "c": 0.0})
    heavier = fuse_scores([{"a": 100.0, "b": 300.0}, {"b": 0.1, "c": 0.2}], [0.75, 0.25])
    assert heavier == pytest.approx({"a": -1.0, "b": 0.5, "c": -0.5})


SCORES = st.dictionaries(st.sampled_from("abcdefg"), st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=1)


@given(SCORES, SCORES, st.floats(0.5, 20), st.floats(-50, 50))
def test_fusion_ignores_the_scale_of_a_list(first, second, factor, shift):
    """Catches: a cosine drowned by BM25, because its numbers are small."""
    other = {name: factor * score + shift for name, score in second.items()}
    plain, scaled = fuse_scores([first, second], [0.5, 0.5]), fuse_scores([first, other], [0.5, 0.5])
    assert plain == pytest.approx(scaled, abs=1e-3)


def test_an_empty_list_changes_nothing():
    """Catches: a query without known words that drags all passages down, or a division by nothing."""
    assert fuse_scores([{}, {"a": 1.0, "b": 3.0}], [0.5, 0.5]) == pytest.approx({"a": -0.5, "b": 0.5})
    assert fuse_scores([{}, {}], [0.5, 0.5]) == {}


def test_equal_scores_say_nothing():
    """Catches: a division by a deviation of 0."""
    assert standardise(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("method", ["score", "rrf"])
def test_hybrid_keeps_what_each_part_said(method):
    """Catches: hits that lose their text or the scores of the second part."""
    first, second = Fixed("dense", {"a": 0.9, "b": 0.8, "d": 0.1}), Fixed("bm25", {"b": 12.0, "c": 3.0})
    hits = HybridRetriever([first, second], method).retrieve("q", 3)
    assert hits[0].id == "b" and hits[0].scores.keys() == {"dense", "bm25", f"hybrid-{method}"}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.id for hit in hits}) == 3 and all(hit.text for hit in hits)


def test_hybrid_asks_deeper_than_k():
    """Catches: fusing two lists of k, in which the second-best of both is missing."""
    parts = Fixed("dense", {"a": 1.0}), Fixed("bm25", {"a": 1.0})
    HybridRetriever(parts, depth=50).retrieve("q", 3)
    assert parts[0].asked == [50] and parts[1].asked == [50]


@pytest.mark.parametrize("arguments", [{"method": "borda"}, {"weights": [1.0]}, {"weights": [1.0, -1.0]}])
def test_hybrid_refuses_what_it_cannot_do(arguments):
    """Catches: an unknown method that falls through to another one; a weight too few."""
    with pytest.raises(LabError):
        HybridRetriever([Fixed("dense", {}), Fixed("bm25", {})], **arguments)
    with pytest.raises(LabError):
        HybridRetriever([Fixed("dense", {}), Fixed("dense", {})])


def test_rerank_orders_the_top_and_leaves_the_rest():
    """Catches: hits below the depth that overtake, or disappear; scores that are not in order."""
    hits = Fixed("dense", {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}).retrieve("q", 4)
    found = ByTable({"a": 1.0, "b": 5.0}, depth=2).rerank("q", hits, 4)
    assert [hit.id for hit in found] == ["b", "a", "c", "d"]
    assert all(x.score > y.score for x, y in zip(found, found[1:], strict=False))
    assert found[0].scores["table"] == 5.0 and found[0].scores["dense"] == 3.0


def test_blend_weights():
    """Catches: weights the wrong way round, raw scores that are not on one scale."""
    before, after = np.array([3.0, 2.0, 1.0]), np.array([0.01, 0.02, 0.03])
    assert np.argsort(-blend(before, after, 0.0)).tolist() == [0, 1, 2]
    assert np.argsort(-blend(before, after, 1.0)).tolist() == [2, 1, 0]
    np.testing.assert_allclose(blend(before, after, 0.5), 0.0, atol=1e-9)


def test_rerank_of_nothing_is_nothing():
    """Catches: an error when the first stage found nothing."""
    assert ByTable({}).rerank("q", [], 3) == []


def test_reranked_retriever_fetches_enough():
    """Catches: reranking only the k hits that are shown, which can change nothing about what is found."""
    first = Fixed("dense", {name: -float(place) for place, name in enumerate("abcdefgh")})
    table = {name: float(place) for place, name in enumerate("abcdefgh")}
    found = RerankedRetriever(first, ByTable(table, depth=8)).retrieve("q", 2)
    assert [hit.id for hit in found] == ["h", "g"]


class Counting(PairReranker):
    """A pair reranker that notes what it was asked."""

    name, revision, depth, weight = "counting", "1", 5, 1.0

    def __init__(self) -> None:
        self.pairs = []

    def score_pairs(self, pairs):
        self.pairs += pairs
        return np.array([float(len(query) - len(text)) for query, text in pairs])


def test_remembered_scores_are_asked_once(tmp_path):
    """Catches: a resumed evaluation that scores everything again, or mixes up query and passage."""
    inner = Counting()
    hits = [Hit("a", 1.0, "one"), Hit("b", 0.5, "seven")]
    first = RememberedScores(inner, tmp_path).score("longer", hits)
    again = RememberedScores(inner, tmp_path).score("longer", hits)
    assert first.tolist() == again.tolist() == [3.0, 1.0]
    assert sorted(inner.pairs) == [("longer", "one"), ("longer", "seven")]
