"""The monitor of one table: the metrics, the alert loop with its history and its webhook, and what the page shows.

monitor = Monitor("runs.sqlite")
app.include_router(monitor_router(monitor))
async with monitor.running(): ...                  # evaluates the rules every five seconds
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from stage3_agents_llmops.monitoring.alert_history import AlertHistory
from stage3_agents_llmops.monitoring.alert_rules import Rule, load_rules
from stage3_agents_llmops.monitoring.alerting import STEP, Alert, Evaluator, Webhook
from stage3_agents_llmops.monitoring.drift import Reference
from stage3_agents_llmops.monitoring.metrics import RunMetrics
from stage3_agents_llmops.monitoring.quantiles import sure_quantile
from stage3_agents_llmops.monitoring.run_log import RunLog
from stage3_agents_llmops.monitoring.run_record import ERRORS, SERVED, RunRecord, ended
from stage3_agents_llmops.monitoring.summary import Figure, Summary, share, summarise

logger = logging.getLogger(__name__)
POINTS, SMOOTHED = 60, 6  # of a line on the page, and how many of them a value looks back over


class Monitor:
    """Watches one table of runs.

    Args:
        log: the table, or its file.
        rules: None: those of alert_rules.toml.
        normal: the reference of drift; None: the first 500 runs.
        queues: gives runs that wait for a place, by service.
        webhook: URL that is told about alerts.
        history: file of the alerts; None: alerts.jsonl beside the table.
        others: alerts that the pipeline writes; None: canary_alerts.jsonl beside the table.
        notify: called with alerts that began or ended, in the loop's thread.
    """

    def __init__(
        self, log: RunLog | str | Path, *, rules: Sequence[Rule] | None = None,
        normal: Mapping[str, Reference] | None = None, queues: Callable[[], Mapping[str, float]] = dict,
        webhook: str | None = None, history: Path | None = None, others: Path | None = None, step: float = STEP,
        clock: Callable[[], float] = time.time, notify: Callable[[list[Alert]], None] = lambda alerts: None,
    ) -> None:  # fmt: skip
        self.log = log if isinstance(log, RunLog) else RunLog(log)
        self.rules = tuple(rules if rules is not None else load_rules())
        self.clock, self.every, self.notify = clock, step, notify
        self.metrics = RunMetrics(self.log, clock, normal=normal, queues=queues)
        self.evaluator = Evaluator(self.log, self.rules, self.metrics.drift.at, queues)
        self.webhook = Webhook(webhook) if webhook else None
        beside = self.log.path.with_name
        self.history = AlertHistory(history or beside("alerts.jsonl"), others or beside("canary_alerts.jsonl"))
        self.thresholds = {rule.name: rule.above if rule.above is not None else rule.below for rule in self.rules}
        self._fresh = True

    def step(self, now: float | None = None) -> list[Alert]:
        """Evaluate the rules once; note and tell what has changed."""
        now = self.clock() if now is None else now
        changed = self.evaluator.step(now)
        self.history.add(changed, self.thresholds, now)
        if self._fresh and not self.evaluator.active:
            self.history.close_others([], now)
        self._fresh = self._fresh and bool(self.evaluator.active)
        if changed:
            self.notify(changed)
            if self.webhook and not self.webhook.send(changed):
                logger.warning("%s takes no alerts", self.webhook.url)
        return changed

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Monitor"]:
        """Evaluate in the background until the block ends."""
        task = asyncio.create_task(self._loop(), name="alerts")
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _loop(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await asyncio.to_thread(self.step)
            except Exception:  # whatever is wrong with one round, the next one must come
                logger.exception("the alerts could not be evaluated")
            await asyncio.sleep(max(0.2, self.every - (time.monotonic() - began)))

    def alerts(self) -> list[dict[str, Any]]:
        """Every alert that has fired, the newest first: name, family, release, state, since, until, value, ..."""
        return self.history.entries()

    def picture(self, seconds: float = 600.0, now: float | None = None) -> dict[str, Any]:
        """What the page shows: for each release its figures and its lines over the last `seconds`.

        Raises:
            LabError: the table cannot be read.
        """
        now = self.clock() if now is None else now
        runs = [run for run in self.log.window(ended_after=now - seconds) if ended(run) <= now]
        releases: dict[str, list[RunRecord]] = {}
        for run in runs:
            releases.setdefault(run.release or "?", []).append(run)
        return {
            "now": now, "seconds": seconds, "points": POINTS,
            "releases": [one_release(name, each, now, seconds) for name, each in releases.items()],
            "alerts": self.alerts()[:20],
            "pending": [
                {"name": each.name, "subject": each.subject, "since": each.since}
                for each in self.evaluator.active.values() if each.state == "pending"
            ],
            "drift": [drift_line(each) for each in self.metrics.drift.at(now)],
            "queues": dict(self.metrics.queues()),
        }  # fmt: skip


def drift_line(drift: Any) -> dict[str, Any]:
    """One thing that is watched, for the page."""
    return {"what": drift.what, "psi": drift.psi, "p_value": drift.p_value, "shifted": drift.shifted,
            "then": sum(drift.then), "now": sum(drift.now)}  # fmt: skip


def one_release(name: str, runs: Sequence[RunRecord], now: float, seconds: float) -> dict[str, Any]:
    """A release's figures over the whole time, and its lines."""
    customers = [run for run in runs if not run.probe]
    figures = summary_figures(summarise(customers), summarise([run for run in runs if run.probe]))
    return {
        "release": name, "arms": sorted({run.arm for run in runs if run.arm}), "figures": figures,
        "lines": lines(runs, now, seconds), "first": min(ended(run) for run in runs),
    }  # fmt: skip


def summary_figures(customers: Summary, probes: Summary) -> dict[str, Any]:
    """Figures by name: value (None: too few samples) and n."""

    def pair(figure: Figure) -> dict[str, Any]:
        return {"value": figure.value, "n": figure.n}

    names = ("error_rate", "p50", "p95", "p99", "first_token_p95", "citation_clicks", "satisfaction", "resolved",
             "handed_to_human", "guardrails")  # fmt: skip
    n = customers.n
    return {name: pair(getattr(customers, name)) for name in names} | {
        "runs": {"value": n, "n": n},
        "input_tokens": {"value": customers.input_tokens, "n": n},
        "output_tokens": {"value": customers.output_tokens, "n": n},
        "cost": {"value": customers.cost, "n": n},
        "unsafe": {"value": customers.unsafe + probes.unsafe, "n": n + probes.n},
        "retrieval_accuracy": pair(probes.retrieval_accuracy), "wrong": pair(probes.wrong),
    }  # fmt: skip


class Stretch:
    """Sums of the runs that ended in one stretch of time."""

    def __init__(self) -> None:
        self.runs = self.tokens = 0
        self.flags: dict[str, list[bool]] = {name: [] for name in ("error_rate", "retrieval_accuracy", "satisfaction")}
        self.seconds: list[float] = []

    def add(self, run: RunRecord) -> None:
        """Count one run."""
        if run.retrieval_hit is not None:
            self.flags["retrieval_accuracy"].append(run.retrieval_hit)
        if run.probe:
            return
        self.runs += 1
        self.tokens += run.input_tokens + run.output_tokens
        if run.status != "cancelled":
            self.flags["error_rate"].append(run.status in ERRORS)
        if run.feedback:
            self.flags["satisfaction"].append(run.feedback > 0)
        if run.status in SERVED and run.duration_s is not None:
            self.seconds.append(run.duration_s)


def lines(runs: Sequence[RunRecord], now: float, seconds: float) -> dict[str, list[float | None]]:
    """For each line POINTS values, the newest last; None where there was nothing to count.

    Runs are counted by stretch; everything else over the six stretches up to each point, as one stretch alone has too
    few. The median is drawn, because a higher percentile would need more still.
    """
    width = seconds / POINTS
    stretches = [Stretch() for _ in range(POINTS)]
    for run in runs:
        stretches[min(POINTS - 1, max(0, int((ended(run) - now + seconds) / width)))].add(run)
    drawn: dict[str, list[float | None]] = {"runs": [each.runs / width for each in stretches], "tokens": [], "p50": []}
    for place in range(POINTS):
        recent = stretches[max(0, place - SMOOTHED + 1) : place + 1]
        count = sum(each.runs for each in recent)
        drawn["tokens"].append(sum(each.tokens for each in recent) / count if count else None)
        drawn["p50"].append(sure_quantile([value for each in recent for value in each.seconds], 0.5, beyond=2))
        for name in recent[0].flags:
            flags = [flag for each in recent for flag in each.flags[name]]
            drawn.setdefault(name, []).append(share(flags).value)
    return drawn


def safe_picture(monitor: Monitor, seconds: float) -> dict[str, Any]:
    """The picture, or why there is none."""
    try:
        return monitor.picture(seconds)
    except LabError as error:
        return {"error": error.message, "try": error.try_next, "alerts": monitor.alerts()[:20]}
