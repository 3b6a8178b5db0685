"""CUPED: take out of a metric what was known before the experiment began.

A customer who spent much last month will spend much this month, in either arm. That is noise for the comparison, and it
can be predicted away with the same customer's value from before:

    y' = y - theta * (x - mean of x)        theta = cov(x, y) / var(x)        var(y') = (1 - corr(x, y)**2) var(y)

The mean of x is that of both arms together, so the difference keeps its expectation. x must be from *before*: a
covariate that the treatment can change takes the effect out along with the noise. Source: Deng, Xu, Kohavi and Walker,
2013, *Improving the sensitivity of online controlled experiments by utilizing pre-experiment data*.
"""

import numpy as np

from stage3_agents_llmops.experiments.effects import ALPHA, Effect
from stage3_agents_llmops.experiments.means import compare_means


# exercise: experiments.cuped_adjust
def cuped_adjust(
    y_control: np.ndarray, x_control: np.ndarray, y_treatment: np.ndarray, x_treatment: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both arms' metric without what the covariate predicts; theta and the mean of x are those of both arms together.

    Args:
        y_control, y_treatment: the metric of every unit.
        x_control, x_treatment: the same units' covariate, from before the experiment.

    Returns:
        The adjusted metric of the control and of the treatment; unchanged where x is the same for everybody.
    """
    x, y = np.concatenate([x_control, x_treatment]), np.concatenate([y_control, y_treatment])
    spread = x.var(ddof=1)
    theta = np.cov(x, y)[0, 1] / spread if spread > 0 else 0.0
    return y_control - theta * (x_control - x.mean()), y_treatment - theta * (x_treatment - x.mean())
# end exercise


def compare_cuped(
    y_control: np.ndarray, x_control: np.ndarray, y_treatment: np.ndarray, x_treatment: np.ndarray,
    alpha: float = ALPHA,
) -> Effect:  # fmt: skip
    """The difference of two means after the adjustment, by Welch's test."""
    return compare_means(*cuped_adjust(y_control, x_control, y_treatment, x_treatment), alpha)


def variance_saved(y: np.ndarray, x: np.ndarray) -> float:
    """The share of the variance that the covariate takes away: its squared correlation with the metric."""
    return float(np.corrcoef(x, y)[0, 1] ** 2) if np.std(x) > 0 and np.std(y) > 0 else 0.0
