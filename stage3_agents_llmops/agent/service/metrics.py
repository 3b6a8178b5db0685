"""What /metrics shows of the service. A registry of its own, so that two services in one process do not add up.

Counters and histograms only, so that a monitor computes rates and shares over any time; the 0.3 s bucket edge lies on
the objective for the first event, because a quantile that falls between two edges is a guess.
"""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import Message, Scope

FIRST = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)  # seconds
WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 16.0, 32.0, 64.0, 128.0)


class ServiceMetrics:
    """The figures, and what an event adds to them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"agent_{name}", help, labels, registry=self.registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"agent_{name}", help, buckets=buckets, registry=self.registry)

        def gauge(name: str, help: str) -> Gauge:
            return Gauge(f"agent_{name}", help, registry=self.registry)

        self.runs = counter("runs", "runs that ended", "reason")
        self.resumed = counter("runs_resumed", "runs that a later process went on with")
        self.refused = counter("refused", "requests refused because too much was going on", "what")
        self.run_seconds = histogram("run_seconds", "from the request to the run's end", WHOLE)
        self.first_event = histogram("first_event_seconds", "from the request to the first event", FIRST)
        self.first_token = histogram("first_token_seconds", "from the request to the first token of the answer", FIRST)
        self.active = gauge("runs_active", "runs accepted and not over")
        self.waiting = gauge("runs_waiting", "of them, those that wait for a place to work")
        self.streams = gauge("streams", "open event streams")
        self.events = counter("events", "events that runs told", "type")
        self.replayed = counter("events_replayed", "events sent again from the log")
        self.resyncs = counter("resyncs", "readers whose cursor was no longer held")
        self.unstored = counter("events_unstored", "events that could not be written to the database")
        self.slow_readers = counter("slow_readers", "readers cut off because they did not read")
        self.feedback = counter("feedback", "thumbs", "score")
        self.tokens = counter("tokens", "tokens of model calls", "kind")
        self.tools = counter("tool_calls", "results of tools", "tool", "ok")
        self.guardrails = counter("guardrails", "findings of guardrails", "stage")
        self.errors = counter("errors", "error events", "code")
        self.requests = counter("http_requests", "answers", "route", "method", "status")

    def count_answer(self, scope: Scope, message: Message) -> None:
        """By route, never by path: ids would make a series of every run."""
        path = getattr(scope.get("route"), "path", "other")
        self.requests.labels(path, scope["method"][:10], message["status"]).inc()

    def saw(self, type: str, data: dict[str, Any]) -> None:
        """Count one event of a run."""
        self.events.labels(type).inc()
        if type == "usage":
            self.tokens.labels("input").inc(data["input_tokens"] or 0)
            self.tokens.labels("output").inc(data["output_tokens"] or 0)
        elif type == "tool" and data["phase"] == "result":
            self.tools.labels(data["name"], str(bool(data.get("ok"))).lower()).inc()
        elif type == "guardrail":
            self.guardrails.labels(data["stage"]).inc()
        elif type == "error":
            self.errors.labels(data["code"]).inc()
