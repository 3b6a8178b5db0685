"""The same requests at once to transformers in static batches, the engine by hand, vLLM, and vLLM with 4-bit weights.

Static batching is what a loop around `generate` does: eight requests start together, and all eight are delivered when
the longest is done. Each server is started as a child with the command that a person would type, warmed up, measured
over HTTP and ended again.
"""

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

import data
from labkit.cli import option, require_at_least
from labkit.errors import LabError
from labkit.files import write_json
from labkit.plots import COLOURS, new_figure, save_figure
from labkit.progress import console, progress
from labkit.runs import Run, runs_root, start_run
from labkit.side_environment import SERVE
from stage2_rag_finetune_deploy.serving.arrivals import Request, ragged_requests
from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_checkpoint, read_json
from stage2_rag_finetune_deploy.serving.latency import Record, Summary, summarise
from stage2_rag_finetune_deploy.serving.load_test import run_load
from stage2_rag_finetune_deploy.serving.load_test_command import milliseconds, plain, read_span, seconds
from stage2_rag_finetune_deploy.serving.serve_command import BASE
from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, free_port
from stage2_rag_finetune_deploy.serving.vllm_command import check_four_bits

STATIC, MINI, VLLM, VLLM_GPTQ = "transformers, static", "mini engine", "vLLM", "vLLM, GPTQ 4 bits"
NAME = "measured"


@dataclass(frozen=True)
class CompareConfig:
    """What is measured with what."""

    engines: str = option("all", "all, or some of static,mini,vllm,gptq")
    model: Path | None = option(None, f"a checkpoint folder; none is {BASE}")
    gptq: Path | None = option(None, "the same in GPTQ format; none is the newest of the lab quantization")
    requests: int = option(32, "requests, all at once")
    prompt_words: str = option("12-96", "shortest and longest prompt, in words")
    new_tokens: str = option("16-192", "shortest and longest answer, in tokens")
    concurrency: int = option(0, "at most so many at once, to the servers; 0 is all of them")
    batch: int = option(8, "requests of a static batch")
    warm_up: int = option(4, "requests to each server that are not counted")
    patience: float = option(90.0, "seconds until a server has to be healthy")
    seed: int = option(1, "of lengths and prompts")


PRESETS = {
    "smoke": CompareConfig(requests=4, prompt_words="3-6", new_tokens="2-8", batch=2, warm_up=1),
    "cpu": CompareConfig(requests=16, new_tokens="16-64", warm_up=2),
    "study": CompareConfig(),
    "gpu": CompareConfig(requests=256, prompt_words="64-768", new_tokens="64-512", batch=32, patience=600.0),
}


@dataclass(frozen=True)
class Row:
    """One engine's answers."""

    name: str
    summary: Summary
    ready: float


def run_compare(config: CompareConfig, preset: str) -> None:
    """Measure every engine that is there; table, figure, report."""
    require_at_least(config, 1, "requests", "batch")
    require_at_least(config, 0, "concurrency", "warm_up")
    spans = read_span("--prompt-words", config.prompt_words), read_span("--new-tokens", config.new_tokens)
    model = config.model or data.fetch(BASE)
    check_checkpoint(model)
    requests = ragged_requests(config.requests, math.inf, *spans, config.seed)
    plan, left_out = plan_of(config, model)
    with start_run("stage2", "serving", "compare", config, preset, config.seed) as run:
        rows = []
        for name, folder in plan.items():
            if name == STATIC:
                records, ready = static_batches(folder, requests, config.batch)
            else:
                records, ready = measure_server(name, folder, requests, spans, config, run.dir)
            require_all_finished(name, records)
            rows.append(Row(name, summarise(records, math.inf, math.inf), ready))
        show(rows, config)
        for line in left_out:
            console.print(line, markup=False, style="dim")
        record(run, rows, bars_apply(config))


def plan_of(config: CompareConfig, model: Path) -> tuple[dict[str, Path], list[str]]:
    """Which engine serves which folder, and a line for each that is left out.

    Raises:
        LabError: an unknown engine, or one asked for by name that is not there.
    """
    words = {"static": STATIC, "mini": MINI, "vllm": VLLM, "gptq": VLLM_GPTQ}
    asked = list(words) if config.engines == "all" else config.engines.split(",")
    if unknown := [word for word in asked if word not in words]:
        raise LabError(f"there is no engine {unknown[0]}", f"--engines {','.join(words)}")
    plan, left_out = {}, []
    for word in asked:
        try:
            if word in ("vllm", "gptq"):
                SERVE.folder()
            folder = model
            if word == "gptq":
                folder = gptq_folder(config.gptq)
                check_four_bits(read_json(folder / "config.json", ""))
            plan[words[word]] = folder
        except LabError as error:
            if config.engines != "all":
                raise
            left_out.append(f"left out: {words[word]}: {error.message} ({error.try_next})")
    return plan, left_out


def gptq_folder(folder: Path | None) -> Path:
    """The checkpoint in GPTQ format: the one given, else GPTQ's newest in 4 bits under runs/stage2/quantization.

    Raises:
        LabError: there is none, or it is something else.
    """
    if folder is None:
        found = sorted(runs_root().glob("stage2/quantization/*/**/config.json"), key=lambda path: path.stat().st_mtime)
        found = [path.parent for path in found if is_gptq_in_four_bits(path.parent)]
        if not found:
            raise LabError("nothing was quantised by GPTQ to 4 bits yet",
                           "python -m stage2_rag_finetune_deploy.quantization quantize")  # fmt: skip
        folder = found[-1]
    check_checkpoint(folder)
    if quantization_of(folder).get("quant_method") != "gptq":
        raise LabError(f"{folder} is not in GPTQ format", "--gptq FOLDER of the lab quantization")
    return folder


def quantization_of(folder: Path) -> dict[str, Any]:
    """What a checkpoint's config.json says about how it was quantised; empty where it was not."""
    return read_json(folder / "config.json", "").get("quantization_config") or {}


def is_gptq_in_four_bits(folder: Path) -> bool:
    """Whether GPTQ made a checkpoint, in 4 bits: RTN, AWQ and 8 bits are written in GPTQ's format, too."""
    found = quantization_of(folder)
    maker = found.get("meta", {}).get("method", "gptq")  # GPTQModel does not say it
    return (found.get("quant_method"), found.get("bits"), maker) == ("gptq", 4, "gptq")


def static_batches(folder: Path, requests: Sequence[Request], batch: int) -> tuple[list[Record], float]:
    """transformers' `generate` on one batch after the other; the end of the text is ignored here as well."""
    import torch

    from labkit.device import choose_device, choose_dtype
    from stage2_rag_finetune_deploy.finetune.base_model import load_base

    device = choose_device()
    started = time.perf_counter()
    model, tokenizer = load_base(folder, choose_dtype("auto", device))
    model, tokenizer.padding_side = model.to(device), "left"
    ready, records = time.perf_counter() - started, []
    with torch.inference_mode(), progress(total=len(requests), description=STATIC) as bar:
        sent = time.perf_counter()
        for first in range(0, len(requests), batch):
            some = requests[first : first + batch]
            inputs = tokenizer([request.prompt for request in some], return_tensors="pt", padding=True).to(device)
            longest = max(request.new_tokens for request in some)
            model.generate(**inputs, do_sample=False, max_new_tokens=longest, min_new_tokens=longest)
            now, lengths = time.perf_counter(), inputs["attention_mask"].sum(1).tolist()
            records += [
                Record(sent, "finished", token_times=[now], prompt_tokens=length, new_tokens=request.new_tokens)
                for request, length in zip(some, lengths, strict=True)
            ]
            bar.advance(len(some))
    return records, ready


def serve_words(name: str, folder: Path, port: int, config: CompareConfig) -> list[str]:
    """The command that serves a folder."""
    words = [sys.executable, "-m", "stage2_rag_finetune_deploy.serving", "serve", "--model", str(folder)]
    words += ["--engine", "mini" if name == MINI else "vllm", "--served-name", NAME, "--port", str(port)]
    return [*words, "--max-num-seqs", str(config.requests), "--patience", str(config.patience)]


def measure_server(
    name: str, folder: Path, requests: Sequence[Request], spans: Sequence[tuple[int, int]], config: CompareConfig,
    logs: Path,
) -> tuple[list[Record], float]:  # fmt: skip
    """Start, warm up, measure, end. The command says by itself when its server is not ready in time."""
    port = free_port()
    words = serve_words(name, folder, port, config)
    log = logs / f"{name.replace(', ', '-').replace(' ', '-')}.log"
    with ServerProcess(words, "127.0.0.1", port, name, config.patience + 10, log=log) as server:
        warm = ragged_requests(config.warm_up, math.inf, *spans, config.seed + 1000)
        if warm:
            asyncio.run(run_load(server.url, NAME, warm, None, 120, lambda record: None))
        with progress(total=len(requests), description=name) as bar:
            load = run_load(server.url, NAME, requests, config.concurrency or None, 120, lambda record: bar.advance())
            records = asyncio.run(load)
        return records, server.seconds_to_ready


def require_all_finished(name: str, records: Sequence[Record]) -> None:
    """A throughput of answers that did not come would mean nothing.

    Raises:
        LabError: a request was refused or failed; the reason is the first one's.
    """
    if bad := [record for record in records if record.outcome != "finished"]:
        raise LabError(f"{name}: {len(bad)} of {len(records)} requests {bad[0].outcome}: {bad[0].reason}", "its log")


def show(rows: Sequence[Row], config: CompareConfig) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("engine", "tok/s", "x", "first ms", "between ms", "whole s", "ready"):
        table.add_column(title, justify="left" if title == "engine" else "right", no_wrap=title != "engine")
    for row in rows:
        s = row.summary
        table.add_row(
            row.name, f"{s.throughput:.0f}", f"{s.throughput / rows[0].summary.throughput:.1f}", milliseconds(s.ttft),
            milliseconds(s.itl), seconds(s.end_to_end), f"{row.ready:.1f}",
        )  # fmt: skip
    console.print(table)
    together = config.concurrency or "all"
    console.print(
        f"{config.requests} requests, {together} at once, {config.new_tokens} new tokens each; P50 / P95 / P99 of the "
        "wait for the first token, between tokens, for all of an answer; x: times the first row; ready: seconds until "
        "it answered; static batches deliver whole answers", markup=False, style="dim", soft_wrap=True,
    )  # fmt: skip


def bars_apply(config: CompareConfig) -> bool:
    """Whether these are the requests that the bars are for: a batch of eight loses more, the more unlike they are."""
    usual = CompareConfig()
    fixed = ("requests", "prompt_words", "new_tokens", "concurrency", "batch")
    return all(getattr(config, name) == getattr(usual, name) for name in fixed)


def record(run: Run, rows: Sequence[Row], barred: bool) -> None:
    """Metrics, the figure, results.json. `barred`: whether these are the requests that the bars are for."""
    rate = {row.name: row.summary.throughput for row in rows}
    for name, value in rate.items():
        run.metric(name.removeprefix("transformers, "), value, "tokens/s", meaning="useful ones, all requests at once")
    for name, other, least in ((MINI, STATIC, 2.5), (MINI, VLLM, 0.7), (VLLM_GPTQ, VLLM, 1.0)):
        if name in rate and other in rate:
            run.metric(f"{name} / {other.removeprefix('transformers, ')}", rate[name] / rate[other], "x",
                       band=(least, None) if barred else None, meaning="throughput")  # fmt: skip
    write_json(run.dir / "results.json", {row.name: plain(row.summary) | {"ready": row.ready} for row in rows})
    fig, axes = new_figure(1, 2, width=9.5, height=2.0 + 0.3 * len(rows))
    names = [row.name for row in rows]
    bars = axes[0].barh(names, list(rate.values()), color=COLOURS[0])
    axes[0].bar_label(bars, fmt="%.0f", padding=3)
    axes[0].set_title("useful tokens a second")
    axes[1].barh(names, [row.summary.end_to_end[1] for row in rows], color="#bbbbbb", label="last token")
    axes[1].barh(names, [row.summary.ttft[1] for row in rows], height=0.4, color=COLOURS[1], label="first token")
    axes[1].set_title("P95 of the wait (s)")
    axes[1].legend()
    for axis in axes:
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
    axes[1].set_yticklabels([])
    save_figure(fig, run.dir / "compare.png")
    run.figure("compare.png", "throughput, and the wait for the first and the last token")
    fastest = max(rate, key=rate.get)
    slowest = min(rate, key=rate.get)
    run.learnt(f"{fastest}: {rate[fastest]:.0f} tokens/s, {rate[fastest] / rate[slowest]:.1f} times {slowest}")
