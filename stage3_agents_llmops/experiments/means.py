"""Two means: spend, messages, seconds for every unit. Welch's t-test: the arms may differ in size and in variance."""

import numpy as np
from scipy.stats import ttest_ind

from stage3_agents_llmops.experiments.effects import ALPHA, Effect


def compare_means(control: np.ndarray, treatment: np.ndarray, alpha: float = ALPHA) -> Effect:
    """The difference of two means with Welch's interval and p-value.

    Args:
        control: one value for every unit, (n,).
        treatment: the same, (m,).

    Raises:
        ValueError: an arm has fewer than two units.
    """
    control, treatment = np.asarray(control, float), np.asarray(treatment, float)
    if min(len(control), len(treatment)) < 2:
        raise ValueError("a mean needs two units in each arm")
    variance = control.var(ddof=1) / len(control) + treatment.var(ddof=1) / len(treatment)
    if variance == 0:  # everybody the same: scipy would divide by it
        same = control[0] == treatment[0]
        low = high = float(treatment[0] - control[0])
        return Effect(float(control[0]), float(treatment[0]), low, high, float(same), 0.0, len(control), len(treatment))
    test = ttest_ind(treatment, control, equal_var=False)
    interval = test.confidence_interval(1 - alpha)
    return Effect(
        float(control.mean()), float(treatment.mean()), float(interval.low), float(interval.high),
        float(test.pvalue), float(variance), len(control), len(treatment),
    )  # fmt: skip
