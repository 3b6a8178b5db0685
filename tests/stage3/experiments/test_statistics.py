"""The statistics against scipy, the bootstrap and simulation. Each test names the bug that it catches."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from labkit.errors import LabError
from stage3_agents_llmops.experiments.cuped import compare_cuped, cuped_adjust, variance_saved
from stage3_agents_llmops.experiments.guardrails import guardrail, margin_in_units
from stage3_agents_llmops.experiments.means import compare_means
from stage3_agents_llmops.experiments.peeking import (
    BONFERRONI,
    MSPRT,
    NAIVE,
    SEQUENCE,
    alarms,
    p_values,
    simulate,
    stopping_units,
)
from stage3_agents_llmops.experiments.power import (
    plan,
    power_of,
    sequential_units_needed,
    smallest_effect,
    units_needed,
)
from stage3_agents_llmops.experiments.proportions import compare_proportions, sequential_variance, wald
from stage3_agents_llmops.experiments.ratio_metrics import compare_ratios, naive_ratio, ratio_variance
from stage3_agents_llmops.experiments.sample_ratio import alarm_power, sample_ratio
from stage3_agents_llmops.experiments.sequential import (
    always_valid_p,
    confidence_sequence,
    msprt,
    sequence_half_width,
    tuning,
)

# ------------------------------------------------------------------------------------------------ proportions, means


def test_proportions_against_scipy_and_newcombes_table():
    """Catches: limits combined crosswise the wrong way. Newcombe 1998, table II, method 10: 56/70 and 48/80."""
    effect = compare_proportions(48, 80, 56, 70)
    assert effect.difference == pytest.approx(0.2)
    assert (effect.low, effect.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    table = [[48, 32], [56, 14]]
    assert effect.p_value == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def test_newcombes_interval_covers_where_walds_does_not():
    """Catches: an interval too narrow for a canary of 20. 95 % against 80 %, exact: every outcome with its chance."""
    chance = np.outer(stats.binom.pmf(range(21), 20, 0.95), stats.binom.pmf(range(21), 20, 0.8))
    covered = {"newcombe": 0.0, "wald": 0.0}
    for (a, b), weight in np.ndenumerate(chance):
        if weight > 1e-7:
            effect, (low, high) = compare_proportions(a, 20, b, 20), wald(a, 20, b, 20)
            covered["newcombe"] += weight * (effect.low <= -0.15 <= effect.high)
            covered["wald"] += weight * (low <= -0.15 <= high)
    assert covered["newcombe"] > 0.945
    assert covered["wald"] < 0.935
    assert wald(20, 20, 20, 20) == (0, 0)  # all satisfied: Wald knows everything, for certain
    assert compare_proportions(20, 20, 20, 20).high > 0.1


def test_the_sequential_variance_never_vanishes():
    """Catches: ten satisfied customers and a variance of 0."""
    assert sequential_variance(10, 10) > 0
    assert sequential_variance(8000, 10_000) == pytest.approx(0.8 * 0.2 / 10_000, rel=1e-3)


def test_means_are_welchs():
    """Catches: Student's pooled variance, which is wrong for arms of different size and spread."""
    draw = np.random.default_rng(2)
    one, two = draw.normal(0, 1, 400), draw.normal(0.3, 5, 60)
    effect, test = compare_means(one, two), stats.ttest_ind(two, one, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (effect.low, effect.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert effect.p_value == pytest.approx(test.pvalue)
    assert effect.variance == pytest.approx(one.var(ddof=1) / 400 + two.var(ddof=1) / 60)
    assert effect.p_value != pytest.approx(stats.ttest_ind(two, one).pvalue, rel=0.05)


def test_means_of_equal_values():
    """Catches: NaN where nobody differs."""
    effect = compare_means(np.ones(5), np.ones(4))
    assert (effect.difference, effect.p_value, effect.low, effect.high) == (0, 1, 0, 0)
    with pytest.raises(ValueError, match="two units"):
        compare_means(np.ones(1), np.ones(4))


# ------------------------------------------------------------------------------------------------ CUPED


def spend(draw: np.random.Generator, units: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    before = draw.lognormal(3, 0.6, units)
    return before * draw.lognormal(0, 0.3, units) + effect, before


def test_cuped_by_hand():
    """Catches: theta upside down, or the mean of one arm only."""
    y, x = np.array([1.0, 2, 3, 6]), np.array([0.0, 1, 2, 3])
    theta = 8 / 5  # sum of (x - 1.5)(y - 3) is 8, of (x - 1.5)**2 is 5
    control, treatment = cuped_adjust(y[:2], x[:2], y[2:], x[2:])
    assert np.concatenate([control, treatment]) == pytest.approx(y - theta * (x - 1.5))
    same = cuped_adjust(y[:2], np.ones(2), y[2:], np.ones(2))
    assert np.concatenate(same) == pytest.approx(y)


def test_cuped_saves_what_the_correlation_promises():
    """Catches: an adjustment that saves less than corr**2, or that shifts the effect."""
    draw = np.random.default_rng(3)
    (yc, xc), (yt, xt) = spend(draw, 4000), spend(draw, 4000, 1.0)
    plain, adjusted = compare_means(yc, yt), compare_cuped(yc, xc, yt, xt)
    saved = 1 - adjusted.variance / plain.variance
    assert saved == pytest.approx(variance_saved(np.r_[yc, yt - 1], np.r_[xc, xt]), abs=0.01)
    assert saved > 0.6
    assert adjusted.low < 1.0 < adjusted.high and adjusted.high - adjusted.low < 0.65 * (plain.high - plain.low)


def test_cuped_keeps_its_promise_under_no_effect_and_covers_under_one():
    """Catches: intervals that are too narrow. 1,500 experiments of 100 users an arm, between 3.3 and 6.7 %."""
    draw = np.random.default_rng(4)
    missed = 0
    for _ in range(1500):
        (yc, xc), (yt, xt) = spend(draw, 100), spend(draw, 100, 2.0)
        effect = compare_cuped(yc, xc, yt, xt)
        missed += not effect.low <= 2.0 <= effect.high
    assert 0.033 < missed / 1500 < 0.067


def test_a_covariate_that_the_treatment_changes_takes_the_effect_away():
    """Catches: a test of CUPED that nothing fails: x must be from before."""
    draw = np.random.default_rng(5)
    (yc, xc), (yt, _) = spend(draw, 3000), spend(draw, 3000, 3.0)
    during_control, during_treatment = yc + draw.normal(0, 1, 3000), yt + draw.normal(0, 1, 3000)
    assert compare_cuped(yc, xc, yt, yt * 0 + xc.mean()).difference > 1.5
    assert abs(compare_cuped(yc, during_control, yt, during_treatment).difference) < 0.3


# ------------------------------------------------------------------------------------------------ ratios


def messages(draw: np.random.Generator, units: int) -> list[np.ndarray]:
    """Seconds of every message, by user: some are slow typists in all of theirs."""
    count = 1 + draw.poisson(draw.gamma(1.0, 6.0, units))
    return [pace * draw.gamma(4, 0.25, n) for pace, n in zip(draw.lognormal(0, 0.5, units), count, strict=True)]


def test_ratio_variance_by_hand_and_by_bootstrap():
    """Catches: a forgotten covariance. 4,000 bootstrap samples of users, within 8 %."""
    top, bottom = np.array([2.0, 4, 6]), np.array([1.0, 2, 3])
    assert ratio_variance(top, bottom) == pytest.approx(0)  # the same ratio for everybody
    assert ratio_variance(np.array([1.0, 0, 1, 0]), np.ones(4)) == pytest.approx(1 / 3 / 4)  # a plain mean
    draw = np.random.default_rng(6)
    users = messages(draw, 800)
    top, bottom = np.array([u.sum() for u in users]), np.array([len(u) for u in users], float)
    picks = draw.integers(0, 800, (4000, 800))
    again = top[picks].sum(axis=1) / bottom[picks].sum(axis=1)
    assert ratio_variance(top, bottom) == pytest.approx(again.var(), rel=0.08)


def test_messages_as_units_find_effects_that_are_not_there():
    """Catches: the unit of analysis smaller than the unit of randomisation. 400 A/A tests: < 8 % against > 25 %."""
    draw = np.random.default_rng(7)
    right = wrong = 0
    for _ in range(400):
        one, two = messages(draw, 150), messages(draw, 150)
        sums = [(np.array([u.sum() for u in arm]), np.array([len(u) for u in arm], float)) for arm in (one, two)]
        right += compare_ratios(*sums[0], *sums[1]).p_value < 0.05
        wrong += naive_ratio(np.concatenate(one), np.concatenate(two)).p_value < 0.05
    assert right / 400 < 0.08
    assert wrong / 400 > 0.25


def test_ratios_that_are_none():
    """Catches: a division by 0."""
    with pytest.raises(ValueError, match="denominator above 0"):
        compare_ratios(np.ones(3), np.zeros(3), np.ones(3), np.ones(3))


# ------------------------------------------------------------------------------------------------ sample ratio

HALF = {"control": 50, "treatment": 50}


@pytest.mark.parametrize(
    ("counts", "p_value"), [((5000, 5150), 0.137), ((5000, 5250), 0.0136), ((10_000, 9_200), 7.8e-9)]
)
def test_sample_ratio_by_hand(counts, p_value):
    """Catches: an alarm on ordinary luck, or none on 8 % lost."""
    found = sample_ratio(dict(zip(HALF, counts, strict=True)), HALF)
    assert found.p_value == pytest.approx(p_value, rel=0.03)
    assert found.alarm == (p_value < 0.001)
    assert sum(found.expected.values()) == pytest.approx(sum(counts))


def test_sample_ratio_follows_the_weights():
    """Catches: every split taken for 50/50; an arm that nobody is in left out; users in an arm of weight 0."""
    assert not sample_ratio({"a": 9010, "b": 990}, {"a": 90, "b": 10}).alarm
    assert sample_ratio({"a": 9010, "b": 990}, HALF | {"a": 50, "b": 50, "control": 0, "treatment": 0}).alarm
    assert sample_ratio({"control": 300}, HALF).alarm
    assert sample_ratio({"control": 100, "treatment": 100, "old": 3}, HALF | {"old": 0}).p_value == 0
    assert sample_ratio({}, HALF).p_value == 1 and not sample_ratio({}, HALF).enough
    assert sample_ratio({"a": 7}, {"a": 100}).p_value == 1


def test_the_alarm_catches_a_loss_of_8_per_cent():
    """Catches: a threshold that is too strict. The bar: 20,000 users, power 0.95; 1,000 simulations."""
    draw = np.random.default_rng(8)
    first = draw.binomial(20_000, 0.5, 1000)
    kept = draw.binomial(20_000 - first, 0.92)
    caught = np.mean([
        sample_ratio(dict(zip(HALF, map(int, pair), strict=True)), HALF).alarm
        for pair in zip(first, kept, strict=True)
    ])  # fmt: skip
    assert caught >= 0.95
    assert caught == pytest.approx(alarm_power(20_000, 0.08), abs=0.015)
    assert alarm_power(20_000, 0.0) == pytest.approx(0.001)
    assert alarm_power(20_000, 0.05) == pytest.approx(0.614, abs=0.005)
    quiet = draw.binomial(20_000, 0.5, 1000)
    assert np.mean([sample_ratio({"control": int(n), "treatment": 20_000 - int(n)}, HALF).alarm for n in quiet]) < 0.006


# ------------------------------------------------------------------------------------------------ sequential


def test_msprt_is_the_mixture_of_likelihood_ratios():
    """Catches: a wrong closed form. Against the integral over the effects, scipy's quad."""
    difference, variance, tau = 0.031, 0.0002, 0.02
    mixture, _ = quad(
        lambda effect: stats.norm.pdf(difference, effect, math.sqrt(variance)) * stats.norm.pdf(effect, 0, tau), -1, 1,
        points=[0, difference],
    )  # fmt: skip
    expected = math.log(mixture / stats.norm.pdf(difference, 0, math.sqrt(variance)))
    assert float(msprt(np.float64(difference), np.float64(variance), tau)) == pytest.approx(expected, rel=1e-6)


def test_always_valid_p_never_rises():
    """Catches: a p-value that forgets an earlier look."""
    expected = [1, math.exp(-2), math.exp(-2), math.exp(-3)]
    assert always_valid_p(np.array([-1.0, 2.0, 1.0, 3.0])) == pytest.approx(expected)


def test_the_confidence_sequence_is_growthbooks():
    """Catches: another rho, another n. The formula of gbstats, written out once more with N* = 5000."""
    rho = math.sqrt((-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 5000)
    assert tuning() == pytest.approx(rho)
    n, s2 = 8000, 0.64
    grown = n * rho**2 + 1
    wanted = math.sqrt(s2) * math.sqrt(2 * grown * math.log(math.sqrt(grown) / 0.05) / (n * rho) ** 2)
    assert float(sequence_half_width(np.float64(s2 / n), np.float64(n))) == pytest.approx(wanted)
    assert confidence_sequence(0.1, s2 / n, n) == (pytest.approx(0.1 - wanted), pytest.approx(0.1 + wanted))
    assert confidence_sequence(0.0, 0.0, 10) == (-np.inf, np.inf)


def test_the_sequence_is_tightest_where_it_was_tuned():
    """Catches: a tuning that is off. Its width over the fixed one, smallest near N*."""
    n = np.arange(500, 40_000, 100.0)
    ratio = sequence_half_width(1 / n, n, 5000) / (1.96 * np.sqrt(1 / n))
    assert 4000 < n[ratio.argmin()] < 6500
    assert ratio.min() == pytest.approx(1.55, abs=0.02)


def test_peeking_raises_false_alarms_and_sequential_tests_do_not():
    """Catches: a sequential test that does not hold. The bar: 40 looks, 1,000 A/A tests, <= 5 % against about 30 %."""
    paths = simulate(1000, 4000, 40, 0.8, seed=1)
    rates = {way: stopped[:, -1].mean() for way, stopped in alarms(paths, 0.03, 8000).items()}
    assert 0.25 < rates[NAIVE] < 0.38
    assert rates[MSPRT] <= 0.05 and rates[SEQUENCE] <= 0.05 and rates[BONFERRONI] <= 0.05
    assert (p_values(paths)[:, -1] < 0.05).mean() < 0.08  # one look at the end keeps its promise


@pytest.mark.parametrize("way", [MSPRT, SEQUENCE])
def test_sequential_tests_find_real_effects_sooner_than_planned(way):
    """Catches: a test that never says anything. +4 points on 80 %: found in > 90 %, on average in half the users."""
    paths = simulate(1000, 4000, 40, 0.8, 0.04, seed=2)
    stopped = alarms(paths, 0.03, 8000)[way]
    assert stopped[:, -1].mean() > 0.9
    assert stopping_units(stopped, paths.units) < 2400


def test_the_simulation_is_that_of_single_users():
    """Catches: looks that are not cumulative. Variance of the difference at the last look against theory."""
    paths = simulate(4000, 1000, 10, 0.3, seed=3)
    assert list(paths.units) == list(range(100, 1001, 100))
    assert paths.difference[:, -1].var() == pytest.approx(2 * 0.21 / 1000, rel=0.1)
    both = np.corrcoef(paths.difference[:, 4], paths.difference[:, 9])[0, 1]
    assert both == pytest.approx(math.sqrt(0.5), abs=0.04)  # half the users are the same


# ------------------------------------------------------------------------------------------------ guardrails, power


@pytest.mark.parametrize(("low", "high", "better", "verdict"), [
    (-0.05, -0.01, "higher", "harmed"), (-0.05, 0.01, "higher", "undecided"), (-0.01, 0.04, "higher", "safe"),
    (0.01, 0.05, "higher", "safe"), (0.01, 0.05, "lower", "harmed"), (-0.04, 0.01, "lower", "safe"),
    (-0.04, 0.03, "lower", "undecided"), (-np.inf, np.inf, "higher", "undecided"), (-0.015, -0.005, "higher", "safe"),
    (0.005, 0.015, "lower", "safe"), (-0.03, -0.001, "higher", "harmed"),
])  # fmt: skip
def test_guardrails(low, high, better, verdict):
    """Catches: "not significant" taken for safe; a direction turned round; an accepted loss taken for harm."""
    assert guardrail(low, high, 0.02, better).verdict == verdict


def test_margins():
    """Catches: percentage points taken for per cent."""
    assert margin_in_units("proportion", 2, 0.5) == pytest.approx(0.02)
    assert margin_in_units("ratio", 10, 1.5) == pytest.approx(0.15)


def test_units_needed_against_simulation():
    """Catches: a one-sided z, a variance of one arm. 80 % against 83 %: 2,626 an arm, power .8 in 4,000 experiments."""
    units = units_needed(0.03, 0.16, 0.83 * 0.17)
    assert units == 2626
    draw = np.random.default_rng(9)
    one, two = draw.binomial(units, 0.8, 4000) / units, draw.binomial(units, 0.83, 4000) / units
    error = np.sqrt(one * (1 - one) / units + two * (1 - two) / units)
    assert np.mean(np.abs(two - one) / error > 1.96) == pytest.approx(0.8, abs=0.025)
    assert power_of(units, 0.03, 0.16, 0.83 * 0.17) == pytest.approx(0.8, abs=0.002)
    assert power_of(units, 0.0, 0.16, 0.16) == pytest.approx(0.05)
    assert smallest_effect(units, 0.16, 0.83 * 0.17) == pytest.approx(0.03, abs=1e-4)


def test_power_against_scipys():
    """Catches: a normal approximation that is off for means. scipy.stats.power simulates the t-test."""
    draw = np.random.default_rng(10)
    found = stats.power(
        stats.ttest_ind, (lambda size: draw.normal(0, 1, size), lambda size: draw.normal(0.4, 1, size)), (80, 80),
        significance=0.05, n_resamples=2000,
    ).power  # fmt: skip
    assert power_of(80, 0.4, 1, 1) == pytest.approx(found, abs=0.035)


def test_sequential_plan_keeps_its_power():
    """Catches: a planner that promises too much. 1,000 experiments with 40 looks."""
    units = sequential_units_needed(0.03, 0.16, 0.83 * 0.17)
    assert 1.6 < units / 2626 < 2.2
    paths = simulate(1000, units, 40, 0.8, 0.03, seed=4)
    assert 0.78 < alarms(paths, 0.03, 2 * units)[SEQUENCE][:, -1].mean() < 0.9


def test_plan_in_days():
    """Catches: days for both arms together, traffic forgotten."""
    wanted = plan(0.03, 0.16, 0.83 * 0.17, units_per_day=500, traffic=0.5, smaller_arm=0.1)
    assert wanted.days == pytest.approx(2626 / (500 * 0.5 * 0.1))
    with pytest.raises(LabError, match="an effect of 0 cannot be found"):
        plan(0, 1, 1, 100)
    with pytest.raises(LabError, match="no units come in"):
        plan(1, 1, 1, 0)
