"""How many units, how many days? Asked before the experiment, or it is answered afterwards with "we cannot say".

    units an arm = (z of alpha / 2 + z of power)**2 * (variance of control + variance of treatment) / effect**2

Half the effect needs four times the units. A test that may be looked at every day needs more than one that is looked at
once: the planner gives both.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from labkit.errors import LabError
from stage3_agents_llmops.experiments.effects import ALPHA
from stage3_agents_llmops.experiments.sequential import sequence_half_width


@dataclass(frozen=True)
class Plan:
    """What an experiment takes. `sequential` is for a confidence sequence that is looked at all the time."""

    units_per_arm: int
    sequential_units_per_arm: int
    days: float
    sequential_days: float


def units_needed(
    effect: float, variance_control: float, variance_treatment: float, alpha: float = ALPHA, power: float = 0.8
) -> int:
    """Units in each of two arms of one size, for one look at the end."""
    z = norm.isf(alpha / 2) + norm.isf(1 - power)
    return math.ceil(z**2 * (variance_control + variance_treatment) / effect**2)


def power_of(
    units: int, effect: float, variance_control: float, variance_treatment: float, alpha: float = ALPHA
) -> float:
    """The chance to find the effect with so many units an arm, looking once (two-sided)."""
    error = math.sqrt((variance_control + variance_treatment) / units)
    z = norm.isf(alpha / 2)
    return float(norm.sf(z - effect / error) + norm.cdf(-z - effect / error))


def sequential_units_needed(
    effect: float, variance_control: float, variance_treatment: float, alpha: float = ALPHA, power: float = 0.8
) -> int:
    """Units an arm at which a confidence sequence, tuned for that size, excludes 0 with the power asked for.

    Looking at that size only; having looked before adds a little, so it is an upper bound.
    """
    both = variance_control + variance_treatment

    def missing(units: float) -> float:
        error = math.sqrt(both / units)
        half = float(sequence_half_width(np.float64(error**2), np.float64(2 * units), 2 * units, alpha))
        return effect - half - norm.isf(1 - power) * error

    least = units_needed(effect, variance_control, variance_treatment, alpha, power)
    return math.ceil(brentq(missing, least / 2, least * 20))


def smallest_effect(
    units: int, variance_control: float, variance_treatment: float, alpha: float = ALPHA, power: float = 0.8
) -> float:
    """The effect that so many units an arm find with the power asked for: the minimum detectable effect."""
    z = norm.isf(alpha / 2) + norm.isf(1 - power)
    return float(z * math.sqrt((variance_control + variance_treatment) / units))


def plan(
    effect: float, variance_control: float, variance_treatment: float, units_per_day: float, traffic: float = 1.0,
    smaller_arm: float = 0.5, alpha: float = ALPHA, power: float = 0.8,
) -> Plan:  # fmt: skip
    """Units and days for a comparison of two arms.

    Args:
        units_per_day: new units a day that could take part.
        traffic: the share of them that the experiment gets.
        smaller_arm: the share of the experiment that the smaller arm gets: the days are those until it is full.

    Raises:
        LabError: an effect of 0, or traffic of nobody.
    """
    if effect == 0:
        raise LabError("an effect of 0 cannot be found", "--effect: the smallest one that would change what you do")
    if units_per_day * traffic * smaller_arm <= 0:
        raise LabError("no units come in", "--units-per-day 500 --traffic 50")
    once = units_needed(abs(effect), variance_control, variance_treatment, alpha, power)
    always = sequential_units_needed(abs(effect), variance_control, variance_treatment, alpha, power)
    arm_per_day = units_per_day * traffic * smaller_arm
    return Plan(once, always, once / arm_per_day, always / arm_per_day)
