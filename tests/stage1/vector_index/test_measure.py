"""Each test names the bug that it catches."""

import math

import pytest

from stage1_foundations.vector_index.measure import Point, pareto, qps_at


def points(*pairs: tuple[float, float]) -> list[Point]:
    """Recall and QPS; batches are ten times as fast."""
    return [Point("x", 0, recall, qps, 1, 1, 10 * qps) for recall, qps in pairs]


def test_interpolates_between_the_neighbours():
    """Catches: linear instead of logarithmic QPS; the points on the wrong side."""
    line = points((0.8, 1000), (0.9, 400), (1.0, 100))
    assert qps_at(line, 0.9) == pytest.approx(400)
    assert qps_at(line, 0.95) == pytest.approx(math.sqrt(400 * 100))
    assert qps_at(line, 0.95, batch=True) == pytest.approx(10 * math.sqrt(400 * 100))


def test_never_extrapolates():
    """Catches: a speed at a recall that was never reached; one beyond the fastest point."""
    line = points((0.8, 1000), (0.9, 400))
    assert qps_at(line, 0.91) is None
    assert qps_at(line, 0.5) == 1000


def test_a_point_that_is_slower_and_worse_does_not_count():
    """Catches: an interpolation through a hiccup of the machine."""
    line = points((0.8, 1000), (0.85, 50), (0.9, 400))
    assert [point.recall for point in pareto(line)] == [0.8, 0.9]
    assert qps_at(line, 0.85) == pytest.approx(math.sqrt(1000 * 400))


def test_pareto_of_equal_recalls_keeps_the_faster():
    """Catches: a division by zero between two points of the same recall."""
    line = points((0.9, 100), (0.9, 300), (1.0, 50))
    assert [(point.recall, point.qps) for point in pareto(line)] == [(0.9, 300), (1.0, 50)]
    assert qps_at(line, 0.9) == 300
