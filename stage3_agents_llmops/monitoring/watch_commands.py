"""`drift`, `traces`, `alerts`: what a table of runs says, in the terminal."""

import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.tree import Tree

from labkit.cli import option, require_at_least
from labkit.errors import LabError
from labkit.files import atomic_path
from labkit.progress import console
from stage3_agents_llmops.monitoring.alert_rules import RULES, load_rules, prometheus_rules, span
from stage3_agents_llmops.monitoring.alerting import firing
from stage3_agents_llmops.monitoring.drift import (
    REFERENCE_RUNS,
    drifts,
    load_references,
    references,
    save_references,
)
from stage3_agents_llmops.monitoring.run_log import RunLog
from stage3_agents_llmops.monitoring.run_record import ended
from stage3_agents_llmops.monitoring.serve_command import existing_log


@dataclass(frozen=True)
class DriftConfig:
    """What is compared with what."""

    log: Path | None = option(None, "table of runs; none: the pipeline's")
    reference: Path | None = option(None, "what is normal, a file; none: the first 500 runs of the table")
    recent: int = option(200, "newest questions that are compared")
    save: Path | None = option(None, "keep the reference of this table in a file")


def run_drift(config: DriftConfig, preset: str) -> int:
    """PSI and chi-square of each thing that is watched; exit code 1 when one has shifted."""
    require_at_least(config, 1, "recent")
    with RunLog(existing_log(config.log)) as log:
        rows = log.window(probes=False)
    if config.reference:
        normal = load_references(config.reference)
    else:
        if len(rows) < 2 * REFERENCE_RUNS // 3:
            raise LabError(f"{len(rows)} runs are too few for a reference", "--reference FILE, or more traffic")
        normal, rows = references(rows[:REFERENCE_RUNS]), rows[REFERENCE_RUNS:]
    if config.save:
        save_references(normal, config.save)
    found = drifts(normal, rows, config.recent)
    table = Table(title="drift")
    for column in ("what", "then", "now", "PSI", "p", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    for each in found:
        psi = "too few samples" if each.psi is None else f"{each.psi:.3f}"
        p_value = "" if each.p_value is None else f"{each.p_value:.2g}"
        table.add_row(each.what, str(sum(each.then)), str(sum(each.now)), psi, p_value,
                      "shifted" if each.shifted else "")  # fmt: skip
    console.print(table)
    return int(any(each.shifted for each in found))


@dataclass(frozen=True)
class AlertsConfig:
    """The rules, and what they say."""

    log: Path | None = option(None, "table of runs; none: the pipeline's")
    rules: Path = option(RULES, "alert rules, a TOML file")
    scale: float = option(1.0, "multiplies the rules' windows")
    write: Path | None = option(None, "write the rules for Prometheus into a file, and nothing else")
    at_end: bool = option(False, "judge the moment of the last run instead of now")


def run_alerts(config: AlertsConfig, preset: str) -> int:
    """What fires now; exit code 1 when something does."""
    rules = load_rules(config.rules, config.scale)
    if config.write:
        with atomic_path(config.write) as temporary:
            temporary.write_text(prometheus_rules(rules), encoding="utf-8")
        console.print(f"{len(rules)} rules in {config.write}", markup=False)
        return 0
    with RunLog(existing_log(config.log)) as log:
        newest = log.ends(1)
        now = max((ended(row) for row in newest), default=time.time()) if config.at_end else time.time()
        found = firing(log, now=now, rules=rules)
    table = Table(title=f"firing at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}")
    for column in ("alert", "severity", "about", "value", "samples", "for"):
        table.add_column(column, justify="right" if column in ("value", "samples", "for") else "left")
    for alert in found:
        table.add_row(alert.name, alert.severity, alert.subject or "all", f"{alert.value:.3g}", f"{alert.n:.0f}",
                      span(round(now - alert.since)))  # fmt: skip
    console.print(table if found else f"nothing fires ({len(rules)} rules)")
    return int(bool(found))


@dataclass(frozen=True)
class TracesConfig:
    """Which traces."""

    store: Path | None = option(None, "file of traces; none: traces.sqlite beside the pipeline's table")
    log: Path | None = option(None, "table of runs that the traces belong to; none: the pipeline's")
    id: str | None = option(None, "show one trace: its id, or a run's")
    count: int = option(15, "newest traces that are listed")
    send: str | None = option(None, "send what MLflow has not taken yet: http://127.0.0.1:5000 or sqlite:///mlflow.db")


def run_traces(config: TracesConfig, preset: str) -> int:
    """List traces, show one as a tree, or send what is left to MLflow.

    Raises:
        LabError: no such file or trace, or MLflow does not take them.
    """
    from stage3_agents_llmops.monitoring.otlp import mlflow_sender
    from stage3_agents_llmops.monitoring.trace_store import TraceStore

    require_at_least(config, 1, "count")
    log_path = config.log if config.log else None
    path = config.store or existing_log(log_path).with_name("traces.sqlite")
    if not path.is_file():
        raise LabError(f"there are no traces at {path}", "--store FILE")
    store = TraceStore(path, mlflow_sender(config.send) if config.send else None)
    try:
        if config.send:
            sent, left = store.send_rest(), store.unsent()
            if left:
                raise LabError(f"{config.send} took {sent} spans and not the other {left}", "is MLflow running?")
            console.print(f"{sent} spans sent", markup=False)
        elif config.id:
            show_trace(store, config.id, log_path)
        else:
            list_traces(store, config.count)
    finally:
        store.shutdown()
    return 0


def list_traces(store, count: int) -> None:
    """The newest traces."""
    table = Table(title="traces")
    for column in ("trace", "run", "release", "arm", "status", "s"):
        table.add_column(column, justify="right" if column == "s" else "left", no_wrap=column == "trace")
    for root in store.roots(count):
        known = root["attributes"]
        seconds = f"{(root['end_ns'] - root['start_ns']) / 1e9:.3f}"
        names = ("shop.run_id", "shop.release", "shop.arm", "shop.status")
        table.add_row(root["trace_id"], *(str(known.get(name, "")) for name in names), seconds)
    console.print(table)


def show_trace(store, id: str, log_path: Path | None) -> None:
    """One trace as a tree, and its row. Raises LabError: there is none."""
    row = None
    if log_path is None or log_path.is_file():
        try:
            with RunLog(existing_log(log_path)) as log:
                found = log.query("SELECT run_id, trace_id FROM runs WHERE run_id = ? OR trace_id = ?", (id, id))
                row = log.get(found[0][0]) if found else None
        except LabError:
            row = None
    spans = store.trace(row.trace_id if row else id)
    if not spans:
        raise LabError(f"there is no trace {id}", "traces lists them")
    nodes: dict[str | None, Tree] = {}
    for each in spans:
        seconds = (each["end_ns"] - each["start_ns"]) / 1e9
        label = f"{each['name']}  {seconds:.3f} s{'  ERROR' if each['status'] == 'error' else ''}"
        parent = nodes.get(each["parent_id"])
        nodes[each["span_id"]] = parent.add(label) if parent else Tree(label)
        for event in each["events"]:
            more = ", ".join(f"{name.removeprefix('shop.')} {value}" for name, value in event.items()
                             if name not in ("name", "at_ns"))  # fmt: skip
            nodes[each["span_id"]].add(f"· {event['name']}: {more}")
    console.print(nodes[spans[0]["span_id"]])
    if row:
        where = f"release {row.release or '?'}, arm {row.arm or '?'}"
        tokens = f"{row.input_tokens} + {row.output_tokens} tokens"
        console.print(f"run {row.run_id}: {row.status}, {where}, {tokens}, thumb {row.feedback}", markup=False)
