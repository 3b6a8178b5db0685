"""Each test names the bug that it catches."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage3_agents_llmops.monitoring.metrics import (
    DURATION_OBJECTIVE,
    EDGES,
    FIRST_EVENT_OBJECTIVE,
    FIRST_TOKEN_OBJECTIVE,
)
from stage3_agents_llmops.monitoring.quantiles import (
    bucket_counts,
    bucket_quantile,
    enough_for,
    exact_quantile,
    same_bucket,
    sure_quantile,
)

EDGES_ = EDGES["duration_s"]
SECONDS = st.lists(st.floats(0.001, 60.0), min_size=1, max_size=300)
QUANTILE = st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0])


def test_exact_is_the_nearest_rank():
    """Catches: an index one off, interpolation, values that were not sorted."""
    values = [3.0, 1.0, 2.0, 4.0]
    assert [exact_quantile(values, q) for q in (0.25, 0.26, 0.5, 0.75, 1.0)] == [1.0, 2.0, 2.0, 3.0, 4.0]
    assert values == [3.0, 1.0, 2.0, 4.0]


@given(SECONDS, QUANTILE)
def test_exact_is_numpys_inverted_cdf(values, q):
    """Catches: a definition that is not Hyndman and Fan's first."""
    assert exact_quantile(values, q) == np.quantile(values, q, method="inverted_cdf")


def test_buckets_by_hand():
    """Catches: interpolation from the wrong edge, a rank that counts the buckets below twice."""
    edges, counts = [0.1, 0.3, 1.0], [10, 30, 40, 40]
    assert bucket_quantile(edges, counts, 0.25) == pytest.approx(0.1)  # rank 10: the end of the first bucket
    assert bucket_quantile(edges, counts, 0.125) == pytest.approx(0.05)  # rank 5 of the 10 between 0 and 0.1
    assert bucket_quantile(edges, counts, 0.5) == pytest.approx(0.2)  # rank 20: 10 of the 20 above 0.1
    assert bucket_quantile(edges, counts, 0.95) == pytest.approx(0.3 + 0.7 * 0.8)


def test_buckets_at_the_ends():
    """Catches: a division by zero in an empty bucket, infinity for what lies past the last edge."""
    assert bucket_quantile([0.1, 0.3], [0, 0, 0], 0.5) is None
    assert bucket_quantile([0.1, 0.3], [0, 0, 7], 0.5) == 0.3
    assert bucket_quantile([0.0, 1.0], [4, 4, 4], 0.5) == 0.0
    assert bucket_quantile([0.1, 0.3, 1.0], [0, 0, 5, 5], 0.5) == pytest.approx(0.3 + 0.7 / 2)


@pytest.mark.parametrize(
    ("edges", "counts", "q"),
    [([0.1], [1], 0.5), ([0.1, 0.2], [3, 2, 3], 0.5), ([0.1], [1, 2], 0.0), ([0.1], [1, 2], 1.5), ([], [3], 0.5)],
)
def test_no_histogram_is_refused(edges, counts, q):
    """Catches: nonsense that is answered with a number."""
    with pytest.raises(ValueError, match=r"no histogram|no quantile"):
        bucket_quantile(edges, counts, q)


@given(SECONDS, QUANTILE)
def test_estimates_lie_in_the_exact_values_bucket(values, q):
    """Catches: a rank that is rounded the other way than the exact one: then the estimate falls one bucket off."""
    estimate = bucket_quantile(EDGES_, bucket_counts(values, EDGES_), q)
    exact = exact_quantile(values, q)
    assert same_bucket(min(estimate, EDGES_[-1]), min(exact, EDGES_[-1]), EDGES_) or exact > EDGES_[-1] == estimate


@given(SECONDS, SECONDS)
def test_counts_add_up(one, other):
    """Catches: buckets of two servers that give something else than the buckets of all their values."""
    both = [a + b for a, b in zip(bucket_counts(one, EDGES_), bucket_counts(other, EDGES_), strict=True)]
    assert both == bucket_counts(one + other, EDGES_)


def test_averaged_percentiles_are_wrong():
    """The negative control: what one must not do fails the property that the buckets have."""
    rng = random.Random(1)
    fast = [rng.lognormvariate(-1.2, 0.4) for _ in range(990)]
    slow = [rng.lognormvariate(0.6, 0.4) for _ in range(10)]
    exact = exact_quantile(fast + slow, 0.95)
    averaged = (exact_quantile(fast, 0.95) + exact_quantile(slow, 0.95)) / 2
    estimate = bucket_quantile(EDGES_, bucket_counts(fast + slow, EDGES_), 0.95)
    assert same_bucket(estimate, exact, EDGES_)
    assert not same_bucket(averaged, exact, EDGES_)


def test_the_objective_needs_an_edge():
    """Catches: buckets with no edge at the objective; then the share within it is a guess, with one it is exact."""
    for name, objective in (("duration_s", DURATION_OBJECTIVE), ("first_token_s", FIRST_TOKEN_OBJECTIVE),
                            ("first_event_s", FIRST_EVENT_OBJECTIVE)):  # fmt: skip
        assert objective in EDGES[name]
    values = [0.22] * 95 + [0.9] * 5  # true P95 0.22, the objective is 0.3
    with_edge, without = [0.1, 0.3, 0.9], [0.1, 0.45, 0.9]
    assert bucket_quantile(with_edge, bucket_counts(values, with_edge), 0.95) == pytest.approx(0.3)
    assert bucket_quantile(without, bucket_counts(values, without), 0.95) > 0.3


def test_too_few_samples_give_no_percentile():
    """Catches: a P99 of fifty runs on a dashboard."""
    assert [enough_for(q) for q in (0.5, 0.95, 0.99)] == [20, 200, 1000]
    assert sure_quantile([1.0] * 199, 0.95) is None
    assert sure_quantile([1.0] * 200, 0.95) == 1.0
    assert sure_quantile([1.0] * 40, 0.95, beyond=2) == 1.0
    assert sure_quantile([], 0.5) is None
