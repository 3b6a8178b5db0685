"""The lab's own evaluator of the alert rules: pending, firing, resolved, and whom to tell.

It reads the table `runs` itself, so alerts work where Prometheus is not installed; where it is, both must agree. The
states are Prometheus's: a rule whose condition holds is *pending*; when it has held at every evaluation for the rule's
`for`, it is *firing*; when it holds no longer it is *resolved* (a pending one just disappears).
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from labkit.errors import LabError
from stage3_agents_llmops.monitoring.alert_rules import Rule, load_rules
from stage3_agents_llmops.monitoring.drift import Drift
from stage3_agents_llmops.monitoring.metrics import DriftWatch
from stage3_agents_llmops.monitoring.run_log import RunLog
from stage3_agents_llmops.monitoring.run_record import RunRecord, ended
from stage3_agents_llmops.monitoring.signals import SIGNALS, Situation

STEP = 5.0  # seconds between evaluations, as in alerts.yml


@dataclass(frozen=True)
class Alert:
    """A rule that is broken for a subject: a release, a thing that drifts, or "" for all."""

    name: str
    family: str
    severity: str
    subject: str
    about: str  # what the subject is: release, what (drifts), service, or ""
    state: str  # pending, firing, resolved
    value: float
    n: float
    since: float  # the condition has held since then
    fired: float | None  # seconds since 1970
    text: str
    text_zh: str

    @property
    def release(self) -> str | None:
        """The release that it is about, if it is about one."""
        return self.subject if self.about == "release" else None


class Evaluator:
    """Evaluates the rules again and again; `step` returns what has changed.

    Args:
        rules: None: those of alert_rules.toml.
        drift: gives the drift at a time; None: no drift alerts.
        queues: gives runs that wait, by service.
    """

    def __init__(
        self, log: RunLog, rules: Sequence[Rule] | None = None, drift: Callable[[float], Sequence[Drift]] | None = None,
        queues: Callable[[], Mapping[str, float]] = dict,
    ) -> None:  # fmt: skip
        self.log, self.rules = log, tuple(rules if rules is not None else load_rules())
        self.drift, self.queues = drift or (lambda now: ()), queues
        self.longest = max(rule.window for rule in self.rules)
        self.active: dict[tuple[str, str], Alert] = {}

    def step(self, now: float, runs: Sequence[RunRecord] | None = None) -> list[Alert]:
        """Evaluate all rules; returns the alerts that began to fire or were resolved.

        Args:
            runs: rows that were read already, in the order in which they ended, for a look at the past.
        """
        try:
            if runs is None:
                runs = sorted(self.log.window(ended_after=now - self.longest), key=ended)
            before = bool(runs) or bool(self.log.ends(1, until=now))
            drift, readable = self.drift(now), True
        except LabError:
            runs, before, drift, readable = [], False, (), False
        last = bisect_right(runs, now, key=ended)
        changed = []
        for rule in self.rules:
            inside = runs[bisect_right(runs, now - rule.window, key=ended) : last]
            changed += self._judge(rule, Situation(inside, before, drift, self.queues(), readable), now)
        return changed

    def _judge(self, rule: Rule, situation: Situation, now: float) -> list[Alert]:
        readings = SIGNALS[rule.signal].read(situation)
        broken = {subject: reading for subject, reading in readings.items() if rule.broken(reading)}
        changed = []
        for (name, subject), alert in list(self.active.items()):
            if name == rule.name and subject not in broken:
                del self.active[name, subject]
                if alert.state == "firing":
                    changed.append(replace(alert, state="resolved"))
        for subject, reading in broken.items():
            before = self.active.get((rule.name, subject))
            alert = next_state(rule, subject, before, now)
            alert = replace(alert, value=reading.value, n=reading.n)
            self.active[rule.name, subject] = alert
            if alert.state == "firing" and (before is None or before.state != "firing"):
                changed.append(alert)
        return changed

    @property
    def firing(self) -> list[Alert]:
        """What fires now, the longest first."""
        return sorted((each for each in self.active.values() if each.state == "firing"), key=lambda each: each.since)


# exercise: monitoring.next_state
def next_state(rule: Rule, subject: str, before: Alert | None, now: float) -> Alert:
    """The alert of a rule whose condition holds now.

    The first time it is pending since now; it fires at the first evaluation at which the condition has held for at
    least `rule.hold` seconds (at once where that is 0), and goes on firing with the same `since` and `fired`.

    Args:
        before: the alert after the evaluation before; None when the condition did not hold then.
    """
    since = before.since if before else now
    fires = (before is not None and before.state == "firing") or now - since >= rule.hold
    fired = (before.fired if before and before.fired is not None else now) if fires else None
    state, about = "firing" if fires else "pending", SIGNALS[rule.signal].subject
    return Alert(rule.name, rule.family, rule.severity, subject, about, state, 0.0, 0, since, fired, rule.en, rule.zh)


# end exercise


def firing(
    run_log: RunLog, *, now: float | None = None, release: str | None = None, rules: Sequence[Rule] | None = None,
) -> list[Alert]:  # fmt: skip
    """What fires at a moment, from the rows alone: the time before it is evaluated again, step by step.

    It goes back one minute further than the longest `for`, so an alert's `since` is at most that old. Drift is taken
    as it is now.

    Args:
        release: only alerts about this release; None: all.
    """
    now = time.time() if now is None else now
    watch = DriftWatch(run_log)
    evaluator = Evaluator(run_log, rules, lambda _: watch.at(now))
    steps = int((max(rule.hold for rule in evaluator.rules) + 60.0) / STEP)
    try:
        rows = sorted(run_log.window(ended_after=now - steps * STEP - evaluator.longest), key=ended)
    except LabError:
        rows = None
    for place in range(steps, -1, -1):
        evaluator.step(now - place * STEP, rows)
    return [alert for alert in evaluator.firing if release is None or alert.release == release]


class Webhook:
    """Sends alerts to a URL, in the form that Prometheus's Alertmanager uses (version 4 of its webhook).

    A receiver that is down must not stop the monitoring: `send` returns whether it was taken.
    """

    def __init__(self, url: str, timeout: float = 3.0) -> None:
        self.url, self.timeout = url, timeout
        self.failed = 0

    def send(self, alerts: Sequence[Alert]) -> bool:
        """Tell about alerts that began or ended."""
        if not alerts:
            return True
        try:
            reply = httpx.post(self.url, json=notification(alerts), timeout=self.timeout, trust_env=False)
            taken = reply.is_success
        except (httpx.HTTPError, httpx.InvalidURL):
            taken = False
        self.failed += not taken
        return taken


def notification(alerts: Sequence[Alert]) -> dict[str, Any]:
    """The JSON of a notification."""
    entries = [
        {
            "status": alert.state,
            "labels": {
                "alertname": alert.name,
                "severity": alert.severity,
                "family": alert.family,
                **({alert.about: alert.subject} if alert.about else {}),
            },
            "annotations": {"summary": alert.text, "summary_zh": alert.text_zh, "value": f"{alert.value:.4g}"},
            "startsAt": iso(alert.fired or alert.since),
        }
        for alert in alerts
    ]
    status = "firing" if any(alert.state == "firing" for alert in alerts) else "resolved"
    return {"version": "4", "status": status, "receiver": "course", "alerts": entries}


def iso(seconds: float) -> str:
    """A time as RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
