"""Ratio metrics: seconds per message, clicks per answer. The unit is the customer, the denominator is not.

Customers were randomised, messages were not: ten messages of one patient customer are not ten independent answers.
Counting each message as a unit makes intervals too narrow and finds effects where there are none. The delta method
treats the ratio as what it is, one sum over units divided by another:

    R = sum y / sum n        var(R) = (var(y) - 2 R cov(y, n) + R**2 var(n)) / (k * mean(n)**2)        k units

Source: Deng, Knoblich, Lu 2018, *Applying the delta method in metric analytics*, section 3.
"""

import numpy as np

from stage3_agents_llmops.experiments.effects import ALPHA, Effect, normal_effect


# exercise: experiments.ratio_variance
def ratio_variance(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Variance of `sum(numerator) / sum(denominator)` by the delta method.

    Args:
        numerator: a sum for every unit, (k,).
        denominator: the same units' sum, (k,); not all of them 0.
    """
    ratio = numerator.sum() / denominator.sum()
    covariance = np.cov(numerator, denominator)
    spread = covariance[0, 0] - 2 * ratio * covariance[0, 1] + ratio**2 * covariance[1, 1]
    return float(spread / (len(numerator) * denominator.mean() ** 2))
# end exercise


def compare_ratios(
    numerator_control: np.ndarray, denominator_control: np.ndarray,
    numerator_treatment: np.ndarray, denominator_treatment: np.ndarray, alpha: float = ALPHA,
) -> Effect:  # fmt: skip
    """The difference of two ratios, by unit.

    Raises:
        ValueError: an arm has fewer than two units, or a denominator of 0.
    """
    arms = [(np.asarray(n, float), np.asarray(d, float)) for n, d in (
        (numerator_control, denominator_control), (numerator_treatment, denominator_treatment))]  # fmt: skip
    if any(len(n) < 2 or d.sum() == 0 for n, d in arms):
        raise ValueError("a ratio needs two units in each arm and a denominator above 0")
    (one, two), variance = [n.sum() / d.sum() for n, d in arms], sum(ratio_variance(n, d) for n, d in arms)
    return normal_effect(float(one), float(two), variance, len(arms[0][0]), len(arms[1][0]), alpha)


def naive_ratio(
    control: np.ndarray, treatment: np.ndarray, alpha: float = ALPHA
) -> Effect:
    """Every event as if it were a unit: the negative control. Takes the events' values, not the units' sums."""
    variance = control.var(ddof=1) / len(control) + treatment.var(ddof=1) / len(treatment)
    return normal_effect(control.mean(), treatment.mean(), float(variance), len(control), len(treatment), alpha)
