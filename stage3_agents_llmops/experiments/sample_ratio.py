"""Sample-ratio mismatch: are the arms as big as they should be? The first question, before any metric is looked at.

If a 50/50 split arrives as 9,200 to 10,000, somebody is missing, and not at random: the slow arm's customers gave up
before they were logged, or a bot was filtered out of one arm only. No metric of such an experiment can be trusted,
however good it looks. Chi-square of the counts against the weights; the alarm is at p < 0.001, because it is asked of
every experiment every day (GrowthBook's threshold).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, chisquare, ncx2

ALARM = 0.001
LEAST = 8  # units an arm should have, on average, before the chi-square means anything


@dataclass(frozen=True)
class SampleRatio:
    """Counts beside what the weights ask for."""

    counts: dict[str, int]
    expected: dict[str, float]
    p_value: float

    @property
    def alarm(self) -> bool:
        """Whether the experiment must not be read."""
        return self.p_value < ALARM

    @property
    def enough(self) -> bool:
        """Whether there are units enough for the test to say anything."""
        return bool(self.expected) and min(self.expected.values()) >= LEAST


# exercise: experiments.sample_ratio
def sample_ratio(counts: Mapping[str, int], weights: Mapping[str, float]) -> SampleRatio:
    """The chi-square test of the arms' counts against their weights.

    An arm of weight 0 is left out while nobody is in it; a unit in it is a p-value of 0. An arm that nobody is in has
    a count of 0. With fewer than two arms, or nobody at all, there is nothing to test: 1.

    Args:
        counts: arm -> units that were exposed.
        weights: arm -> weight, in any unit.
    """
    stray = any(count for arm, count in counts.items() if not weights.get(arm))
    running = {arm: weight for arm, weight in weights.items() if weight > 0}
    seen = {arm: counts.get(arm, 0) for arm in running}
    total = sum(seen.values())
    expected = {arm: total * weight / sum(running.values()) for arm, weight in running.items()}
    p_value = 1.0
    if len(running) > 1 and total:
        p_value = float(chisquare(list(seen.values()), list(expected.values())).pvalue)
    others = {arm: count for arm, count in counts.items() if arm not in seen}
    return SampleRatio(seen | others, expected, 0.0 if stray else p_value)
# end exercise


def alarm_power(units: int, loss: float, share: float = 0.5, alarm: float = ALARM) -> float:
    """The chance of an alarm when one of two arms loses a share of its units, from the noncentral chi-square.

    Args:
        units: assigned to both arms before the loss.
        loss: the share of its units that one arm loses.
        share: that arm's weight.
    """
    kept, others = share * (1 - loss), 1 - share
    remaining = units * (kept + others)
    observed = np.array([kept, others]) / (kept + others)
    wanted = np.array([share, 1 - share])
    noncentrality = remaining * float(((observed - wanted) ** 2 / wanted).sum())
    return float(ncx2.sf(chi2.isf(alarm, 1), 1, noncentrality)) if noncentrality else alarm
