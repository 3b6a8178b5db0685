"""Heads in NumPy beside scikit-learn's, which fitted them. Each test names the bug that it catches."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import data
from stage3_agents_llmops.agent.understanding.classifier import lowered, ngram_counter
from stage3_agents_llmops.agent.understanding.linear_heads import TextHead, VectorHead, ngrams_of

STRANGE = ["", " ", "a", "的", "a b", "\u3000退  货\n", "KM204817!!", "zzz qqq", "aa aa aa aa", "x" * 1000, "I'd, İ"]


@pytest.fixture(scope="module")
def fitted():
    """scikit-learn's own pipeline on both languages' requests, and texts that it has not seen."""
    sets = ("customer-service-en", "customer-service-zh")
    items = [item for name in sets for item in data.load_understanding(name, "train")]
    items, texts = items[::7], lowered([item.text for item in items[3::211]])
    pipeline = make_pipeline(ngram_counter(), LogisticRegression(C=10, max_iter=300))
    return pipeline.fit(lowered([item.text for item in items]), [item.intent for item in items]), texts


def test_texts_get_the_same_probabilities(fitted):
    """Catches: n-grams over the border of a word, counts that are not dampened, weights that are not normalised."""
    pipeline, texts = fitted
    ours = TextHead.of(pipeline).predict_proba(lowered([*texts, *STRANGE]))
    assert np.allclose(ours, pipeline.predict_proba(lowered([*texts, *STRANGE])), atol=1e-12)
    assert len(texts) > 10 and len(set(ours.argmax(axis=1))) > 3, "the texts must differ in what they want"


def test_n_grams_are_scikit_learns(fitted):
    """Catches: a short word that is counted once for each length."""
    analyse = ngram_counter().build_analyzer()
    for text in lowered([*fitted[1], *STRANGE]):
        assert sorted(ngrams_of(text)) == sorted(analyse(text))


def test_vectors_get_the_same_probabilities():
    """Catches: one sigmoid a class in place of a softmax over them."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((90, 8)).astype(np.float32)
    head = LogisticRegression().fit(vectors, [f"label {number % 3}" for number in range(90)])
    ours = VectorHead.of(head)
    assert ours.classes == ["label 0", "label 1", "label 2"]
    assert np.allclose(ours.predict_proba(vectors), head.predict_proba(vectors), atol=1e-6)
