"""Guardrails: metrics that must not get worse, whatever the experiment is good for.

    effect, better upwards      -margin        0
                 harmed       [------|-----]  |           surely worse, and perhaps by more than the margin
              undecided          [---|--------|--]        too early
                   safe              | [------|---]       surely not worse by more than the margin
                   safe              | [---]  |           surely worse, by a loss that was accepted beforehand

"No significant difference" is no proof of safety: with ten units nothing is ever significant. Safe means that the whole
interval lies above the margin (non-inferiority). The interval is a confidence sequence: guardrails are watched all the
time, and the first look that says "harmed" stops the rollout; a treatment that does no harm is stopped in alpha of all
cases at most. Without the second kind of safe, a large experiment would stop at any loss, however small.
"""

import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["safe", "harmed", "undecided"]


@dataclass(frozen=True)
class Guardrail:
    """A verdict with the interval that it comes from; positive is better whatever the metric's direction."""

    verdict: Verdict
    low: float
    high: float
    margin: float


def guardrail(low: float, high: float, margin: float, better: str = "higher") -> Guardrail:
    """Judge an interval of the effect.

    Args:
        low, high: the interval, treatment minus control.
        margin: the loss that is accepted, from 0 on, in the effect's unit.
        better: "higher" or "lower": a metric that should fall is turned round first.
    """
    if better == "lower":
        low, high = -high, -low
    if low > -margin:
        verdict: Verdict = "safe"
    else:
        verdict = "harmed" if high < 0 else "undecided"
    return Guardrail(verdict, low, high, margin)


def margin_in_units(kind: str, margin: float, control: float) -> float:
    """A margin of the configuration in the metric's unit: percentage points, or per cent of the control's figure."""
    return margin / 100 if kind == "proportion" else margin / 100 * (abs(control) if math.isfinite(control) else 0.0)
