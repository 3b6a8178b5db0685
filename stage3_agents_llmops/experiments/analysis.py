"""One experiment from exposures and events to a recommendation, in the order in which one should ask.

    1  are the arms as big as they should be?            sample_ratio          no: do not read on
    2  did units see two arms?                           multiple_exposures    many: do not read on
    3  is a metric missing in one arm more often?        missing values        yes: do not read that one
    4  what does each metric say?                        proportions, means + cuped, ratio_metrics
    5  at any time, not only today?                      sequential
    6  is a guardrail harmed?                            guardrails            yes: stop

Every interval that decides is a confidence sequence, so the analysis may run as often as one likes. With several
treatments alpha is shared among them (Bonferroni).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.stats import chi2_contingency

from labkit.errors import LabError
from stage3_agents_llmops.experiments.configuration import MetricSpec
from stage3_agents_llmops.experiments.cuped import compare_cuped
from stage3_agents_llmops.experiments.effects import ALPHA, Effect
from stage3_agents_llmops.experiments.events import UnitValues
from stage3_agents_llmops.experiments.exposure_log import Exposure
from stage3_agents_llmops.experiments.guardrails import Guardrail, guardrail, margin_in_units
from stage3_agents_llmops.experiments.means import compare_means
from stage3_agents_llmops.experiments.multiple_exposures import Exposed, exposed_units
from stage3_agents_llmops.experiments.proportions import compare_proportions
from stage3_agents_llmops.experiments.ratio_metrics import compare_ratios
from stage3_agents_llmops.experiments.sample_ratio import ALARM, SampleRatio, sample_ratio
from stage3_agents_llmops.experiments.sequential import TUNED_FOR, confidence_sequence

Advice = Literal["ship", "stop", "go on", "do not read", "too few units"]


@dataclass(frozen=True)
class Result:
    """A metric in one treatment against the control."""

    metric: MetricSpec
    arm: str
    effect: Effect
    low: float  # the confidence sequence
    high: float
    missing_p: float  # are values missing in both arms alike?
    guardrail: Guardrail | None = None
    unadjusted: Effect | None = None  # before CUPED

    @property
    def surely(self) -> int:
        """1: surely better, -1: surely worse, 0: neither, by the confidence sequence and the metric's direction."""
        sign = 1 if self.low > 0 else -1 if self.high < 0 else 0
        return -sign if self.metric.better == "lower" else sign


@dataclass(frozen=True)
class Analysis:
    """An experiment's figures, and what to do for every treatment, with the reasons."""

    experiment: str
    control: str
    exposed: Exposed
    ratio: SampleRatio
    results: tuple[Result, ...]
    unexposed: int = 0  # units with events that were never exposed: left out
    advice: dict[str, tuple[Advice, tuple[str, ...]]] = field(default_factory=dict)


def analyse(
    experiment: str, weights: Mapping[str, float], metrics: Sequence[MetricSpec], events: UnitValues,
    exposures: Sequence[Exposure] | None = None, alpha: float = ALPHA, tuned_for: float = TUNED_FOR,
) -> Analysis:  # fmt: skip
    """Everything in the order above.

    Args:
        weights: arm -> weight, the control first.
        exposures: who saw it; without them, whoever has events. With them a unit without events counts too.

    Raises:
        LabError: an arm that the weights do not know, or no treatment.
    """
    seen_in_events = [
        Exposure(experiment, unit, arm, "", 0.0)
        for unit, arms in zip(events.units, events.arms, strict=True) for arm in sorted(arms)
    ]  # fmt: skip
    unexposed = 0
    if exposures is not None:
        known = {exposure.unit for exposure in exposures}
        unexposed = sum(unit not in known for unit in events.units)
        seen_in_events = [exposure for exposure in seen_in_events if exposure.unit in known]
    exposed = exposed_units([*(exposures or ()), *seen_in_events])
    control, treatments = _arms(experiment, weights, exposed)
    ratio = sample_ratio(exposed.counts(), weights)
    table = _UnitTable(exposed, events)
    results = tuple(
        result for arm in treatments for metric in metrics
        if (result := _compare(table, metric, control, arm, alpha / len(treatments), tuned_for))
    )  # fmt: skip
    advice = {arm: advise(arm, ratio, exposed, [each for each in results if each.arm == arm]) for arm in treatments}
    return Analysis(experiment, control, exposed, ratio, results, unexposed, advice)


def advise(
    arm: str, ratio: SampleRatio, exposed: Exposed, results: Sequence[Result]
) -> tuple[Advice, tuple[str, ...]]:
    """What to do, and why."""
    faults = [f"sample ratio: p = {ratio.p_value:.2g} < {ALARM}"] if ratio.alarm else []
    if exposed.alarm:
        faults.append(f"{exposed.share:.1%} of the units saw more than one arm")
    faults += [f"{each.metric.name}: missing more often in one arm" for each in results if each.missing_p < ALARM]
    if faults:
        return "do not read", tuple(faults)
    if not ratio.enough or not results:
        return "too few units", (f"{exposed.counts().get(arm, 0)} units in {arm}",)
    rails = [each for each in results if each.guardrail]
    aims = [each for each in results if not each.guardrail]
    harmed = [each.metric.name for each in rails if each.guardrail.verdict == "harmed"]
    worse = [each.metric.name for each in aims if each.surely < 0]
    if harmed or worse:
        reasons = [f"guardrail {name} is harmed" for name in harmed] + [f"{name} is worse" for name in worse]
        return "stop", tuple(reasons)
    better = [each.metric.name for each in aims if each.surely > 0]
    open_rails = [each.metric.name for each in rails if each.guardrail.verdict == "undecided"]
    if better and not open_rails:
        return "ship", tuple(f"{name} is better" for name in better)
    reasons = [f"{name} is better" for name in better] + [f"guardrail {name} is undecided" for name in open_rails]
    return "go on", tuple(reasons or ["no metric has moved for sure"])


class _UnitTable:
    """Events beside exposures: for every arm its units' rows in the events, and how many units have none."""

    def __init__(self, exposed: Exposed, events: UnitValues) -> None:
        self.events = events
        place = {unit: number for number, unit in enumerate(events.units)}
        self.rows: dict[str, np.ndarray] = {}
        self.silent: dict[str, int] = {}
        for arm in set(exposed.arms.values()):
            units = [unit for unit, seen in exposed.arms.items() if seen == arm]
            rows = [place[unit] for unit in units if unit in place]
            self.rows[arm], self.silent[arm] = np.array(sorted(rows), int), len(units) - len(rows)

    def column(self, arm: str, name: str, part: str) -> np.ndarray:
        """One value for each of the arm's units; units without events are 0 at the end."""
        values = getattr(self.events, part)[name][self.rows[arm]]
        return np.concatenate([values, np.zeros(self.silent[arm])])


def _compare(
    table: _UnitTable, metric: MetricSpec, control: str, arm: str, alpha: float, tuned_for: float
) -> Result | None:
    """A metric's result; None while an arm has fewer than two units with a value."""
    have = {name: table.column(name, metric.column or metric.denominator, "counts") > 0 for name in (control, arm)}
    if metric.kind == "mean":
        have = {name: np.ones_like(present) for name, present in have.items()}  # no event is a sum of 0
    if min(present.sum() for present in have.values()) < 2:
        return None

    def values(column: str, part: str) -> list[np.ndarray]:
        return [table.column(name, column, part)[have[name]] for name in (control, arm)]

    unadjusted = None
    if metric.kind == "proportion":
        one, two = (column > 0 for column in values(metric.column, "largest"))
        effect = compare_proportions(int(one.sum()), len(one), int(two.sum()), len(two), alpha)
    elif metric.kind == "ratio":
        tops, bottoms = values(metric.numerator, "sums"), values(metric.denominator, "sums")
        if min(bottom.sum() for bottom in bottoms) == 0:
            return None
        effect = compare_ratios(tops[0], bottoms[0], tops[1], bottoms[1], alpha)
    else:
        one, two = values(metric.column, "sums")
        effect = compare_means(one, two, alpha)
        if metric.covariate:
            before = values(metric.covariate, "largest")
            unadjusted, effect = effect, compare_cuped(one, before[0], two, before[1], alpha)
    low, high = confidence_sequence(effect.difference, effect.variance, effect.n, tuned_for, alpha)
    margin = margin_in_units(metric.kind, metric.margin, effect.control)
    rail = guardrail(low, high, margin, metric.better) if metric.guardrail else None
    return Result(metric, arm, effect, low, high, _missing(have[control], have[arm]), rail, unadjusted)


def _missing(control: np.ndarray, treatment: np.ndarray) -> float:
    """p-value of "values are missing in both arms alike"."""
    table = np.array([[present.sum(), (~present).sum()] for present in (control, treatment)], float)
    return 1.0 if table[:, 1].sum() == 0 else float(chi2_contingency(table, correction=False).pvalue)


def _arms(experiment: str, weights: Mapping[str, float], exposed: Exposed) -> tuple[str, list[str]]:
    unknown = sorted(set(exposed.counts()) - set(weights))
    if unknown:
        raise LabError(f"experiment {experiment} has no arm {unknown[0]}", f"arms are: {', '.join(weights)}")
    control, *treatments = weights
    present = [arm for arm in treatments if exposed.counts().get(arm)]
    if not present or not exposed.counts().get(control):
        counts = ", ".join(f"{arm} {exposed.counts().get(arm, 0)}" for arm in weights)
        raise LabError(f"experiment {experiment} cannot be compared yet: {counts} units", "more traffic, then again")
    return control, present
