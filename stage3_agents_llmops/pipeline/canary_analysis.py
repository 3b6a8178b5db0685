"""A look at the canary: continue, pause or abort.

The canary is compared with a *baseline*: a second instance of the old release, started at the same time, with the same
share of customers. Against the whole fleet it would be compared with warm caches and with customers who came earlier.

    harmed     surely worse than the baseline (the interval excludes 0), and by more than the margin            abort
    missing    too few runs in one arm, a sample ratio that cannot be, runs from the future                     pause
    doubtful   by more than the margin, but that may be chance                                                  pause
    else                                                                                                        continue

Someone looks every second, so the interval is a confidence sequence: it holds at all looks together, and alpha is
shared among the metrics. The unit is the customer, not the message (a probe is a unit of its own): ten failed messages
of one customer are one unhappy customer. One kind of event needs no statistics: a release that writes without asking,
or tells one customer about another, is stopped at the first time.

No news is not good news. Without data the verdict is pause, and a pause that lasts too long ends in a rollback.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stage3_agents_llmops.experiments.proportions import sequential_variance
from stage3_agents_llmops.experiments.sample_ratio import sample_ratio
from stage3_agents_llmops.experiments.sequential import confidence_sequence
from stage3_agents_llmops.monitoring import RunRecord

Verdict = Literal["continue", "pause", "abort"]
CANARY, BASELINE = "canary", "baseline"
SKEW = 5.0  # seconds that a run may lie in the future before its clock is not believed
LEAST_VARIANCE = 0.01  # of logarithms: answers whose seconds differ by a tenth
LEAST_SECONDS = 0.005  # a duration below is taken for this: its logarithm is noise


@dataclass(frozen=True)
class CanaryMetric:
    """What is compared.

    Args:
        kind: "share" (of units), or "ratio" (of typical values: means of logarithms).
        margin: the loss that is accepted: a share, or for "ratio" a factor above 1.
        better: "lower" or "higher".
        minimum: units with a value that each arm needs; 0: opinions, which can stop a canary but not delay it.
        whose: which runs have a say.
        value: of one run; None where it has none.
        loaded: whether it grows with the customers that an arm has; then only runs from before `even_until` count.
    """

    name: str
    kind: Literal["share", "ratio"]
    margin: float
    better: Literal["lower", "higher"]
    minimum: int
    whose: Literal["all", "probes", "customers"]
    value: Callable[[RunRecord], float | None]
    loaded: bool = False


def _failed(run: RunRecord) -> float | None:
    return None if run.status == "cancelled" else float(run.status in ("failed", "refused", "lost"))


def _seconds(run: RunRecord) -> float | None:
    return run.duration_s if run.status in ("answered", "waiting", "human") else None


def _tokens(run: RunRecord) -> float | None:
    total = run.input_tokens + run.output_tokens
    return total if total and run.status in ("answered", "waiting", "human") else None


def _flag(name: str) -> Callable[[RunRecord], float | None]:
    def value(run: RunRecord) -> float | None:
        flag = getattr(run, name)
        return None if flag is None else float(flag)

    return value


def _unhappy(run: RunRecord) -> float | None:
    return None if run.feedback in (None, 0) else float(run.feedback < 0)


METRICS = (  # latency: what 10 % more customers may do to a process that has much to do is no fault of its release
    CanaryMetric("errors", "share", 0.05, "lower", 8, "all", _failed),
    CanaryMetric("latency", "ratio", 1.75, "lower", 8, "all", _seconds, loaded=True),
    CanaryMetric("wrong answers", "share", 0.1, "lower", 8, "probes", _flag("wrong")),
    CanaryMetric("right article", "share", 0.1, "higher", 8, "probes", _flag("retrieval_hit")),
    CanaryMetric("unhappy", "share", 0.15, "lower", 0, "customers", _unhappy),
    CanaryMetric("handed to a person", "share", 0.25, "lower", 0, "customers", _flag("handed_to_human")),
    CanaryMetric("tokens", "ratio", 2.0, "lower", 8, "all", _tokens),
)


@dataclass(frozen=True)
class Policy:
    """How sure a look has to be.

    Args:
        alpha: chance that a canary as good as its baseline is ever aborted, over all looks and metrics.
        tuned_for: units at which the confidence sequence is tightest.
    """

    metrics: tuple[CanaryMetric, ...] = METRICS
    alpha: float = 0.02
    tuned_for: float = 60.0


@dataclass(frozen=True)
class Compared:
    """One metric at one look; `low` and `high` enclose canary minus baseline (of logarithms for a ratio)."""

    name: str
    canary: float | None
    baseline: float | None
    n_canary: int
    n_baseline: int
    low: float = -math.inf
    high: float = math.inf
    verdict: Verdict = "pause"
    reason: str = ""


@dataclass(frozen=True)
class Look:
    """The verdict of a look, why, and all figures."""

    verdict: Verdict
    reasons: tuple[str, ...]
    compared: tuple[Compared, ...] = ()

    def as_dict(self) -> dict:
        """JSON values for the log: infinite limits become None."""
        def number(value: float | None) -> float | None:
            return None if value is None or not math.isfinite(value) else round(value, 4)

        rows = [{"metric": each.name, "canary": number(each.canary), "baseline": number(each.baseline),
                 "n": [each.n_canary, each.n_baseline], "low": number(each.low), "high": number(each.high),
                 "verdict": each.verdict} for each in self.compared]  # fmt: skip
        return {"verdict": self.verdict, "reasons": list(self.reasons), "metrics": rows}


def look(
    canary: Sequence[RunRecord], baseline: Sequence[RunRecord], now: float, policy: Policy = Policy(),
    balanced: bool = True, even_until: float = math.inf,
) -> Look:  # fmt: skip
    """Compare the runs of both arms since the canary began.

    Args:
        now: the time on the clock that stamped the runs, the gateway's.
        balanced: both arms had the same weight all the time, so their customers can be counted against each other.
        even_until: when that ended. A canary that has all customers is slower than a baseline that has none.
    """
    bad = [f"{run.unsafe} unsafe in run {run.run_id}" for run in canary if run.unsafe]
    if bad and not any(run.unsafe for run in baseline):
        return Look("abort", (f"unsafe: {bad[0]}",))
    even = [[run for run in arm if run.started < even_until] for arm in (canary, baseline)]
    compared = tuple(
        compare(metric, *(even if metric.loaded else (canary, baseline)), policy) for metric in policy.metrics
    )
    harmed = [each.reason for each in compared if each.verdict == "abort"]
    if harmed:
        return Look("abort", tuple(harmed), compared)
    reasons = [each.reason for each in compared if each.verdict == "pause"]
    reasons += clock_faults((*canary, *baseline), now)
    reasons += ratio_faults(canary, baseline) if balanced else []
    reasons += ["both arms are unsafe: the old release, too"] if bad else []
    return Look("pause" if reasons else "continue", tuple(reasons), compared)


def compare(
    metric: CanaryMetric, canary: Sequence[RunRecord], baseline: Sequence[RunRecord], policy: Policy
) -> Compared:
    """One metric."""
    treated, control = unit_values(metric, canary), unit_values(metric, baseline)
    counts = len(treated), len(control)
    if min(counts) < max(metric.minimum, 2):
        enough = metric.minimum == 0  # nobody has to have an opinion; whoever has one is heard
        reason = f"{metric.name}: {counts[0]} and {counts[1]} of {metric.minimum} units in canary and baseline"
        return Compared(metric.name, _typical(metric, treated), _typical(metric, control), *counts,
                        verdict="continue" if enough else "pause", reason=reason)  # fmt: skip
    difference = float(treated.mean() - control.mean())
    variance = sum(_variance(metric, values) for values in (control, treated))
    low, high = confidence_sequence(
        difference, variance, sum(counts), policy.tuned_for, policy.alpha / len(policy.metrics)
    )
    margin = math.log(metric.margin) if metric.kind == "ratio" else metric.margin
    verdict, why = judge_metric(low, high, difference, margin, metric.better)
    if metric.minimum == 0 and verdict == "pause":
        verdict = "continue"  # three thumbs are no reason to wait, whichever way they point
    figures = [_typical(metric, treated), _typical(metric, control)]
    reason = f"{metric.name} {why}: {figures[0]:.3g} against {figures[1]:.3g} ({counts[0]} and {counts[1]} units)"
    return Compared(metric.name, *figures, *counts, low, high, verdict, reason)


# exercise: pipeline.judge_metric
def judge_metric(low: float, high: float, estimate: float, margin: float, better: str) -> tuple[Verdict, str]:
    """The verdict on one metric and its name.

    A loss beyond the margin is abort ("is harmed") where the whole interval lies on the bad side of 0, and pause ("is
    doubtful") where it does not; a smaller loss is continue ("is fine"), however sure.

    Args:
        low, high: interval of canary minus baseline.
        estimate: canary minus baseline.
        margin: the loss that is accepted, from 0 on.
        better: "lower" or "higher".
    """
    loss, least = (estimate, low) if better == "lower" else (-estimate, -high)
    if loss <= margin:
        return "continue", "is fine"
    return ("abort", "is harmed") if least > 0 else ("pause", "is doubtful")
# end exercise


# exercise: pipeline.unit_values
def unit_values(metric: CanaryMetric, runs: Iterable[RunRecord]) -> np.ndarray:
    """One value a unit, (units,): for a share whether it ever happened to the customer ("better: higher": always), for
    a ratio the mean of the logarithms.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if metric.whose != "all" and run.probe != (metric.whose == "probes"):
            continue
        if (value := metric.value(run)) is not None:
            values[run.run_id if run.probe else run.unit].append(value)
    if metric.kind == "ratio":
        return np.array([np.mean(np.log(np.maximum(each, LEAST_SECONDS))) for each in values.values()])
    worst = max if metric.better == "lower" else min
    return np.array([worst(each) for each in values.values()])
# end exercise


def clock_faults(runs: Iterable[RunRecord], now: float) -> list[str]:
    """Runs that began later than now: a clock was moved, and "since the canary began" means nothing any more."""
    ahead = max((run.started - now for run in runs), default=0.0)
    return [f"clock: a run began {ahead:.0f} s in the future"] if ahead > SKEW else []


def ratio_faults(canary: Iterable[RunRecord], baseline: Iterable[RunRecord]) -> list[str]:
    """Arms of equal weight whose numbers of customers cannot be chance: somebody is lost on the way to one of them."""
    counts = {name: len({run.unit for run in runs if not run.probe})
              for name, runs in ((CANARY, canary), (BASELINE, baseline))}  # fmt: skip
    if not all(counts.values()) or not sample_ratio(counts, {CANARY: 1.0, BASELINE: 1.0}).alarm:
        return []
    return [f"sample ratio: {counts[CANARY]} customers in the canary, {counts[BASELINE]} in the baseline"]


def _variance(metric: CanaryMetric, values: np.ndarray) -> float:
    """Of one arm's mean. Equal values in a small sample are no proof that nothing varies."""
    if metric.kind == "share":
        return sequential_variance(int(values.sum()), len(values))
    return max(float(values.var(ddof=1)), LEAST_VARIANCE) / len(values)


def _typical(metric: CanaryMetric, values: np.ndarray) -> float | None:
    if not len(values):
        return None
    return float(np.exp(values.mean())) if metric.kind == "ratio" else float(values.mean())
