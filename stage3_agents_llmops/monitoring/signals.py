"""What alert rules look at, each written twice: over rows of `runs`, and in PromQL.

A signal gives one reading a subject: a release, or "" where all are meant, or the thing that drifts. A reading is a
value and the number of samples behind it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from stage3_agents_llmops.monitoring.drift import SURE, Drift
from stage3_agents_llmops.monitoring.metrics import DURATION_OBJECTIVE, FIRST_TOKEN_OBJECTIVE
from stage3_agents_llmops.monitoring.run_record import ERRORS, SERVED, RunRecord

BASELINE, CANARY = "baseline", "canary"


class Reading(NamedTuple):
    """A value now, and how many samples it rests on."""

    value: float
    n: float


@dataclass(frozen=True)
class Situation:
    """What is known at one moment.

    Attributes:
        runs: that ended in the rule's window, customers and probes.
        before: whether any run ended before the window.
        drift: of the newest runs.
        queues: runs that wait, by service.
        readable: whether the table could be read.
    """

    runs: Sequence[RunRecord]
    before: bool = False
    drift: Sequence[Drift] = ()
    queues: Mapping[str, float] = field(default_factory=dict)
    readable: bool = True


@dataclass(frozen=True)
class Signal:
    """How it is read from rows, and its PromQL.

    Attributes:
        read: subject -> reading.
        value, samples: PromQL with $w for the window and $n for `least`; samples None where that is not asked for.
        subject: the label that names the subject.
    """

    read: Callable[[Situation], dict[str, Reading]]
    value: str
    samples: str | None = None
    subject: str = "release"


def share_of(bad: Callable[[RunRecord], bool | None]) -> Callable[[Situation], dict[str, Reading]]:
    """A share by release: True counts for it, False against it, None not at all."""

    def read(now: Situation) -> dict[str, Reading]:
        flags = defaultdict(list)
        for run in now.runs:
            if (flag := bad(run)) is not None:
                flags[run.release].append(flag)
        return {release: Reading(sum(each) / len(each), len(each)) for release, each in flags.items()}

    return read


def customers(bad: Callable[[RunRecord], bool | None]) -> Callable[[Situation], dict[str, Reading]]:
    """A share of customers' runs; probes do not count."""
    return share_of(lambda run: None if run.probe else bad(run))


def later_than(name: str, objective: float) -> Callable[[Situation], dict[str, Reading]]:
    """The share of served runs that took longer than the objective."""

    def is_late(run: RunRecord) -> bool | None:
        seconds = getattr(run, name)
        return None if run.status not in SERVED or seconds is None else seconds > objective

    return customers(is_late)


def slowdown(now: Situation) -> dict[str, Reading]:
    """Mean seconds of each canary's answers over the baseline's; none without a baseline."""
    seconds = defaultdict(list)
    for run in now.runs:
        if not run.probe and run.status in SERVED and run.duration_s is not None and run.arm in (BASELINE, CANARY):
            seconds[run.arm, run.release].append(run.duration_s)
    base = [value for (arm, _), values in seconds.items() if arm == BASELINE for value in values]
    usual = sum(base) / len(base) if base else 0.0
    return {
        release: Reading(sum(values) / len(values) / usual, min(len(values), len(base)))
        for (arm, release), values in seconds.items() if arm == CANARY and usual
    }  # fmt: skip


def count_unsafe(now: Situation) -> dict[str, Reading]:
    """Unsafe runs by release, customers' and probes'."""
    found = defaultdict(int)
    for run in now.runs:
        found[run.release] += run.unsafe > 0
    return {release: Reading(count, count) for release, count in found.items()}


def count_traffic(now: Situation) -> dict[str, Reading]:
    """Customers' runs of all releases; says nothing as long as there has never been one."""
    return {"": Reading(sum(not run.probe for run in now.runs), 0)} if now.before else {}


def read_drift(now: Situation) -> dict[str, Reading]:
    """PSI by what drifts, where the chi-square test agrees that it is no chance."""
    known = [each for each in now.drift if each.psi is not None]
    return {each.what: Reading(each.psi if each.p_value < SURE else 0.0, sum(each.now)) for each in known}


def grown(metric: str, where: str = "", by: str = "release") -> str:
    """PromQL: by how much a counter has grown in the window $w, added up by a label."""
    return f"sum {f'by ({by}) ' if by else ''}(increase({metric}{f'{{{where}}}' if where else ''}[$w]))"


def share(metric: str, where: str, among: str = "") -> str:
    """PromQL: the share of a counter's growth that has these labels."""
    return f"{grown(metric, where)} / {grown(metric, among)}"


def late(metric: str, objective: float) -> str:
    """PromQL: the share of a histogram's values above an edge."""
    return f"1 - {grown(f'{metric}_bucket', f'le={quoted(objective)}')} / {grown(f'{metric}_count')}"


def mean(metric: str, arm: str, by: str = "") -> str:
    """PromQL: the mean of a histogram's values in one arm."""
    where = f"arm={quoted(arm)}"
    return f"{grown(f'{metric}_sum', where, by)} / {grown(f'{metric}_count', where, by)}"


def quoted(value: object) -> str:
    """A label's value."""
    return f'"{value}"'


DURATION, FIRST = "llmops_run_seconds", "llmops_first_token_seconds"
NOT_CANCELLED = 'status!="cancelled"'
FAILED = f'status=~"{"|".join(ERRORS)}"'

SIGNALS = {
    "error_rate": Signal(
        customers(lambda run: None if run.status == "cancelled" else run.status in ERRORS),
        share("llmops_runs_total", FAILED, NOT_CANCELLED), grown("llmops_runs_total", NOT_CANCELLED),
    ),
    "slow_answers": Signal(
        later_than("duration_s", DURATION_OBJECTIVE), late(DURATION, DURATION_OBJECTIVE), grown(f"{DURATION}_count")
    ),
    "slow_first_tokens": Signal(
        later_than("first_token_s", FIRST_TOKEN_OBJECTIVE), late(FIRST, FIRST_TOKEN_OBJECTIVE), grown(f"{FIRST}_count")
    ),
    "slowdown": Signal(
        slowdown,
        f"({mean(DURATION, CANARY, 'release')}) / on () group_left () ({mean(DURATION, BASELINE)})"
        f" and on () {grown(f'{DURATION}_count', f'arm={quoted(BASELINE)}', '')} >= $n",
        grown(f"{DURATION}_count", f"arm={quoted(CANARY)}"),
    ),
    "retrieval_accuracy": Signal(
        share_of(lambda run: run.retrieval_hit), share("llmops_probes_total", 'result="hit"'),
        grown("llmops_probes_total"),
    ),
    "wrong_answers": Signal(
        share_of(lambda run: run.wrong), share("llmops_probe_answers_total", 'result="wrong"'),
        grown("llmops_probe_answers_total"),
    ),
    "satisfaction": Signal(
        customers(lambda run: run.feedback > 0 if run.feedback else None), share("llmops_feedback_total", 'score="up"'),
        grown("llmops_feedback_total"),
    ),
    "handed_to_human": Signal(
        customers(lambda run: run.handed_to_human),
        f"{grown('llmops_handed_to_human_total')} / {grown('llmops_runs_total')}",
        grown("llmops_runs_total"),
    ),
    "unsafe": Signal(count_unsafe, grown("llmops_unsafe_total")),
    "no_traffic": Signal(count_traffic, grown("llmops_runs_total", by=""), subject=""),
    "drift": Signal(read_drift, f"llmops_drift_psi and llmops_drift_p_value < {SURE}", subject="what"),
    "queue": Signal(
        lambda now: {service: Reading(count, 0) for service, count in now.queues.items()}, "llmops_queue_waiting",
        subject="service",
    ),
    "exporter_down": Signal(
        lambda now: {"": Reading(float(not now.readable), 0)},
        '(1 - max(up{job="llmops"})) or absent(up{job="llmops"})', subject="",
    ),
}  # fmt: skip
