"""An effect: treatment minus control with its interval. What every comparison of this lab returns."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

ALPHA = 0.05


@dataclass(frozen=True)
class Effect:
    """Both arms' figures, their difference, a fixed-horizon interval and p-value; valid for ONE look.

    `variance` is that of the estimated difference: what a sequential test needs (`sequential.py`).
    """

    control: float
    treatment: float
    low: float
    high: float
    p_value: float
    variance: float
    n_control: int
    n_treatment: int

    @property
    def difference(self) -> float:
        """Treatment minus control."""
        return self.treatment - self.control

    @property
    def relative(self) -> float:
        """The difference as a share of the control's figure; NaN where that is 0."""
        return self.difference / abs(self.control) if self.control else float("nan")

    @property
    def n(self) -> int:
        """Units in both arms."""
        return self.n_control + self.n_treatment


def normal_effect(
    control: float, treatment: float, variance: float, n_control: int, n_treatment: int, alpha: float = ALPHA
) -> Effect:
    """An effect whose estimate is normal with a known variance."""
    difference, error = treatment - control, float(np.sqrt(variance))
    half = float(norm.isf(alpha / 2)) * error
    p_value = 2 * float(norm.sf(abs(difference) / error)) if error else float(difference == 0)
    return Effect(control, treatment, difference - half, difference + half, p_value, variance, n_control, n_treatment)
