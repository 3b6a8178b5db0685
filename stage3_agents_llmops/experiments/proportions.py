"""Two proportions: resolved or not, thumbs up or not. One yes or no for every unit.

The interval is Newcombe's: Wilson's limits of both arms, combined. The textbook's `difference +- 1.96 standard errors`
(Wald) is too narrow where it matters in a canary: few units, rates near 0 or 1; and at 0 of 20 its width is zero.
"""

import math

from scipy.stats import binomtest, norm

from stage3_agents_llmops.experiments.effects import ALPHA, Effect


def compare_proportions(
    yes_control: int, control: int, yes_treatment: int, treatment: int, alpha: float = ALPHA
) -> Effect:
    """The difference of two proportions with Newcombe's interval and the p-value of the pooled z-test.

    Source: Newcombe 1998, method 10. The p-value is that of Pearson's chi-square without a correction.

    Raises:
        ValueError: an arm is empty, or holds more successes than units.
    """
    one = binomtest(yes_control, control).proportion_ci(1 - alpha, method="wilson")
    two = binomtest(yes_treatment, treatment).proportion_ci(1 - alpha, method="wilson")
    p, q = yes_control / control, yes_treatment / treatment
    pooled = (yes_control + yes_treatment) / (control + treatment)
    error = math.sqrt(pooled * (1 - pooled) * (1 / control + 1 / treatment))
    return Effect(
        p, q,
        q - p - math.hypot(q - two.low, one.high - p),
        q - p + math.hypot(two.high - q, p - one.low),
        2 * float(norm.sf(abs(q - p) / error)) if error else 1.0,
        sequential_variance(yes_control, control) + sequential_variance(yes_treatment, treatment),
        control, treatment,
    )  # fmt: skip


def sequential_variance(yes: int, units: int) -> float:
    """Variance of one arm's proportion for sequential tests, with half a success and half a failure added.

    Without them an arm whose first ten units are all satisfied has no variance at all, and the interval of a canary's
    first minutes is too narrow.
    """
    p = (yes + 0.5) / (units + 1)
    return p * (1 - p) / units


def wald(
    yes_control: int, control: int, yes_treatment: int, treatment: int, alpha: float = ALPHA
) -> tuple[float, float]:
    """The textbook's interval: the negative control of the coverage test."""
    p, q = yes_control / control, yes_treatment / treatment
    half = float(norm.isf(alpha / 2)) * math.sqrt(p * (1 - p) / control + q * (1 - q) / treatment)
    return q - p - half, q - p + half
