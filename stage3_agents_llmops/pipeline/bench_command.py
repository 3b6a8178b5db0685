"""`bench`: what the gateway costs. The same customers, the same service, by turns directly and through the gateway.

Two delays are compared, because they are all that a gateway can add:

    accept      from sending a message to the 202
    delivery    from the moment that the service stamps an event (`at`) to the moment that the customer has it

How long the models think is in neither of them. Rounds alternate, and the median round counts, so that whatever else
the machine does meets both.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from labkit.cli import Command, option, require_at_least
from labkit.progress import console, progress
from labkit.runs import Run, shown, start_run
from stage3_agents_llmops.agent.bench_command import MESSAGES, connection, open_thread
from stage3_agents_llmops.agent.service.sse_client import received
from stage3_agents_llmops.pipeline.fleet import THREADS

BAR = 0.010  # seconds, p95
WAYS = ("directly", "through the gateway")
SHARES = (0.5, 0.95)


@dataclass(frozen=True)
class BenchConfig:
    """How many customers, and for how long."""

    streams: int = option(20, "customers at once")
    rounds: int = option(5, "for each way; the median one counts")
    seconds: float = option(8.0, "of a round")
    think: float = option(0.5, "seconds between a customer's messages")
    release: Path | None = option(None, "the release that is served; none is the checkout's own")
    patience: float = option(240.0, "seconds until the service has to be healthy")


PRESETS = {"cpu": BenchConfig(), "smoke": BenchConfig(streams=4, rounds=1, seconds=3.0)}


@dataclass
class Delays:
    """Seconds, in one round."""

    accept: list[float] = field(default_factory=list)
    delivery: list[float] = field(default_factory=list)
    runs: int = 0
    broken: int = 0  # runs whose events did not all come once, in order


async def customer(http: aiohttp.ClientSession, place: int, delays: Delays, until: float, think: float) -> None:
    """One customer after the other message, to the end of the round."""
    await asyncio.sleep(think * place / 20)
    thread = await open_thread(http)
    number = place
    while time.monotonic() < until:
        sent, message = time.perf_counter(), {"message": MESSAGES[number % len(MESSAGES)]}
        async with http.post(f"/threads/{thread}/runs", json=message, raise_for_status=True) as answer:
            address = (await answer.json())["events"]
        delays.accept.append(time.perf_counter() - sent)
        seqs = []
        async with http.get(address, raise_for_status=True) as stream:
            async for event in received(stream.content):
                delays.delivery.append(time.time() - event.data["at"])
                seqs.append(event.seq)
        delays.runs += 1
        delays.broken += seqs != list(range(1, len(seqs) + 1))
        number += 1
        await asyncio.sleep(think)


async def one_round(url: str, tokens: Sequence[str], config: BenchConfig) -> Delays:
    """All customers for some seconds, one way, each over a connection of their own."""
    delays, until = Delays(), time.monotonic() + config.seconds
    async with AsyncExitStack() as stack:
        tasks = []
        for place in range(config.streams):
            http = await stack.enter_async_context(connection(url, tokens[place % len(tokens)]))
            tasks.append(asyncio.create_task(customer(http, place, delays, until, config.think)))
        await asyncio.gather(*tasks)
    return delays


def measure(addresses: Sequence[str], tokens: Sequence[str], config: BenchConfig, run: Run) -> bool:
    """Alternating rounds, into the report; whether no run was broken."""
    asyncio.run(one_round(addresses[0], tokens, BenchConfig(streams=2, seconds=2.0)))  # caches
    rounds: list[list[Delays]] = [[], []]
    with progress(description="rounds", total=2 * config.rounds) as bar:
        for _ in range(config.rounds):
            for way, url in enumerate(addresses):
                rounds[way].append(asyncio.run(one_round(url, tokens, config)))
                bar.advance()
    for name in ("accept", "delivery"):
        figures = [[median_of(each, name, share) for share in SHARES] for each in rounds]
        for way, values in zip(WAYS, figures, strict=True):
            console.print(f"{name:9} {way:20} p50 {1000 * values[0]:6.1f} ms   p95 {1000 * values[1]:6.1f} ms")
        added = median_difference(rounds, name)
        console.print(f"{name:9} the gateway adds {1000 * added:.1f} ms at p95 (median of {config.rounds} pairs)")
        run.metric(f"{name}_overhead_p95", added, "s", (None, BAR), f"{config.streams} streams, through minus directly")
        for way, values in zip(("direct", "gateway"), figures, strict=True):
            run.metric(f"{name}_{way}_p95", values[1], "s", None, "median round")
    every = [delays for each in rounds for delays in each]
    runs, broken = sum(delays.runs for delays in every), sum(delays.broken for delays in every)
    run.metric("broken", broken, "runs", (0, 0), f"of {runs}: events missing, twice or out of order")
    console.print(f"{runs} runs, {broken} broken")
    return broken == 0


def median_of(rounds: Sequence[Delays], name: str, share: float) -> float:
    """The median round's quantile."""
    return float(np.median([np.quantile(getattr(delays, name), share) for delays in rounds]))


def median_difference(rounds: Sequence[Sequence[Delays]], name: str) -> float:
    """p95 through the gateway minus p95 directly, of the median pair of neighbouring rounds."""
    pairs = zip(*rounds, strict=True)
    return float(np.median([np.quantile(getattr(through, name), 0.95) - np.quantile(getattr(directly, name), 0.95)
                            for directly, through in pairs]))  # fmt: skip


def gateway_in_front(stack: ExitStack, home: Path, backend: str, log: Path) -> str:
    """Start a gateway that sends everybody to one service; returns its address.

    The routes are written before it starts: a gateway without any is not healthy.
    """
    from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, free_port
    from stage3_agents_llmops.pipeline.gateway.routes import Arm, Routes, RouteTable

    RouteTable.open(home / "gateway").put(Routes(0, (Arm("stable", "bench", backend, 100.0),)))
    port = free_port()
    words = [sys.executable, "-m", "stage3_agents_llmops.pipeline", "gateway", "--home", str(home), "--port", str(port)]
    gateway = ServerProcess(words, "127.0.0.1", port, "the gateway", 60.0, {**os.environ, **THREADS}, log=log)
    return stack.enter_context(gateway).url


def run_bench(config: BenchConfig, preset: str) -> int:
    """Measure; the exit code is 1 where a run was broken. How long it took decides nothing: the machine is shared."""
    from data.shop import create_shop
    from stage2_rag_finetune_deploy.serving.server_process import ServerProcess, free_port
    from stage3_agents_llmops.agent.service.auth import Tokens

    require_at_least(config, 1, "streams", "rounds")
    with start_run("stage3", "pipeline", "bench", config, preset=preset) as run, ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        shop, state, port = create_shop(home / "shop.sqlite"), home / "state", free_port()
        tokens = [Tokens.open(state).issue(f"C{1001 + number}") for number in range(40)]
        words = [sys.executable, "-m", "stage3_agents_llmops.agent", "serve", "--shop", shop, "--state", state,
                 "--port", port, "--no-demo", *(["--release", config.release] if config.release else [])]  # fmt: skip
        service = ServerProcess([str(word) for word in words], "127.0.0.1", port, "the service", config.patience,
                                {**os.environ, **THREADS}, log=run.dir / "service.log")  # fmt: skip
        direct = stack.enter_context(service).url
        through = gateway_in_front(stack, home, direct, run.dir / "gateway.log")
        sound = measure((direct, through), tokens, config, run)
        console.print(f"report: {shown(run.dir / 'report.json')}", markup=False, soft_wrap=True)
        return 0 if sound else 1


COMMANDS = [Command("bench", "what the gateway adds to a stream: directly and through it, by turns", BenchConfig,
                    run_bench, PRESETS)]  # fmt: skip
