"""Oracles: scipy's bootstrap, its permutation test and its Spearman. Each test names the bug that it catches."""

import numpy as np
import pytest
from scipy import stats

from stage1_foundations.embeddings.bootstrap import (
    Items,
    interval,
    pair_weights,
    paired_bootstrap,
    replicate_scores,
    resample_counts,
    tied_with_best,
    weighted_spearman,
)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """Scores of 80 queries, half of them 0 or 1, as nDCG is."""
    rng = np.random.default_rng(5)
    return np.where(rng.random(80) < 0.5, rng.integers(0, 2, 80), rng.random(80))


def test_counts_are_resamples_of_the_right_size():
    """Catches: drawing without replacement, or more or fewer items than there are."""
    counts = resample_counts(30, 500, seed=1)
    assert counts.shape == (500, 30) and (counts.sum(axis=1) == 30).all()
    assert (counts > 1).any() and (counts == 0).any()
    assert np.array_equal(counts, resample_counts(30, 500, seed=1))
    assert not np.array_equal(counts, resample_counts(30, 500, seed=2))


def test_interval_of_a_mean_equals_scipys(values):
    """Catches: a standard error where an interval belongs, the wrong quantiles, a biased resample.

    Both draw 4,000 resamples; the ends of two such intervals differ by about 2 % of the width, 6 % is three times that.
    """
    low, high = interval(replicate_scores(Items("mean", values), draws=4000))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile",
                             rng=np.random.default_rng(0)).confidence_interval  # fmt: skip
    assert [low, high] == pytest.approx([theirs.low, theirs.high], abs=0.06 * (high - low))


def test_interval_of_a_correlation_equals_scipys():
    """Catches: ranking once before resampling, or a resample that takes the two sides apart."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=60)
    second = first + rng.normal(size=60)
    items = Items("spearman", first, second, np.arange(120).reshape(60, 2))
    low, high = interval(replicate_scores(items, draws=1500))
    theirs = stats.bootstrap((first, second), lambda a, b: stats.spearmanr(a, b).statistic, paired=True,
                             n_resamples=1500, method="percentile", vectorized=False,
                             rng=np.random.default_rng(0)).confidence_interval  # fmt: skip
    assert [low, high] == pytest.approx([theirs.low, theirs.high], abs=0.08 * (high - low))


def test_weighted_spearman_is_spearman_of_the_repeated_items():
    """Catches: weights that multiply ranks instead of repeating items."""
    rng = np.random.default_rng(2)
    first, second, weights = rng.normal(size=20), rng.normal(size=20), rng.integers(0, 4, 20)
    rows = np.repeat(np.arange(20), weights)
    assert weighted_spearman(first, second, weights) == pytest.approx(stats.spearmanr(first[rows], second[rows])[0])


def test_all_pairs_of_few_texts_are_not_independent():
    """Catches: 1,225 pairs of 50 texts treated as 1,225 items, which makes the interval far too small."""
    rng = np.random.default_rng(3)
    texts = rng.normal(size=(30, 4))
    rows, columns = np.triu_indices(30, k=1)
    cosine = (texts[rows] * texts[columns]).sum(axis=1)
    rating = cosine + rng.normal(size=len(rows))
    every_pair = Items("spearman", cosine, rating, np.stack([rows, columns], axis=1))
    assert (pair_weights(every_pair, 20, seed=1).sum(axis=1) != len(rows)).any()
    apart = Items("spearman", cosine, rating, np.arange(2 * len(rows)).reshape(-1, 2))
    widths = [np.subtract(*reversed(interval(replicate_scores(items, draws=300)))) for items in (every_pair, apart)]
    assert widths[0] > 1.2 * widths[1]


def test_paired_bootstrap_agrees_with_a_permutation_test(values):
    """Catches: an unpaired test (which would see nothing here), a one-sided p, a sign error."""
    rng = np.random.default_rng(7)
    after = values + 0.02 + rng.normal(0, 0.08, len(values))
    ours = paired_bootstrap(values, after)
    theirs = stats.permutation_test((after - values,), np.mean, permutation_type="samples", n_resamples=5000,
                                    rng=np.random.default_rng(0))  # fmt: skip
    assert ours.difference == pytest.approx((after - values).mean())
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert stats.ttest_ind(values, after).pvalue > 0.3  # the unpaired test
    back = paired_bootstrap(after, values)
    assert back.difference == pytest.approx(-ours.difference)
    assert [back.low, back.high] == pytest.approx([-ours.high, -ours.low])


def test_p_value_is_never_zero_and_one_for_no_difference(values):
    """Catches: p = 0 from 10,000 draws, and a significant nothing."""
    clear = paired_bootstrap(values, values + 1)
    assert 0 < clear.p < 0.001 and clear.significant
    nothing = paired_bootstrap(values, values)
    assert nothing.p == 1.0 and not nothing.significant


def test_false_alarms_are_rare():
    """Catches: intervals that are too small: of 200 comparisons of equals, about 5 % may be significant."""
    rng = np.random.default_rng(11)
    alarms = sum(paired_bootstrap(*rng.normal(size=(2, 60)), draws=400).significant for _ in range(200))
    assert alarms <= 22  # 10 expected, standard deviation 3.1


def test_ties_with_the_best():
    """Catches: ties read off overlapping intervals: b loses to the best on every single query, c only sometimes."""
    rng = np.random.default_rng(4)
    best = rng.random(100)
    models = {"a": best, "b": best - 0.02, "c": best + rng.normal(-0.005, 0.3, 100), "d": best - 0.5}
    draws = {name: replicate_scores(Items("mean", values), seed=9) for name, values in models.items()}
    assert tied_with_best(draws, {name: values.mean() for name, values in models.items()}) == {"a", "c"}


def test_replicates_are_taken_as_they_are():
    """Catches: the spread of a clustering's scores shrunk by averaging them."""
    values = np.array([0.1, 0.2, 0.3, 0.4])
    assert set(replicate_scores(Items("replicates", values), draws=200)) == set(values)
