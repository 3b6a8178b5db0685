"""Each test names the bug that it catches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from stage1_foundations.first_rag.evidence import EvidenceGate, calibrate, default_threshold, evidence, grounded
from stage1_foundations.first_rag.words import WordWeights

values = st.lists(st.integers(0, 20).map(lambda number: number / 20), min_size=1, max_size=12)


def balanced(threshold: float, positive: list[float], negative: list[float]) -> float:
    return np.mean(np.asarray(positive) >= threshold) + np.mean(np.asarray(negative) < threshold)


@settings(max_examples=200, deadline=None)
@given(values, values)
def test_no_threshold_is_better_than_the_calibrated_one(positive, negative):
    """Catches: >= taken for >, shares of unequal groups added as counts, the ends left out."""
    found = balanced(calibrate(positive, negative), positive, negative)
    assert found == pytest.approx(max(balanced(step / 40, positive, negative) for step in range(-1, 43)))


def test_threshold_lies_between_the_values():
    """Catches: a threshold on top of a value, where rounding decides."""
    assert calibrate([0.8, 0.9], [0.2, 0.4]) == pytest.approx(0.6)


def node(text: str, score: float | None) -> NodeWithScore:
    return NodeWithScore(node=TextNode(text=text), score=score)


def test_evidence_by_hand():
    """Catches: the mean over nodes in place of the best, a node without a score, a threshold of 0 that refuses."""
    weights = WordWeights(["red lamp", "blue fan"])
    nodes = [node("a red lamp", 0.5), node("nothing", 0.9)]
    assert evidence("red lamp", nodes, weights) == pytest.approx(0.75)
    assert evidence("red lamp", [node("red lamp", None)], weights) == pytest.approx(0.5)
    assert evidence("red lamp", [], weights) == 0.0
    assert evidence("red lamp", [node("nothing", -0.5)], weights) == 0.0


def test_gate_lets_all_through_or_nothing():
    """Catches: a gate that keeps the weak nodes, refuses at equality, or forgets what it measured."""
    weights = WordWeights(["red lamp"])
    nodes, query = [node("red lamp", 0.5), node("fan", 0.1)], QueryBundle("red lamp")
    gate = EvidenceGate(weights, 0.75)
    assert gate.postprocess_nodes(nodes, query) == nodes and gate.latest == pytest.approx(0.75)
    gate = EvidenceGate(weights, 0.7501)
    assert gate.postprocess_nodes(nodes, query) == [] and gate.latest == pytest.approx(0.75)


def test_grounded_finds_the_text_and_the_invention():
    """Catches: a citation of the wrong text, and an invented name that passes."""
    texts = ["The kettle holds two litres.", "The fan has three speeds."]
    weights = WordWeights(texts)
    assert grounded("It has three speeds.", texts, weights) == 1
    assert grounded("Leonardo painted it in Milan.", texts, weights) is None
    assert grounded("anything", [], weights) is None


def test_default_thresholds_fit_the_encoder():
    """Catches: MiniLM's threshold for E5, whose cosines of unrelated texts are 0.8: it would let everything through."""
    assert default_threshold("e5") > 0.8 / 2 + 0.15 > default_threshold("minilm") == default_threshold("some/other")
