"""Fusion, exact search, words, and asking again. Each test names the bug that it catches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db.exact import exact_neighbours, recall_at_k
from stage2_rag_finetune_deploy.vector_db.fusion import rrf_fuse
from stage2_rag_finetune_deploy.vector_db.lexical import LexicalIndex, cut_terms
from stage2_rag_finetune_deploy.vector_db.patience import ask
from stage2_rag_finetune_deploy.vector_db.store import CollectionSpec

patient = settings(deadline=None)  # a busy machine is no failure

names = st.lists(st.sampled_from("abcdefgh"), unique=True)


def test_rrf_by_hand():
    """Catches: ranks from 0, the constant left out, weights that are ignored."""
    fused = rrf_fuse([["a", "b", "c"], ["c", "a"]], [0.5, 0.5])
    assert [name for name, _ in fused] == ["a", "c", "b"]
    assert fused[0][1] == pytest.approx(0.5 / 61 + 0.5 / 62)
    assert rrf_fuse([["a", "b"], ["c"]], [0.2, 0.8])[0] == ("c", pytest.approx(0.8 / 61))
    assert rrf_fuse([["a"], ["b"]], [1.0, 0.0]) == [("a", pytest.approx(1 / 61))]
    assert rrf_fuse([["a", "a", "b"]], [1.0])[1] == ("b", pytest.approx(1 / 62))
    assert rrf_fuse([], []) == []


@patient
@given(first=names, second=names)
def test_rrf_properties(first, second):
    """Catches: an id twice, an id lost, a better rank that scores worse."""
    fused = rrf_fuse([first, second], [0.5, 0.5])
    assert sorted(name for name, _ in fused) == sorted(set(first) | set(second))
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    alone = [name for name, _ in rrf_fuse([first, []], [0.5, 0.5])]
    assert alone == first


@pytest.mark.parametrize("k", [1, 7, 300])
def test_exact_neighbours_are_those_of_a_full_sort(k):
    """Catches: a partial sort that is not sorted, long vectors that win by their length, blocks that overlap."""
    draw = np.random.default_rng(0)
    vectors, queries = draw.normal(size=(300, 6)) * draw.uniform(0.1, 9, size=(300, 1)), draw.normal(size=(520, 6))
    cosines = queries @ vectors.T / np.linalg.norm(vectors, axis=1)
    np.testing.assert_array_equal(exact_neighbours(queries, vectors, k), np.argsort(-cosines, axis=1)[:, :k])


def test_recall_by_hand():
    """Catches: recall over what was found instead of over k; order that matters."""
    assert recall_at_k([[1, 2, 3], [4]], [[3, 2, 9], [4, 5, 6]], 3) == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_terms():
    """Catches: Chinese as one word, plurals apart, an underscore or accent that cuts a word."""
    assert cut_terms("Two Badgers' class, naïve_x 42!") == ["two", "badger", "class", "naïve_x", "42"]
    assert cut_terms("关羽骑马, 好 GPT模型") == ["关羽", "羽骑", "骑马", "好", "gpt", "模型"]
    assert cut_terms(" ?! ") == []


def test_lexical_index_leaves_out_what_shares_no_term():
    """Catches: zeros that fill up the answer, an empty corpus or vocabulary that crashes, a filter after the cut."""
    index = LexicalIndex(["a", "b", "c"], ["red fox", "red red", ""])
    assert [name for name, _ in index.search("red blue", 5)] == ["b", "a"]
    assert [name for name, _ in index.search("red", 1, {"a"})] == ["a"]
    assert index.search("blue", 5) == index.search("", 5) == []
    assert LexicalIndex([], []).search("x", 3) == LexicalIndex(["a"], ["!"]).search("x", 3) == []


def test_ask_goes_on_while_the_server_is_away():
    """Catches: giving up at the first refusal; asking for ever; asking again what will never be right."""
    tries = []

    def call() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("connection refused")
        return "here"

    def is_passing(why: str) -> bool:
        return "refused" in why

    assert ask(call, "read", "the server", 5, (ConnectionError,), is_passing) == "here" and len(tries) == 3
    tries.clear()
    with pytest.raises(LabError, match="lost the server, could not read for 0 s: connection refused") as caught:
        ask(call, "read", "the server", 0, (ConnectionError,), is_passing)
    assert "acknowledged is kept" in caught.value.try_next
    tries.clear()
    with pytest.raises(LabError, match="refused to read: connection refused"):
        ask(call, "read", "the server", 5, (ConnectionError,), lambda why: False)
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"name": "Docs"}, "cannot be called 'Docs'"),
        ({"name": "a b"}, "cannot be called"),
        ({"dimensions": 0}, "0 dimensions"),
        ({"fields": {"id": str}}, "cannot be called 'id'"),
        ({"fields": {"Ümlaut": str}}, "cannot be called"),
        ({"fields": {"tags": list}}, "has the type"),
        ({"index": "ivf"}, "unknown index 'ivf'"),
    ],
)
def test_a_spec_that_some_store_would_refuse(values, word):
    """Catches: a name that works in one store and not in the next."""
    with pytest.raises(LabError, match=word):
        CollectionSpec(**{"name": "docs", "dimensions": 4} | values)


def test_a_spec_survives_json():
    """Catches: a type or setting that is lost on the way to the disk."""
    spec = CollectionSpec("docs", 4, {"a": str, "b": int, "c": float, "d": bool}, "flat", 8, 100, 32)
    assert CollectionSpec.from_json(spec.to_json()) == spec
    for text in ("", "{}", "[]", '{"name": "x"}', spec.to_json().replace('"str"', '"list"')):
        with pytest.raises(ValueError):
            CollectionSpec.from_json(text)
