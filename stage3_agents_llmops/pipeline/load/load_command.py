"""`load`: simulated customers at the gateway, and a table of what they saw."""

import asyncio
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from labkit.cli import Command, option, require_at_least
from labkit.errors import LabError
from labkit.files import write_json
from labkit.progress import console, progress

STEP = 0.5  # seconds between two looks at the clock


@dataclass(frozen=True)
class LoadConfig:
    """Who talks to whom, and for how long."""

    gateway: str | None = option(None, "address of a gateway, or of one service; none is that of --home")
    home: Path | None = option(None, "the pipeline's folder, with shop.sqlite and state/; none is the lab's own")
    shop: Path | None = option(None, "another shop")
    state: Path | None = option(None, "another state folder, with the secret of the customers' tokens")
    customers: int = option(20, "conversations at once")
    seconds: float = option(60.0, "how long; 0: until SIGTERM or Ctrl-C")
    think: float = option(1.0, "seconds between a customer's messages, on average")
    seed: int = option(1, "who comes, and what they say")
    out: Path | None = option(None, "a JSON file for what they saw")


def run_load(config: LoadConfig, preset: str) -> int:
    """Let the customers in; the exit code is 1 where a stream was dropped, or an event came twice or late.

    Raises:
        LabError: no shop, too few customers in it, or nobody answers at the address.
    """
    import httpx

    from stage3_agents_llmops.agent.evaluation.suite import scripts_of
    from stage3_agents_llmops.agent.service.auth import Tokens
    from stage3_agents_llmops.pipeline.fleet import Fleet
    from stage3_agents_llmops.pipeline.home import Home
    from stage3_agents_llmops.pipeline.load.crowd import Crowd
    from stage3_agents_llmops.pipeline.load.wishes import Wishes
    from stage3_agents_llmops.pipeline.processes import Processes

    require_at_least(config, 1, "customers")
    at = Home.at(config.home)
    shop, state = config.shop or at.folder / "shop.sqlite", config.state or at.folder / "state"
    if not shop.exists():
        raise LabError(f"there is no shop at {shop}", "--home FOLDER of a pipeline, or --shop FILE and --state FOLDER")
    url = (config.gateway or Fleet(at, Processes(at.processes)).gateway().url).rstrip("/")
    try:
        httpx.get(f"{url}/health", trust_env=False, timeout=10)
    except httpx.TransportError:
        raise LabError(f"nobody answers at {url}", "--gateway http://HOST:PORT") from None
    rng = Random(config.seed)
    wishes, tokens = Wishes(shop, scripts_of(), rng), Tokens.open(state)
    if config.customers > len(wishes.market.customers):
        raise LabError(f"{shop} has {len(wishes.market.customers)} customers", "fewer --customers")

    async def talk() -> Crowd:
        crowd = Crowd(url, tokens.issue, wishes, config.customers, config.think, rng)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, crowd.stop)
        clock = asyncio.create_task(show(crowd, config.seconds))
        try:
            await crowd.talk(None)
        finally:
            clock.cancel()
        return crowd

    began = time.monotonic()
    seen = asyncio.run(talk()).seen
    seconds = time.monotonic() - began
    console.print(seen.table(seconds))
    if config.out:
        write_json(config.out, seen.as_dict(seconds))
    return 1 if seen.dropped or seen.duplicated or seen.reordered else 0


async def show(crowd: object, seconds: float) -> None:
    """Say how far it is, and stop the crowd when its time is over."""
    with progress(description="customers", total=seconds or None) as bar:
        began = time.monotonic()
        while not seconds or time.monotonic() - began < seconds:
            await asyncio.sleep(STEP)
            bar.update(round(time.monotonic() - began, 1))
            bar.note(f"{crowd.seen.streams} answers, {crowd.seen.dropped} dropped")
    crowd.stop()


COMMANDS = [Command("load", "simulated customers, and what they saw", LoadConfig, run_load)]
