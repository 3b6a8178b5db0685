"""Each test names the bug that it catches."""

import numpy as np
import pytest

from stage2_rag_finetune_deploy.rag.bm25 import Bm25Retriever
from stage2_rag_finetune_deploy.rag.comparison import with_typo
from stage2_rag_finetune_deploy.rag.query_rewriting import (
    HypotheticalAnswer,
    RewritingRetriever,
    Rm3Retriever,
    SpellingRewriter,
    expansion_terms,
    nearest_word,
)
from stage2_rag_finetune_deploy.rag.retriever import Corpus

TEXTS = {
    "bees": "Honey bees dance. The dancing bees show other bees where nectar is.",
    "nectar": "Nectar is a sugar that flowers make; a nectar dance was described by Frisch.",
    "flowers": "Flowers make sugar. The flowers open in the morning.",
    "bridge": "The bridge carries eight lanes of traffic.",
}


@pytest.mark.parametrize(
    ("typo", "word"),
    [("brdige", "bridge"), ("bridg", "bridge"), ("bbridge", "bridge"), ("bridje", "bridge"), ("bridge", "bridge")],
)
def test_nearest_word_for_every_kind_of_edit(typo, word):
    """Catches: one of the four edits missing."""
    assert nearest_word(typo, {"bridge": 3, "bride": 1}) == word


def test_nearest_word_takes_the_frequent_one():
    """Catches: the first in the alphabet, or a result that changes from run to run."""
    assert nearest_word("cest", {"test": 5, "best": 3, "nest": 9}) == "nest"
    assert nearest_word("xxxxx", {"test": 5}) == "xxxxx"


def test_spelling_changes_only_what_is_unknown():
    """Catches: names, short words, numbers and punctuation that are "corrected"."""
    rewriter = SpellingRewriter(TEXTS.values())
    assert rewriter.rewrite("How many lanes carries the brigde?") == "How many lanes carries the bridge?"
    for question in ("What did McDance say in 1932?", "Is it so?", "桥有几条车道?", "Who is Bremmerich?"):
        assert rewriter.rewrite(question) == question


def test_spelling_finds_again_what_a_typo_hid():
    """Catches: a rewriter that is not asked before the search."""
    corpus = Corpus.from_texts(TEXTS)
    bm25 = Bm25Retriever(corpus)
    assert bm25.retrieve("brigde?", 1) == []
    assert RewritingRetriever(bm25, SpellingRewriter(TEXTS.values())).retrieve("brigde?", 1)[0].id == "bridge"


def test_typos_are_one_swap():
    """Catches: a typo that changes nothing or a whole word."""
    rng = np.random.default_rng(0)
    for text in ("How many lanes has the bridge?", "Where is nectar found?"):
        changed = with_typo(text, rng)
        assert sorted(changed) == sorted(text) and len(changed) == len(text)
        assert sum(a != b for a, b in zip(text, changed, strict=True)) in (0, 2)
    assert with_typo("who is it", rng) == "who is it"


def test_expansion_terms_by_hand():
    """Catches: counts that are not divided by the length of the passage, weights that do not sum to 1."""
    terms = expansion_terms([["a", "a", "b", "c"], ["b"]], np.array([3.0, 1.0]), 2)
    # a: 0.75 * 2/4, b: 0.75 * 1/4 + 0.25 * 1
    assert terms == pytest.approx({"a": 0.375 / 0.8125, "b": 0.4375 / 0.8125})


def test_rm3_finds_a_passage_without_the_word():
    """Catches: an expansion that is thrown away, or that drowns the question itself."""
    bm25 = Bm25Retriever(Corpus.from_texts(TEXTS))
    assert "flowers" not in {hit.id for hit in bm25.retrieve("nectar", 4)}
    found = [hit.id for hit in Rm3Retriever(bm25, passages=2, words=8, weight=0.7).retrieve("nectar", 4)]
    assert "flowers" in found and found[0] in ("nectar", "bees")
    assert Rm3Retriever(bm25).retrieve("zebra", 3) == []


def test_hypothetical_answer_is_added_to_the_question():
    """Catches: the question replaced by what a model made up."""
    asked = []

    def write(question: str) -> str:
        asked.append(question)
        return "eight lanes"

    assert HypotheticalAnswer(write).rewrite("how wide?") == "how wide? eight lanes"
    assert asked == ["how wide?"]
