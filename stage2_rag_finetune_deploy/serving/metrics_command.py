"""`metrics`: what a running server says about itself, read from /metrics and shown as a person reads it."""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from stage2_rag_finetune_deploy.serving.openai_client import SERVE, Client

PREFIX = "vllm:"
SINGLE = (  # name, what it says
    ("num_requests_running", "requests in the batch now"),
    ("num_requests_waiting", "requests that wait for a place"),
    ("kv_cache_usage_perc", "share of the KV cache's blocks in use"),
    ("num_preemptions_total", "requests put back because blocks ran out"),
    ("prefix_cache_hits_total", "prompt tokens found in the prefix cache"),
    ("prefix_cache_queries_total", "prompt tokens looked for there"),
    ("prompt_tokens_total", "prompt tokens so far"),
    ("generation_tokens_total", "new tokens so far"),
    ("request_success_total", "requests finished so far"),
)
HISTOGRAMS = (
    ("time_to_first_token_seconds", "time to the first token"),
    ("inter_token_latency_seconds", "time between tokens"),
    ("request_queue_time_seconds", "wait in the queue"),
    ("e2e_request_latency_seconds", "whole request"),
)


@dataclass(frozen=True)
class MetricsConfig:
    """Which server."""

    url: str = option("http://127.0.0.1:8000", "the server")


def run_metrics(config: MetricsConfig, preset: str) -> None:
    """Two tables: what is counted, and times."""
    with Client(config.url) as client:
        families = read(client.get("/metrics").text)
    if not families:
        raise LabError(f"{config.url}/metrics has no figures of an engine ({PREFIX}...)", SERVE)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, meaning in SINGLE:
        if (value := total(families, name)) is not None:
            table.add_row(name, f"{value:.1%}" if name.endswith("_perc") else f"{value:,.0f}", meaning)
    console.print(table)
    times = Table(box=None, pad_edge=False)
    for title in ("", "count", "mean ms", "P50 ms", "P95 ms"):
        times.add_column(title, justify="right" if title else "left")
    for name, meaning in HISTOGRAMS:
        buckets, count, seconds = histogram(families, name)
        if count:
            places = [place(buckets, share) for share in (0.5, 0.95)]
            times.add_row(meaning, f"{count:,.0f}", f"{1000 * seconds / count:,.0f}", *places)
    if times.row_count:
        console.print(times)
        console.print("quantiles are read off the buckets, as Prometheus does; <: in the first bucket", style="dim")


def place(buckets: list[tuple[float, float]], share: float) -> str:
    """A quantile in ms; inside the first bucket nobody knows where, so only its end."""
    first, count = buckets[0]
    inside = count >= share * buckets[-1][1]
    return f"<{1000 * first:,.0f}" if inside else f"{1000 * quantile(buckets, share):,.0f}"


def read(text: str) -> dict[str, Metric]:
    """The engine's metric families by their names, without vLLM's prefix.

    Raises:
        LabError: it is not the text form of Prometheus.
    """
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError:
        raise LabError("/metrics is not in Prometheus' text form", SERVE) from None
    return {family.name.removeprefix(PREFIX): family for family in families if family.name.startswith(PREFIX)}


def total(families: dict[str, Metric], name: str) -> float | None:
    """A counter's or a gauge's value, summed over its labels; None where there is no such."""
    family = families.get(name.removesuffix("_total"))
    if family is None:
        return None
    return sum(sample.value for sample in family.samples if sample.name.removeprefix(PREFIX) == name)


def histogram(families: dict[str, Metric], name: str) -> tuple[list[tuple[float, float]], float, float]:
    """(upper bound, how many are at most that) in rising order, the count, and the sum; labels are added up."""
    buckets: dict[float, float] = {}
    sums = {"count": 0.0, "sum": 0.0}
    for sample in families[name].samples if name in families else ():
        kind = sample.name.removeprefix(f"{PREFIX}{name}_")
        if kind == "bucket":
            bound = float(sample.labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + sample.value
        elif kind in sums:
            sums[kind] += sample.value
    return sorted(buckets.items()), sums["count"], sums["sum"]


def quantile(buckets: Iterable[tuple[float, float]], share: float) -> float:
    """The value below which `share` of a histogram lies, evenly spread inside a bucket (`histogram_quantile`).

    In the last bucket, which has no upper end, it is that bucket's lower end.
    """
    buckets = list(buckets)
    wanted, low, below = share * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and count > below:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low
