"""What Prometheus scrapes: counters and histograms that are a view of the table `runs`.

Nothing is counted in memory. Every scrape adds up the table, so an exporter that is restarted shows the same counters
as before, two exporters show the same, and a figure on a dashboard can always be traced back to rows. Counters and
histograms only where a rate or a percentile is wanted, because those can be added over releases, arms and machines.

Labels are `release` and `arm` and words from fixed lists. Anything that a customer or a release can invent (an intent,
an error code, a model's name) is cut to a list: every new value would be a new time series for ever.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from stage3_agents_llmops.monitoring.drift import REFERENCE_RUNS, Drift, Reference, drifts, references
from stage3_agents_llmops.monitoring.run_log import ENDED, RunLog
from stage3_agents_llmops.monitoring.run_record import SERVED, STATUSES, ended

DURATION_OBJECTIVE, FIRST_TOKEN_OBJECTIVE, FIRST_EVENT_OBJECTIVE = 6.0, 5.0, 1.0  # seconds, each a bucket's edge
EDGES = {
    "duration_s": (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0, 64.0),
    "first_token_s": (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0),
    "first_event_s": (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0),
}
TITLES = {"duration_s": "run_seconds", "first_token_s": "first_token_seconds", "first_event_s": "first_event_seconds"}
ERROR_CODES = ("internal", "timeout", "refused", "cut_off", "stale_proposal", "model_unavailable", "429", "502", "503")
MOST_RELEASES, MOST_ARMS = 12, 8
OTHER = "other"
DEBUT = 10.0  # seconds
LOOKED_AT = 1000  # newest runs among which the recent ones with a question, a search, ... are found
SUMS = {
    "runs": "COUNT(*)",
    "input": "SUM(input_tokens)", "output": "SUM(output_tokens)", "cost": "SUM(cost)",
    "guarded": "SUM(guardrails > 0)", "unsafe": "SUM(unsafe > 0)", "handed": "SUM(handed_to_human)",
    "up": "SUM(feedback = 1)", "down": "SUM(feedback = -1)",
    "resolved": "SUM(resolved = 1)", "unresolved": "SUM(resolved = 0)",
    "cited": "SUM(citations > 0)", "clicked": "SUM(citations > 0 AND citation_clicks > 0)",
    "hit": "SUM(retrieval_hit = 1)", "miss": "SUM(retrieval_hit = 0)",
    "wrong": "SUM(wrong = 1)", "right": "SUM(wrong = 0)",
    "last": f"MAX({ENDED})", "first": f"MIN({ENDED})",
}  # fmt: skip
LABELLED = ("hit", "miss", "wrong", "right")
for _name, _edges in EDGES.items():
    SUMS |= {f"{_name}_sum": f"SUM({_name})", f"{_name}_n": f"COUNT({_name})"}
    SUMS |= {f"{_name}_{edge}": f"SUM({_name} <= {edge})" for edge in _edges}
TOTALS = f"SELECT release, arm, status, probe, error, {', '.join(SUMS.values())} FROM runs WHERE {ENDED} <= ? GROUP BY 1, 2, 3, 4, 5"  # noqa: E501
Key = tuple[str, str]  # release, arm


class RunMetrics(Collector):
    """The metrics of one table.

    Args:
        log: the table.
        clock: what counts as now, in seconds since 1970; runs that end later are not there yet.
        debut: seconds for which a release that has just appeared is shown with nothing but zeros. Prometheus computes
            an increase from one scrape to the next; a counter that appears with 30 has not increased for it.
        normal: the reference of drift; None: the first 500 runs of the log, once they are there.
        queues: gives runs that wait, by service process.
    """

    def __init__(
        self, log: RunLog, clock: Callable[[], float] = time.time, debut: float = DEBUT,
        normal: Mapping[str, Reference] | None = None, queues: Callable[[], Mapping[str, float]] = dict,
    ) -> None:  # fmt: skip
        self.log, self.clock, self.debut, self.queues = log, clock, debut, queues
        self.drift = DriftWatch(log, normal)

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the table."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, from the table as it stands."""
        now = self.clock()
        customers, probes, errors = self.totals(now)
        yield from counters(customers, probes, errors)
        for name in EDGES:
            yield histogram(name, customers)
        last = GaugeMetricFamily("llmops_last_run_timestamp_seconds", "when the newest run ended", labels=LABELS)
        for key, statuses in customers.items():
            last.add_metric(key, max((each["last"] for each in statuses.values()), default=0.0))
        yield last
        shift = GaugeMetricFamily("llmops_drift_psi", "population stability index of the newest runs", labels=["what"])
        sure = GaugeMetricFamily("llmops_drift_p_value", "chi-square test beside it", labels=["what"])
        for each in self.drift.at(now):
            if each.psi is not None:
                shift.add_metric([each.what], each.psi)
                sure.add_metric([each.what], each.p_value or 0.0)
        yield shift
        yield sure
        waiting = GaugeMetricFamily("llmops_queue_waiting", "runs that wait for a place to work", labels=["service"])
        for service, count in self.queues().items():
            waiting.add_metric([service], count)
        yield waiting

    def totals(self, now: float) -> tuple[dict, dict, dict]:
        """(release, arm) -> status -> sums of customers' runs; (release, arm) -> sums of probes; errors by code."""
        rows = [dict(zip(("release", "arm", "status", "probe", "error", *SUMS), row, strict=True))
                for row in self.log.query(TOTALS, (now,))]  # fmt: skip
        releases = newest({row["release"] or "": row["last"] for row in reversed(sorted_rows(rows))}, MOST_RELEASES)
        arms = newest({row["arm"] or "": row["last"] for row in reversed(sorted_rows(rows))}, MOST_ARMS)
        customers: dict[Key, dict[str, dict[str, float]]] = {}
        probes: dict[Key, dict[str, float]] = {}
        errors: dict[Key, dict[str, float]] = {}
        debut: dict[Key, float] = {}
        for row in rows:
            key = (row["release"] if row["release"] in releases else OTHER, row["arm"] if row["arm"] in arms else OTHER)
            debut[key] = min(debut.get(key, row["first"]), row["first"])
            customers.setdefault(key, {})
            probes.setdefault(key, defaultdict(float))
            errors.setdefault(key, defaultdict(float))
            into = probes[key] if row["probe"] else customers[key].setdefault(row["status"], defaultdict(float))
            for name in SUMS:
                into[name] = max(into[name], row[name] or 0) if name == "last" else into[name] + (row[name] or 0)
            if not row["probe"]:  # a label counts wherever it comes from
                for name in LABELLED:
                    probes[key][name] += row[name] or 0
            if row["error"] and not row["probe"]:
                errors[key][row["error"] if row["error"] in ERROR_CODES else OTHER] += row["runs"]
        for key in (key for key, first in debut.items() if now < first + self.debut):
            customers[key], probes[key], errors[key] = {}, defaultdict(float), defaultdict(float)
        return customers, probes, errors


LABELS = ["release", "arm"]
COUNTERS = {
    "cost": ("what the tokens cost", "cost"),
    "guardrail": ("runs in which a guardrail stepped in", "guarded"),
    "unsafe": ("runs, probes too, with an unconfirmed write or personal data in the answer", "unsafe"),
    "handed_to_human": ("runs that went to a person", "handed"),
    "cited": ("answers with citations", "cited"),
    "citation_clicked": ("of them, those in which a citation was opened", "clicked"),
}
WORDED = {  # name: (help, label, {its value: the sum})
    "tokens": ("tokens that went into models and came out", "kind", {"input": "input", "output": "output"}),
    "feedback": ("thumbs", "score", {"up": "up", "down": "down"}),
    "resolved": ("is it known that the run helped?", "resolved", {"yes": "resolved", "no": "unresolved"}),
}
PROBED = {
    "probes": ("labelled probes: was the right article cited?", "result", {"hit": "hit", "miss": "miss"}),
    "probe_answers": ("labelled probes: was the answer wrong?", "result", {"wrong": "wrong", "right": "right"}),
}


def counters(customers: Mapping, probes: Mapping, errors: Mapping) -> Iterator[Metric]:
    """Everything that only grows."""
    runs = CounterMetricFamily("llmops_runs", "customers' runs that ended", labels=[*LABELS, "status"])
    for key, statuses in customers.items():
        for status in STATUSES:  # all of them from the start: an increase needs a zero to begin from
            runs.add_metric([*key, status], statuses.get(status, {}).get("runs", 0))
    yield runs
    failed = CounterMetricFamily("llmops_errors", "runs that ended with an error", labels=[*LABELS, "code"])
    for key in customers:
        for code in (*ERROR_CODES, OTHER):
            failed.add_metric([*key, code], errors[key][code])
    yield failed
    whole = {key: {name: sum(each[name] for each in statuses.values()) for name in SUMS if name != "last"}
             for key, statuses in customers.items()}  # fmt: skip
    for name, (help, part) in COUNTERS.items():
        family = CounterMetricFamily(f"llmops_{name}", help, labels=LABELS)
        for key, sums in whole.items():
            # probes are not customers, but what they find unsafe is
            family.add_metric(key, sums[part] + (probes[key][part] if part == "unsafe" else 0))
        yield family
    for table, source in ((WORDED, whole), (PROBED, probes)):
        for name, (help, label, parts) in table.items():
            family = CounterMetricFamily(f"llmops_{name}", help, labels=[*LABELS, label])
            for key, sums in source.items():
                for value, part in parts.items():
                    family.add_metric([*key, value], sums[part])
            yield family


def histogram(name: str, customers: Mapping[Key, Mapping[str, Mapping[str, float]]]) -> HistogramMetricFamily:
    """Seconds of the runs that were served."""
    family = HistogramMetricFamily(f"llmops_{TITLES[name]}", "of customers' runs that were served", labels=LABELS)
    for key, statuses in customers.items():
        served = [sums for status, sums in statuses.items() if status in SERVED]

        def total(part: str, served: list = served) -> float:
            return sum(sums[f"{name}_{part}"] for sums in served)

        buckets = [(floatToGoString(edge), total(str(edge))) for edge in EDGES[name]]
        family.add_metric(key, [*buckets, ("+Inf", total("n"))], total("sum"))
    return family


def sorted_rows(rows: list[dict]) -> list[dict]:
    """The one that was used last, last."""
    return sorted(rows, key=lambda row: row["last"])


def newest(last_used: Mapping[str, float], most: int) -> set[str]:
    """The names that were used last."""
    return set(sorted(last_used, key=lambda name: -last_used[name])[:most])


class DriftWatch:
    """Drift of the newest runs, read at most once a second."""

    def __init__(self, log: RunLog, normal: Mapping[str, Reference] | None = None) -> None:
        self.log, self.normal, self.given = log, normal, normal is not None
        self.since = 0.0  # the reference's last run, where it is a part of the log
        self._at, self._found = -1.0, list[Drift]()

    def at(self, now: float) -> list[Drift]:
        """The drift of the runs that have ended by then; none before there is something to compare with."""
        if abs(now - self._at) >= 1.0:
            self._at, self._found = now, self._read(now)
        return self._found

    def _read(self, now: float) -> list[Drift]:
        recent = [run for run in self.log.ends(LOOKED_AT, until=now) if ended(run) <= now]
        if not self.given:
            if self.normal is None and len(old := self.log.ends(REFERENCE_RUNS, newest=False)) == REFERENCE_RUNS:
                self.normal, self.since = references(old), old[-1].started
            recent = [run for run in recent if run.started > self.since]
        return drifts(self.normal or {}, recent)


def exposition(metrics: RunMetrics) -> bytes:
    """The text that a scrape gets."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return generate_latest(registry)
