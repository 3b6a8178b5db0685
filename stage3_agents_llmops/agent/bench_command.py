"""`bench`: the service under load, measured from outside against its bars.

Fifty customers write at the same moment; what counts is when each sees the first sign of life, and that nobody loses an
event. Then four hundred do: what is too much has to be refused at once, and what was accepted has to be finished. The
client needs processor time too, so on two cores the figures are upper bounds; aiohttp, whose parser is compiled, takes
less of it than httpx (NOTES.md).
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np

from labkit.cli import Command, option, require_at_least
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import Run, shown, start_run
from stage3_agents_llmops.agent.service.sse_client import FrameParser, ServiceClient, received

HEARTBEAT = 0.5  # seconds, of the service that is started here
LISTEN = 2.6  # seconds on a stream where nothing happens
MESSAGES = (
    "Where is my order?", "我的订单到哪里了？", "I want to return something.", "你们的退货期限是多久？",
    "Which orders do I have?", "我想取消订单", "hello", "你好",
)  # fmt: skip
BAR_FIRST = 0.3  # seconds until the first event, p95 of 50


@dataclass(frozen=True)
class BenchConfig:
    """How much load, and on which service."""

    streams: int = option(50, "customers who write at the same moment and all have to be served")
    rounds: int = option(3, "how often; the median round counts")
    overload: int = option(400, "customers who write at the same moment, beyond what the service accepts")
    url: str | None = option(None, "a running service with --demo; none starts one with a shop of its own")
    patience: float = option(180.0, "seconds until the service has to be healthy")
    port: int = option(0, "of the service that is started; 0 is any free one")


PRESETS = {
    "cpu": BenchConfig(),
    "smoke": BenchConfig(streams=5, rounds=1, overload=160),
}


@dataclass
class Seen:
    """What one customer saw. Seconds count from the moment the message was sent."""

    status: int = 0
    retry_after: int | None = None
    first: float | None = None
    first_token: float | None = None
    whole: float | None = None
    seqs: list[int] = field(default_factory=list)
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether every event came once, in order, up to an end that is no failure."""
        return self.seqs == list(range(1, len(self.seqs) + 1)) and self.reason in ("answered", "waiting", "human")


async def customer(http: aiohttp.ClientSession, thread_id: str, message: str, go: asyncio.Event) -> Seen:
    """Send one message when all do, and read its run to the end."""
    await go.wait()
    seen, sent = Seen(), time.perf_counter()
    async with http.post(f"/threads/{thread_id}/runs", json={"message": message}) as answer:
        seen.status = answer.status
        if answer.status != 202:
            seen.retry_after = int(answer.headers.get("Retry-After", 0))
            return seen
        address = (await answer.json())["events"]
    async with http.get(address) as stream:
        async for event in received(stream.content):
            now = time.perf_counter() - sent
            seen.first = seen.first or now
            if event.type == "token":
                seen.first_token = seen.first_token or now
            seen.seqs.append(event.seq)
            seen.reason = event.data.get("reason", "") if event.type == "end" else seen.reason
    seen.whole = time.perf_counter() - sent
    return seen


def connection(url: str, token: str) -> aiohttp.ClientSession:
    """One customer's own."""
    return aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"})


async def open_thread(http: aiohttp.ClientSession) -> str:
    """A new conversation's id."""
    async with http.post("/threads", json={"language": None}, raise_for_status=True) as answer:
        return (await answer.json())["thread_id"]


async def crowd(url: str, tokens: Sequence[str], count: int) -> list[Seen]:
    """`count` customers with a connection and a conversation each, who write at the same moment."""
    go = asyncio.Event()
    async with AsyncExitStack() as stack:
        tasks = []
        for number in range(count):
            http = await stack.enter_async_context(connection(url, tokens[number % len(tokens)]))
            thread_id = await open_thread(http)
            tasks.append(asyncio.create_task(customer(http, thread_id, MESSAGES[number % len(MESSAGES)], go)))
        await asyncio.sleep(0.2)
        go.set()
        return await asyncio.gather(*tasks)


async def heartbeats(url: str, token: str, seconds: float) -> int:
    """Comments on a stream where nothing happens."""
    parser = FrameParser()
    async with ServiceClient(url, token) as client:
        thread_id = await client.open_thread()

        async def listen() -> None:
            async with client.http.stream("GET", f"/threads/{thread_id}/events") as response:
                async for line in response.aiter_lines():
                    parser.line(line)

        with suppress(TimeoutError):
            await asyncio.wait_for(listen(), seconds)
    return parser.comments


def quantile(values: Sequence[float | None], share: float) -> float:
    """Of the values that there are; infinite where there are none."""
    kept = [value for value in values if value is not None]
    return float(np.quantile(kept, share)) if kept else float("inf")


def demo_tokens(url: str) -> list[str]:
    """Tokens of the customers that the demo lists.

    Raises:
        LabError: nobody answers, or the demo is off.
    """
    try:
        answer = httpx.get(f"{url}/demo/customers", trust_env=False, timeout=20)
    except httpx.TransportError as error:
        raise LabError(f"no service answers at {url}: {error}", "python -m stage3_agents_llmops.agent serve") from None
    if answer.status_code != 200:
        raise LabError(f"{url} hands out no tokens", "start that service with --demo, on this machine")
    return [one["token"] for one in answer.json()["customers"]]


def measure(url: str, config: BenchConfig, run: Run) -> None:
    """All measurements against one service, into the report."""
    tokens = demo_tokens(url)
    asyncio.run(crowd(url, tokens, 2))  # connections, caches
    rounds = [asyncio.run(crowd(url, tokens, config.streams)) for _ in range(config.rounds)]
    report_streams(run, rounds, config)
    if config.url is None:
        beats = asyncio.run(heartbeats(url, tokens[0], LISTEN))
        run.metric("heartbeats", beats, "comments", (LISTEN // HEARTBEAT - 2, None), f"in {LISTEN} s of silence")
        console.print(f"heartbeat: {beats} comments in {LISTEN} s of silence, one every {HEARTBEAT} s asked for")
    report_overload(run, asyncio.run(crowd(url, tokens, config.overload)), config)


def report_streams(run: Run, rounds: list[list[Seen]], config: BenchConfig) -> None:
    """The rounds that everybody has to come through."""
    every = [seen for round in rounds for seen in round]
    complete = sum(seen.complete for seen in every)
    figures = {}
    for name, share in (("first", 0.5), ("first", 0.95), ("first_token", 0.95), ("whole", 0.95)):
        values = [quantile([getattr(seen, name) for seen in round], share) for round in rounds]
        figures[f"{name}_p{round_percent(share)}"] = float(np.median(values))
    run.metric("complete", complete / len(every), "share", (1.0, None), "streams with every event once, in order")
    for name, value in figures.items():
        band = (None, BAR_FIRST) if name == "first_p95" else None
        run.metric(name, value, "s", band, f"{config.streams} at once; median of {config.rounds} rounds")
    events = sum(len(seen.seqs) for seen in every)
    share = f"{complete} of {len(every)} complete"
    console.print(f"{config.streams} at once, {config.rounds} times: {share}, {events} events")
    console.print("first event p50 {first_p50:.3f} s, p95 {first_p95:.3f} s; first token p95 {first_token_p95:.3f} s; "
                  "whole p95 {whole_p95:.3f} s".format(**figures))  # fmt: skip
    run.learnt(f"{config.streams} streams on one worker: p95 first event {figures['first_p95'] * 1000:.0f} ms")


def round_percent(share: float) -> int:
    """0.95 -> 95."""
    return round(share * 100)


def report_overload(run: Run, seen: list[Seen], config: BenchConfig) -> None:
    """The crowd that is too large."""
    counts = Counter(one.status for one in seen)
    accepted = [one for one in seen if one.status == 202]
    complete = sum(one.complete for one in accepted)
    told_when = sum(one.status == 429 and (one.retry_after or 0) >= 1 for one in seen)
    run.metric("overload_accepted", counts[202], "runs", None, f"of {config.overload} at once")
    run.metric("overload_refused", counts[429], "runs", (1, None), "with 429 and Retry-After")
    run.metric("overload_other", len(seen) - counts[202] - told_when, "runs", (0, 0), "neither taken nor well refused")
    run.metric("overload_complete", complete / max(len(accepted), 1), "share", (1.0, None), "of what was accepted")
    console.print(f"{config.overload} at once: {counts[202]} accepted, {complete} of them complete; "
                  f"{counts[429]} refused with 429")  # fmt: skip


def run_bench(config: BenchConfig, preset: str) -> int:
    """Measure; the exit code is 1 where a bar that does not hang on the machine's speed is missed.

    Raises:
        LabError: impossible numbers, or no service.
    """
    from data.shop import create_shop
    from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, free_port

    require_at_least(config, 1, "streams", "rounds", "overload")
    with start_run("stage3", "agent", "bench", config, preset=preset) as run:
        if config.url is not None:
            measure(config.url.rstrip("/"), config, run)
        else:
            with tempfile.TemporaryDirectory(prefix="agent-bench-") as folder:
                shop, port = create_shop(Path(folder) / "shop.sqlite"), config.port or free_port()
                words = [sys.executable, "-m", "stage3_agents_llmops.agent", "serve", "--port", str(port), "--shop",
                         str(shop), "--state", folder, "--heartbeat", str(HEARTBEAT)]  # fmt: skip
                log = run.dir / "service.log"
                with ServerProcess(words, "127.0.0.1", port, "the service", config.patience, log=log) as server:
                    measure(server.url, config, run)
        console.print(f"report: {shown(run.dir / 'report.json')}", markup=False, soft_wrap=True)
        metrics: dict[str, Any] = run.report["metrics"]
        sound = metrics["complete"]["value"] == metrics["overload_complete"]["value"] == 1.0
        return 0 if sound and not metrics["overload_other"]["value"] else 1


COMMANDS = [Command("bench", "the service under load: first event, order, overload, heartbeat", BenchConfig, run_bench,
                    PRESETS)]  # fmt: skip
