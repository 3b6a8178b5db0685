"""Load any OpenAI-compatible server at growing rates: latencies, throughput, goodput, and where it saturates."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from matplotlib.figure import Figure
from rich.table import Table

from labkit.cli import option, require_at_least
from labkit.errors import LabError
from labkit.files import write_json
from labkit.plots import COLOURS, new_figure, save_figure
from labkit.progress import console, progress
from labkit.runs import start_run
from stage2_rag_finetune_deploy.serving.arrivals import ragged_requests
from stage2_rag_finetune_deploy.serving.latency import Record, Summary, summarise
from stage2_rag_finetune_deploy.serving.load_test import run_load
from stage2_rag_finetune_deploy.serving.openai_client import Client


@dataclass(frozen=True)
class LoadTestConfig:
    """Where to, how much, how long, and what counts as good."""

    url: str = option("http://127.0.0.1:8000", "the server")
    model: str | None = option(None, "one of its models; none is the first")
    rates: str = option("2,4,8,12,16,inf", "requests a second, one test for each; inf is all at once")
    requests: int = option(64, "requests of each test; more than the server computes at once, or nobody waits")
    concurrency: int = option(0, "at most so many at once; 0 is no limit: an open loop")
    prompt_words: str = option("16-96", "shortest and longest prompt, in words")
    new_tokens: str = option("16-64", "shortest and longest answer, in tokens")
    warm_up: int = option(4, "requests before the first test that are not counted")
    ttft_limit: float = option(2.0, "seconds to the first token that a user accepts (goodput)")
    itl_limit: float = option(0.2, "seconds between tokens that a user accepts (goodput)")
    timeout: float = option(120.0, "seconds without a byte after which a request has failed")
    seed: int = option(1, "of lengths, prompts and arrivals")


PRESETS = {
    "smoke": LoadTestConfig(rates="4,inf", requests=4, prompt_words="4-8", new_tokens="2-6", warm_up=1),
    "cpu": LoadTestConfig(rates="4,inf", requests=40, warm_up=2),
    "study": LoadTestConfig(),
    "gpu": LoadTestConfig(rates="1,4,16,64,inf", requests=200, prompt_words="64-1024", new_tokens="64-512"),
}


def read_rates(text: str) -> list[float]:
    """`1,2,inf` as numbers.

    Raises:
        LabError: something else, or a rate that is not above 0.
    """
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or any(math.isnan(rate) or rate <= 0 for rate in rates):
        raise LabError(f"--rates {text} are no rates", "--rates 1,2,4,inf")
    return rates


def read_span(flag: str, text: str) -> tuple[int, int]:
    """`16-96`, or one number, as the shortest and the longest.

    Raises:
        LabError: something else, or the longest is shorter.
    """
    first, _, last = text.partition("-")
    if not (first.isdigit() and (last or first).isdigit()) or not 1 <= int(first) <= int(last or first):
        raise LabError(f"{flag} {text} is no span", f"{flag} 16-96")
    return int(first), int(last or first)


def run_load_test(config: LoadTestConfig, preset: str) -> None:
    """One test a rate; table, figure, report."""
    require_at_least(config, 1, "requests")
    require_at_least(config, 0, "concurrency", "warm_up")
    rates = read_rates(config.rates)
    spans = read_span("--prompt-words", config.prompt_words), read_span("--new-tokens", config.new_tokens)
    with Client(config.url) as client:
        known = client.models()
    model = config.model or known[0]
    if model not in known:
        raise LabError(f"{config.url} does not serve {model}", f"--model {known[0]}")
    with start_run("stage2", "serving", "load-test", config, preset, config.seed) as run:
        if config.warm_up:
            measure(config, model, math.inf, config.warm_up, spans, config.seed + 1000)
        results: dict[float, Summary] = {}
        for place, rate in enumerate(rates):
            records = measure(config, model, rate, config.requests, spans, config.seed + place)
            results[rate] = checked(records, config)
        show(results, config)
        save_figure(plot(results, config), run.dir / "saturation.png")
        run.figure("saturation.png", "throughput, goodput and time to the first token against the offered rate")
        write_json(run.dir / "results.json", {f"{rate:g}": plain(summary) for rate, summary in results.items()})
        best = max(results.values(), key=lambda summary: summary.throughput)
        run.metric("throughput", best.throughput, "tokens/s", meaning="the highest of all rates")
        good = max(summary.goodput for summary in results.values())
        limits = f"first token within {config.ttft_limit} s, {config.itl_limit} s between tokens"
        run.metric("goodput", good, "requests/s", meaning=limits)
        run.metric("failed", sum(summary.failed for summary in results.values()), "requests", band=(0, 0))
        run.learnt(conclusion(results))
        console.print(conclusion(results), markup=False)


def measure(
    config: LoadTestConfig, model: str, rate: float, count: int, spans: Sequence[tuple[int, int]], seed: int
) -> list[Record]:
    """The records of one test."""
    requests = ragged_requests(count, rate, *spans, seed)
    with progress(total=count, description=f"{rate:g} requests/s") as bar:
        load = run_load(
            config.url, model, requests, config.concurrency or None, config.timeout, lambda record: bar.advance()
        )
        return asyncio.run(load)


def checked(records: Sequence[Record], config: LoadTestConfig) -> Summary:
    """The figures of a test.

    Raises:
        LabError: not one request was answered; the reason is the first one's.
    """
    if not any(record.outcome == "finished" for record in records):
        raise LabError(f"no request was answered: {records[0].reason}", f"is {config.url} still up? look at its log")
    for reason in sorted({record.reason for record in records if record.outcome == "failed"})[:3]:
        console.print(f"failed: {reason}", markup=False)
    return summarise(records, config.ttft_limit, config.itl_limit)


def plain(summary: Summary) -> dict[str, object]:
    """The figures as JSON; nan becomes null."""

    def clean(value: float) -> float | None:
        return None if math.isnan(value) else round(value, 4)

    values = asdict(summary) | {"throughput": summary.throughput}
    return {
        name: [clean(each) for each in value] if isinstance(value, tuple) else clean(value)
        for name, value in values.items()
    }


def milliseconds(values: Sequence[float]) -> str:
    """P50 / P95 / P99 in ms."""
    return "/".join("-" if math.isnan(value) else f"{1000 * value:.0f}" for value in values)


def seconds(values: Sequence[float]) -> str:
    """P50 / P95 / P99 in s."""
    return "/".join("-" if math.isnan(value) else f"{value:.1f}" for value in values)


def show(results: dict[float, Summary], config: LoadTestConfig) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("offered", "done/s", "tok/s", "first ms", "between ms", "whole s", "good/s", "429", "failed"):
        table.add_column(title, justify="right", no_wrap=True)
    for rate, s in results.items():
        table.add_row(
            f"{rate:g}", f"{s.request_rate:.2f}", f"{s.throughput:.0f}", milliseconds(s.ttft), milliseconds(s.itl),
            seconds(s.end_to_end), f"{s.goodput:.2f}", str(s.refused), str(s.failed),
        )  # fmt: skip
    console.print(table)
    limits = f"TTFT within {config.ttft_limit:g} s and {config.itl_limit:g} s between tokens"
    console.print(f"P50 / P95 / P99; good: {limits}; {config.requests} requests a row", markup=False, style="dim")


def conclusion(results: dict[float, Summary]) -> str:
    """What the table says in one sentence."""
    top = max(summary.throughput for summary in results.values())
    rate = min(rate for rate, summary in results.items() if summary.throughput >= 0.95 * top)
    good = max(results, key=lambda rate: results[rate].goodput)
    return (
        f"{top:.0f} tokens/s at most, reached from {rate:g} requests/s on; the most good answers a second, "
        f"{results[good].goodput:.2f}, at {good:g} requests/s"
    )


def plot(results: dict[float, Summary], config: LoadTestConfig) -> Figure:
    """Three panels over the offered rate; the burst stands at the right end."""
    fig, axes = new_figure(1, 3, width=10.5, height=3.4)
    places = list(range(len(results)))
    panels = (
        ("throughput (tokens/s)", {"": [s.throughput for s in results.values()]}),
        ("answers a second", {"all": [s.request_rate for s in results.values()],
                              "good": [s.goodput for s in results.values()]}),
        ("time to the first token (s)", {f"P{p}": [s.ttft[i] for s in results.values()]
                                         for i, p in enumerate((50, 95, 99))}),
    )  # fmt: skip
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for colour, (label, values) in zip(COLOURS, lines.items(), strict=False):
            axis.plot(places, values, marker="o", color=colour, label=label)
        axis.set_title(title)
        axis.set_xticks(places, ["burst" if math.isinf(rate) else f"{rate:g}" for rate in results])
        axis.set_xlabel("requests a second, offered")
        axis.set_ylim(bottom=0)
        if len(lines) > 1:
            axis.legend()
    axes[2].axhline(config.ttft_limit, color="#888888", linestyle=":", linewidth=1.2)
    return fig
