"""`demo`: two releases' traffic on a fast clock; one of them turns bad, is seen, goes back, and the alerts clear."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rich.table import Table

from labkit.cli import option, require_at_least
from labkit.errors import LabError
from labkit.progress import console, progress
from labkit.runs import Run, shown, start_run
from labkit.summary import band_text, in_band
from stage3_agents_llmops.monitoring.agreement import disagreements
from stage3_agents_llmops.monitoring.alerting import STEP, Alert
from stage3_agents_llmops.monitoring.figures import EXPORTED, Percentile, plot_alerts, plot_drift, plot_percentiles
from stage3_agents_llmops.monitoring.metrics import EDGES, exposition
from stage3_agents_llmops.monitoring.monitor import Monitor
from stage3_agents_llmops.monitoring.quantiles import bucket_counts, bucket_quantile, exact_quantile, same_bucket
from stage3_agents_llmops.monitoring.run_log import RunLog
from stage3_agents_llmops.monitoring.run_record import SERVED, RunRecord, Seen, ended
from stage3_agents_llmops.monitoring.traffic import (
    SHIFTED,
    Behaviour,
    Share,
    customer_runs,
    probe_runs,
)

GOOD, BAD = Behaviour(), Behaviour(median=1.5, errors=0.15, hits=0.25, thumbs_up=0.4)
STABLE, CANARY = "5eed00c0ffee", "bad0c0de1234"
EXPECTED = {"ErrorRateHigh", "SlowerThanBaseline", "RetrievalAccuracyLow"}
QUANTILES = (0.5, 0.9, 0.95, 0.99)
TRACED = 20  # of so many runs one is traced


@dataclass(frozen=True)
class DemoConfig:
    """How much traffic."""

    rate: float = option(8.0, "customers' runs a second")
    minutes: float = option(3.0, "minutes of each of the four phases")
    seed: int = option(1, "of the traffic")


PRESETS = {
    "smoke": DemoConfig(rate=5.0, minutes=2.0),
    "cpu": DemoConfig(),
    "study": DemoConfig(rate=20.0, minutes=10.0),
}
PRESETS["gpu"] = PRESETS["study"]  # nothing here computes on a GPU


@dataclass
class Story:
    """What happened, in seconds since the demo's start."""

    start: float
    phase: float
    alerts: list[tuple[float, Alert]] = field(default_factory=list)

    @property
    def fault(self) -> float:
        """When the canary turned bad."""
        return self.start + self.phase

    @property
    def back(self) -> float:
        """When it was taken out of the traffic."""
        return self.start + 2 * self.phase

    @property
    def shift(self) -> float:
        """When customers began to ask for other things."""
        return self.start + 3 * self.phase

    @property
    def end(self) -> float:
        """When the demo was over."""
        return self.start + 4 * self.phase


def traffic(story: Story, config: DemoConfig, trace: Callable[[RunRecord, list[Seen]], object]) -> list[RunRecord]:
    """All rows, in the order in which the runs ended."""

    def shares(canary: Behaviour | None) -> list[Share]:
        both = [Share("stable", STABLE, 70, GOOD), Share("baseline", STABLE, 15, GOOD)]
        return [*both, Share("canary", CANARY, 15, canary)] if canary else both

    rows: list[RunRecord] = []
    phases = [(story.start, shares(GOOD), None), (story.fault, shares(BAD), None),
              (story.back, shares(None), None), (story.shift, shares(None), SHIFTED)]  # fmt: skip
    for number, (begin, arms, mix) in enumerate(phases):
        seed = f"{config.seed}-{number}"
        rows += customer_runs(seed, arms, begin, story.phase, config.rate, mix, trace)
        rows += probe_runs(seed, arms, begin, story.phase, every=5.0)
    return sorted(rows, key=ended)


@contextmanager
def tracing(path: Path) -> Iterator[Callable[[RunRecord, list[Seen]], object]]:
    """Traces every twentieth run into a file."""
    from stage3_agents_llmops.monitoring.trace_store import TraceStore
    from stage3_agents_llmops.monitoring.tracing import RunTracer

    tracer, count = RunTracer(TraceStore(path)), itertools.count()
    try:
        yield lambda row, seen: tracer.trace(row, seen) if next(count) % TRACED == 0 else None
    finally:
        tracer.close()


@contextmanager
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """A webhook of one's own: its address, and what came."""
    came: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/alerts", came
    finally:
        server.shutdown()
        server.server_close()


def run_demo(config: DemoConfig, preset: str) -> None:
    """Let it happen, watch it, and compare what was seen with what is known."""
    require_at_least(config, 1, "rate")
    if config.minutes < 2:
        raise LabError("--minutes below 2 is less than the rules look back", "--minutes 2")
    with start_run("stage3", "monitoring", "demo", config, preset, config.seed) as run:
        phase = 60.0 * config.minutes
        story = Story(time.time() - 4 * phase, phase)
        with tracing(run.dir / "traces.sqlite") as trace:
            rows = traffic(story, config, trace)
        with RunLog(run.dir / "runs.sqlite") as log, receiver() as (url, came):
            monitor = Monitor(log, webhook=url, history=run.dir / "alerts.jsonl")
            play(monitor, log, rows, story)
            time.sleep(0.05)
            record_alerts(run, story, len(came))
            record_agreement(run, monitor, log, story)
            record_drift(run, monitor, story)
        record_percentiles(run, rows)
        marks = {"canary turns bad": story.fault, "taken back": story.back, "other questions": story.shift}
        span = (story.start, story.end)
        plot_alerts(rows, story.alerts, span, {"stable": STABLE, "canary": CANARY}, marks, run.dir / "alerts.png")
        run.figure("alerts.png", "errors of both releases, and which alert fired when")
        run.artefact("runs.sqlite", "run log")
        run.artefact("traces.sqlite", "traces")
        run.metric("runs", len(rows), "", None, "rows of customers and probes")
        console.print(alert_table(story))
        console.print(figure_table(run))
        run.learnt("A percentile is computed last, from counts that were added; averaged percentiles are nobody's")
        run.learnt("An alert needs a threshold, a window, a patience and a number of samples; each has its price")
        run.next(f"python -m stage3_agents_llmops.monitoring serve --log {shown(run.dir)}/runs.sqlite")


def play(monitor: Monitor, log: RunLog, rows: Sequence[RunRecord], story: Story) -> None:
    """Let the rows come in as they would have, and evaluate the rules every five seconds of the demo's clock."""
    place, now = 0, story.start
    times = [story.start + STEP * (number + 1) for number in range(int((story.end - story.start) / STEP))]
    for now in progress(times, description="watching"):
        first = place
        while place < len(rows) and ended(rows[place]) <= now:
            place += 1
        log.add(*rows[first:place])
        story.alerts += [(now, alert) for alert in monitor.step(now)]


def record_alerts(run: Run, story: Story, notified: int) -> None:
    """When which alert came and went; what came for nothing."""
    fired = [(at, alert) for at, alert in story.alerts if alert.state == "firing"]
    right = [(at, alert) for at, alert in fired if alert.release == CANARY and story.fault <= at]
    drifted = [at for at, alert in fired if alert.name == "Drift" and at >= story.shift]
    false = [alert for at, alert in fired if alert not in [each for _, each in right] and not
             (alert.name == "Drift" and at >= story.shift)]  # fmt: skip
    ends = {alert.name: at for at, alert in story.alerts if alert.state == "resolved" and alert.release == CANARY}
    names = {alert.name for _, alert in right}
    run.metric("right_alerts", len(EXPECTED & names), "", (len(EXPECTED), None), "errors, latency and retrieval each")
    first = min((at for at, _ in right), default=float("nan"))
    run.metric("detection", first - story.fault, "s", (None, 60), "from the fault to the first alert")
    cleared = max((at for name, at in ends.items() if name in EXPECTED), default=float("nan"))
    run.metric("clearing", cleared - story.back, "s", (None, 200), "from the rollback until the three have cleared")
    run.metric("false_alerts", len(false), "", (None, 0), "about the good release, or before the fault")
    shift = min(drifted, default=float("nan")) - story.shift
    run.metric("drift_detection", shift, "s", (None, 300), "from the shift of the questions to the alert")
    run.metric("notifications", notified, "", (1, None), "that the webhook took")


def record_agreement(run: Run, monitor: Monitor, log: RunLog, story: Story) -> None:
    """The exposition against the rows, and how long a scrape takes."""
    monitor.metrics.clock = lambda: story.end
    began = time.perf_counter()
    text = exposition(monitor.metrics).decode()
    run.metric("scrape", 1000 * (time.perf_counter() - began), "ms", None, "one scrape of this table")
    rows = [row for row in log.window() if ended(row) <= story.end]
    run.metric("disagreements", len(disagreements(text, rows)), "", (None, 0), "samples that differ from the rows")


def record_drift(run: Run, monitor: Monitor, story: Story) -> None:
    """PSI at the end, and the picture of what has shifted."""
    found = {each.what: each for each in monitor.metrics.drift.at(story.end)}
    if intent := found.get("intent"):
        run.metric("psi_intents", intent.psi or 0.0, "", (0.25, None), "intents after the shift against the reference")
        plot_drift(list(found.values()), run.dir / "drift.png")
        run.figure("drift.png", "what customers asked for then and now, and the PSI of each")


def record_percentiles(run: Run, rows: Sequence[RunRecord]) -> None:
    """Exact percentiles against those from buckets, and against the mean of percentiles."""
    by_arm: dict[str, list[float]] = {}
    for row in rows:
        if not row.probe and row.status in SERVED and row.duration_s is not None:
            by_arm.setdefault(row.arm, []).append(row.duration_s)
    seconds = [value for values in by_arm.values() for value in values]
    percentiles = [percentile(q, seconds, list(by_arm.values())) for q in QUANTILES]
    right = all(same_bucket(each.exact, each.buckets, EDGES["duration_s"]) for each in percentiles)
    run.metric("same_bucket", float(right), "", (1, None), "every estimate lies in the exact value's bucket")
    p95 = next(each for each in percentiles if each.q == 0.95)
    run.metric("p95_exact", p95.exact, "s", None, "of all served runs")
    run.metric("p95_buckets", p95.buckets, "s", None, "from the exported buckets")
    run.metric("p95_averaged", p95.averaged, "s", None, "mean of the arms' P95: wrong, for comparison")
    plot_percentiles(seconds, percentiles, run.dir / "percentiles.png")
    run.figure("percentiles.png", "the same answers: exact percentiles, from buckets, and averaged")


def percentile(q: float, seconds: Sequence[float], parts: Sequence[Sequence[float]]) -> Percentile:
    """One percentile, computed four ways."""
    edges = {name: list(each) for name, each in EXPORTED.items()}
    ways = {name: bucket_quantile(each, bucket_counts(seconds, each), q) or 0.0 for name, each in edges.items()}
    averaged = sum(exact_quantile(each, q) for each in parts) / len(parts)
    return Percentile(q, exact_quantile(seconds, q), ways["objective"], ways["doubling"], averaged)


def alert_table(story: Story) -> Table:
    """What fired, in the demo's minutes."""
    table = Table(title="alerts (minutes of the demo)")
    for column in ("alert", "about", "state", "at", "value", "samples"):
        table.add_column(column, justify="left" if column in ("alert", "about", "state") else "right")
    for at, alert in story.alerts:
        minutes = f"{(at - story.start) / 60:.2f}"
        table.add_row(alert.name, alert.subject or "all", alert.state, minutes, f"{alert.value:.3g}", f"{alert.n:.0f}")
    return table


def figure_table(run: Run) -> Table:
    """The figures, each with its band."""
    table = Table(title="what was seen")
    for column in ("figure", "value", "expected", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, entry in run.report["metrics"].items():
        value = "-" if entry["value"] is None else f"{entry['value']:.4g} {entry['unit']}".strip()
        mark = "" if entry["band"] is None else "ok" if in_band(entry) else "NO"
        table.add_row(f"{name}  {entry['meaning']}", value, band_text(entry["band"]), mark)
    return table
