"""What the gateway counts of itself. What the releases do is counted from the run log, by the monitoring lab."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import Message, Scope

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class GatewayMetrics:
    """A registry of its own, so that two gateways in one process do not add up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"gateway_{name}", help, labels, registry=self.registry)

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(f"gateway_{name}", help, labels, registry=self.registry)

        self.requests = counter("http_requests", "answers to customers", "method", "status")
        self.runs = counter("runs", "runs that a backend has accepted", "arm", "release")
        self.rescued = counter("runs_rescued", "runs that another arm took because the customer's own did not", "arm")
        self.moved = counter("runs_moved", "runs that were read to their end at another backend than the first")
        self.backend_failures = counter("backend_failures", "requests that a backend did not answer", "arm")
        self.exposures = counter("exposures", "customers who met an arm for the first time", "arm")
        self.unrecorded = counter("runs_unrecorded", "runs whose row could not be written")
        self.shadow = counter("shadow_runs", "copies of customers' messages", "outcome")
        self.weight = gauge("arm_weight", "per cent of the customers", "arm", "release")
        self.number = gauge("routes_number", "number of the table in force")
        self.streams = gauge("streams", "open event streams of customers")
        self.following = gauge("runs_following", "runs that are being read")
        self.accept = Histogram("gateway_accept_seconds", "from a customer's message to the backend's 202", ["arm"],
                                buckets=SECONDS, registry=self.registry)  # fmt: skip

    def count_answer(self, scope: Scope, message: Message) -> None:
        """Never by path: ids would make a series of every run."""
        self.requests.labels(scope["method"][:10], message["status"]).inc()
