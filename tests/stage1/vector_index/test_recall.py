"""Each test names the bug that it catches."""

import numpy as np
import pytest

from stage1_foundations.vector_index.recall import DEFINITION, GroundTruth, ground_truth, recall_at_k

LINE = np.array([[0.0], [1], [2], [3], [4], [4], [9]], np.float32)  # ids 4 and 5 are the same vector
TRUTH = ground_truth(np.array([[0.0]], np.float32), LINE, "l2", depth=5)


@pytest.mark.parametrize("found, k, expected", [
    ([0, 1, 2], 3, 1.0), ([2, 0, 1], 3, 1.0), ([0, 1, 3], 3, 2 / 3), ([0, 1, -1], 3, 2 / 3), ([-1, -1, -1], 3, 0.0),
    ([6, 6, 0], 3, 1 / 3), ([0, 0, 0], 3, 1 / 3), ([0, 1, 2, 3, 4], 5, 1.0), ([0, 1, 2, 3, 5], 5, 1.0),
    ([0, 1, 2, 3, 6], 5, 0.8), ([0, 1, 2, 6, 6], 2, 1.0),
])  # fmt: skip
def test_by_hand(found, k, expected):
    """Catches: order that counts, an id counted twice, -1 taken for the last vector, a tie refused, k ignored."""
    assert recall_at_k(np.array([found]), TRUTH, k) == pytest.approx(expected)


def test_exact_search_has_recall_one(vectors, queries, metric):
    """Catches: rounding taken for a miss."""
    truth = ground_truth(queries, vectors, metric, depth=20)
    assert recall_at_k(truth.ids, truth, 20) == 1.0 and recall_at_k(truth.ids, truth, 10) == 1.0


def test_it_is_not_one_nearest_neighbour_recall(vectors, queries):
    """Catches: "R@1 over all k columns", which asks only whether the very nearest is among the k."""
    truth = ground_truth(queries, vectors)
    found = np.full((100, 10), -1)
    found[:, 0] = truth.ids[:, 0]
    assert recall_at_k(found, truth) == pytest.approx(0.1)


def test_it_judges_by_the_vectors_not_by_the_index(vectors, queries):
    """Catches: an index that praises itself: recall must not use the scores that the index returned."""
    truth = ground_truth(queries, vectors)
    wrong = GroundTruth(truth.queries, truth.vectors[::-1], truth.metric, truth.ids)
    assert recall_at_k(truth.ids, wrong) == 1.0  # the threshold moves with the vectors ...
    assert recall_at_k(ground_truth(queries, vectors[::-1]).ids, truth) < 0.1  # ... and foreign ids are wrong


def test_definition_says_what_the_function_does():
    """Catches: a definition printed that lacks the tie or the repetition."""
    assert all(word in DEFINITION for word in ("share of the k results", "averaged", "tie", "twice counts once"))
