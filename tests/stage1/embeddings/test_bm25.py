"""Oracles: the formula by hand, and bm25s asked directly. Each test names the bug that it catches."""

import math

import bm25s
import numpy as np
import pytest
from datasets import Dataset

from stage1_foundations.embeddings.bm25 import K1, B, Bm25, bm25_words

TEXTS = ["cats chase mice", "dogs chase cats and cats", "mice eat cheese", "green cheese green cheese moon"]
IDS = ["a", "b", "c", "d"]


@pytest.fixture
def fitted() -> Bm25:
    """BM25 over TEXTS."""
    model = Bm25()
    model.fit(IDS, TEXTS)
    return model


def by_hand(query: list[str], text: list[str], corpus: list[list[str]]) -> float:
    """Robertson and Zaragoza 2009, equation 3.15, with Lucene's idf."""
    average = sum(map(len, corpus)) / len(corpus)
    score = 0.0
    for word in query:
        holders = sum(word in other for other in corpus)
        idf = math.log(1 + (len(corpus) - holders + 0.5) / (holders + 0.5))
        count = text.count(word)
        score += idf * count / (count + K1 * (1 - B + B * len(text) / average))
    return score


@pytest.mark.parametrize("query", ["cats", "green cheese", "dogs chase mice"])
def test_scores_by_hand(fitted, query):
    """Catches: k1 and b exchanged, a wrong idf, the length left out. Float32 inside: 1e-5."""
    corpus = [bm25_words(text) for text in TEXTS]
    expected = {name: by_hand(query.split(), text, corpus) for name, text in zip(IDS, corpus, strict=True)}
    assert fitted.rank(query, 4) == pytest.approx({k: v for k, v in expected.items() if v > 0}, abs=1e-5)


def test_ranking_equals_bm25s(fitted):
    """Catches: ids mixed up between our rows and the library's, or a truncated list."""
    reference = bm25s.BM25(k1=K1, b=B)
    reference.index([bm25_words(text) for text in TEXTS], show_progress=False)
    rows, scores = reference.retrieve([["chase", "mice"]], k=3, show_progress=False)
    ranked = fitted.rank("chase mice", 3)
    assert list(ranked) == [IDS[row] for row in rows[0]]
    assert list(ranked.values()) == pytest.approx(list(scores[0]))
    assert list(fitted.rank("cats chase mice", 1)) == list(fitted.rank("cats chase mice", 4))[:1]


def test_words_of_two_languages():
    """Catches: a Chinese sentence as one word; stop words that decide the ranking; case."""
    assert bm25_words("What is the Normandy's name?") == ["normandy", "s", "name"]
    assert bm25_words("画蛇添足") == ["画", "蛇", "添", "足", "画蛇", "蛇添", "添足"]
    assert bm25_words("GPT2 模型") == ["gpt2", "模", "型", "模型"]


def test_questions_that_match_nothing(fitted):
    """Catches: a crash, or every passage returned with a score of 0."""
    assert fitted.rank("zebra", 4) == {} == fitted.rank("", 4) == fitted.rank("the of and", 4)


def test_corpus_of_stop_words_alone():
    """Catches: a division by the mean length 0."""
    model = Bm25()
    model.fit(["a", "b"], ["the of", "and"])
    assert model.rank("cats", 2) == {}


def test_search_protocol(fitted):
    """Catches: titles that mteb hands over and we ignore; a second corpus added to the first."""
    rows = [{"id": "x", "title": "moon", "text": "rock"}, {"id": "y", "title": "", "text": "z"}]
    fitted.index(Dataset.from_list(rows))
    found = fitted.search(Dataset.from_list([{"id": "q", "text": "moon cats"}]), top_k=5)
    assert list(found) == ["q"] and list(found["q"]) == ["x"]
    assert np.isfinite(found["q"]["x"])
