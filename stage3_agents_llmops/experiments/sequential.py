"""Looking every day without fooling yourself: tests that hold at every look, not at one that was agreed before.

A p-value promises 5 % false alarms at ONE look. Look forty times and stop at the first p < .05, and it is about 30 %.
Two ways to keep the promise at all looks together:

- mSPRT (Johari, Koomen, Pekelis, Walsh 2017). How much likelier is the difference d, of variance V, under effects drawn
  from N(0, tau**2) than under no effect?  Lambda = sqrt(V / (V + tau**2)) * exp(d**2 tau**2 / (2 V (V + tau**2))).
  Without an effect Lambda is a fair game: it reaches 1 / alpha with a chance of at most alpha, ever (Ville 1939).
- A confidence sequence (Waudby-Smith et al. 2024, as in GrowthBook): intervals that cover the effect at all times at
  once, with a chance of 1 - alpha. `rho` sets the number of units at which they are tightest.

Both pay with width: at the planned size the interval is about half as wide again as the fixed one. Arrays are welcome
wherever a number is.
"""

import numpy as np

from stage3_agents_llmops.experiments.effects import ALPHA

TUNED_FOR = 5_000  # units in both arms at which the confidence sequence is tightest: GrowthBook's default


# exercise: experiments.msprt
def msprt(difference: np.ndarray, variance: np.ndarray, tau: float) -> np.ndarray:
    """The natural logarithm of Lambda; reject no effect where it reaches ln(1 / alpha).

    Args:
        difference: treatment minus control at each look.
        variance: of that difference, above 0.
        tau: standard deviation of the effects that are thought possible, in the metric's unit.
    """
    both = variance + tau**2
    return 0.5 * np.log(variance / both) + difference**2 * tau**2 / (2 * variance * both)
# end exercise


def always_valid_p(log_lambda: np.ndarray) -> np.ndarray:
    """The p-value at each look, along the last axis: min(1, 1 / the largest Lambda so far). It never rises."""
    return np.minimum(1.0, np.exp(-np.maximum.accumulate(np.atleast_1d(log_lambda), axis=-1)))


def tuning(tuned_for: float = TUNED_FOR, alpha: float = ALPHA) -> float:
    """rho: the confidence sequence is tightest at `tuned_for` units."""
    return float(np.sqrt((-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / tuned_for))


def sequence_half_width(
    variance: np.ndarray, n: np.ndarray, tuned_for: float = TUNED_FOR, alpha: float = ALPHA
) -> np.ndarray:
    """Half the width of the asymptotic confidence sequence around a difference.

    With rho of `tuning` and s**2 = n * variance, it is
    s * sqrt(2 (n rho**2 + 1) / (n rho)**2 * ln(sqrt(n rho**2 + 1) / alpha)).

    Args:
        variance: of the estimated difference.
        n: units in both arms together.
    """
    rho = tuning(tuned_for, alpha)
    grown = n * rho**2 + 1
    return np.sqrt(n * variance) * np.sqrt(2 * grown / (n * rho) ** 2 * np.log(np.sqrt(grown) / alpha))


def confidence_sequence(
    difference: float, variance: float, n: int, tuned_for: float = TUNED_FOR, alpha: float = ALPHA
) -> tuple[float, float]:
    """The interval at one look; without a variance (nothing has varied yet) it is everything."""
    if variance <= 0 or n <= 0:
        return -np.inf, np.inf
    half = float(sequence_half_width(np.float64(variance), np.float64(n), tuned_for, alpha))
    return difference - half, difference + half
