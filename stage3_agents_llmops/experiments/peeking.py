"""The peeking lesson: an A/A test, looked at forty times, by four ways of looking.

Both arms are the same, so every "significant" is a false alarm. All simulations run at once: a look adds a binomial
number of satisfied customers to each arm, and that is all a look needs to know.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from stage3_agents_llmops.experiments.effects import ALPHA
from stage3_agents_llmops.experiments.sequential import always_valid_p, msprt, sequence_half_width

NAIVE, BONFERRONI, MSPRT, SEQUENCE = "p < .05 at every look", "p < .05 / looks", "mSPRT", "confidence sequence"
WAYS = (NAIVE, BONFERRONI, MSPRT, SEQUENCE)


@dataclass(frozen=True)
class Paths:
    """Simulated experiments: difference and its variance at every look, (simulations, looks)."""

    units: np.ndarray  # units of each arm at each look, (looks,)
    difference: np.ndarray
    variance: np.ndarray


def simulate(
    simulations: int, units: int, looks: int, rate: float, effect: float = 0.0, seed: int = 1
) -> Paths:
    """Experiments on a proportion.

    Args:
        units: of each arm at the last look; looks are evenly spaced.
        rate: the control's proportion.
        effect: what the treatment adds to it; 0 is an A/A test.
    """
    draw = np.random.default_rng(seed)
    at = np.linspace(0, units, looks + 1).round().astype(int)
    new = np.diff(at)
    n = at[1:]

    def proportion(p: float) -> tuple[np.ndarray, np.ndarray]:
        yes = draw.binomial(new, p, size=(simulations, looks)).cumsum(axis=1)
        smoothed = (yes + 0.5) / (n + 1)
        return yes / n, smoothed * (1 - smoothed) / n

    (control, variance), (treatment, more) = proportion(rate), proportion(rate + effect)
    return Paths(n, treatment - control, variance + more)


def p_values(paths: Paths) -> np.ndarray:
    """The fixed-horizon p-value at each look, (simulations, looks)."""
    return 2 * norm.sf(np.abs(paths.difference) / np.sqrt(paths.variance))


def alarms(paths: Paths, tau: float, tuned_for: float, alpha: float = ALPHA) -> dict[str, np.ndarray]:
    """For every way of looking, whether it has stopped at or before each look, (simulations, looks).

    Args:
        tau: mSPRT's standard deviation of possible effects.
        tuned_for: units in both arms for which the confidence sequence is tightest.
    """
    looks = len(paths.units)
    fixed, n = p_values(paths), 2.0 * paths.units
    half = sequence_half_width(paths.variance, n, tuned_for, alpha)
    now = {
        NAIVE: fixed < alpha,
        BONFERRONI: fixed < alpha / looks,
        MSPRT: always_valid_p(msprt(paths.difference, paths.variance, tau)) <= alpha,
        SEQUENCE: np.abs(paths.difference) > half,
    }
    return {way: np.logical_or.accumulate(stopped, axis=1) for way, stopped in now.items()}


def stopping_units(stopped: np.ndarray, units: np.ndarray) -> float:
    """Units of each arm that an experiment takes on average when it ends with the first alarm, or at the last look."""
    first = np.where(stopped.any(axis=1), stopped.argmax(axis=1), len(units) - 1)
    return float(units[first].mean())


def upper_limit(rate: float, simulations: int) -> float:
    """Where a simulated share may lie by chance if the truth is `rate`: rate + 3 standard errors."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / simulations)
