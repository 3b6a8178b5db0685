"""`serve`: the exporter and the dashboard over a table of runs, until Ctrl-C."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from labkit.cli import option
from labkit.errors import LabError
from labkit.progress import console
from labkit.runs import runs_root
from stage3_agents_llmops.monitoring.alert_rules import load_rules
from stage3_agents_llmops.monitoring.drift import load_references

DEFAULT_LOG = "stage3/pipeline/home/run_log.sqlite"
ASKED_EVERY = 2.0  # seconds


@dataclass(frozen=True)
class ServeConfig:
    """Which table, and where to listen."""

    log: Path | None = option(None, "table of runs; none: the pipeline's")
    host: str = option("127.0.0.1", "where it listens")
    port: int = option(8050, "where it listens; 0 is any free port")
    rules: Path | None = option(None, "alert rules; none: the lab's")
    scale: float = option(1.0, "multiplies the rules' windows, for a shop with less traffic")
    reference: Path | None = option(None, "what is normal, from drift --save; none: the first 500 runs")
    webhook: str | None = option(None, "URL that is told about alerts")
    services: str = option("", "addresses of agent services whose queues are watched, with commas")


def default_log() -> Path:
    """The pipeline's table."""
    return runs_root() / DEFAULT_LOG


def existing_log(path: Path | None) -> Path:
    """The table of a command.

    Raises:
        LabError: it is not there.
    """
    path = path or default_log()
    if not path.is_file():
        raise LabError(f"there is no table of runs at {path}", "demo makes one; or --log FILE")
    return path


class Queues:
    """Asks agent services how many runs wait, in the background, so that no scrape waits for a service that hangs."""

    def __init__(self, services: str) -> None:
        self.services = [url.strip().rstrip("/") for url in services.split(",") if url.strip()]
        self.waiting: dict[str, float] = {}
        if self.services:
            threading.Thread(target=self._ask, daemon=True, name="queues").start()

    def __call__(self) -> Mapping[str, float]:
        return dict(self.waiting)

    def _ask(self) -> None:
        with httpx.Client(timeout=2.0, trust_env=False) as http:
            while True:
                for url in self.services:
                    try:
                        self.waiting[url] = waiting_runs(http.get(f"{url}/metrics").text)
                    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
                        self.waiting.pop(url, None)
                time.sleep(ASKED_EVERY)


def waiting_runs(text: str) -> float:
    """agent_runs_waiting of a service's /metrics.

    Raises:
        ValueError: it is not in it.
    """
    for family in text_string_to_metric_families(text):
        if family.name == "agent_runs_waiting":
            return family.samples[0].value
    raise ValueError("no agent_runs_waiting")


def make_app(monitor: Any) -> Any:
    """The application of `serve`."""
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette

    from stage3_agents_llmops.monitoring.routes import monitor_routes

    @asynccontextmanager
    async def lifespan(app: Starlette):
        async with monitor.running():
            yield

    return Starlette(routes=monitor_routes(monitor, metrics=True), lifespan=lifespan)


def run_serve(config: ServeConfig, preset: str) -> int:
    """Serve until Ctrl-C.

    Raises:
        LabError: no table, bad rules, no port.
    """
    import uvicorn

    from stage3_agents_llmops.agent.service.server import bind
    from stage3_agents_llmops.monitoring.monitor import Monitor

    rules = load_rules(config.rules, config.scale) if config.rules else load_rules(scale=config.scale)
    normal = load_references(config.reference) if config.reference else None
    path = config.log or default_log()
    if not path.parent.is_dir():
        raise LabError(f"there is no folder {path.parent}", "demo makes a table; or --log FILE")
    monitor = Monitor(path, rules=rules, normal=normal, queues=Queues(config.services), webhook=config.webhook)
    with bind(config.host, config.port) as listening:
        host, port = listening.getsockname()[:2]
        address = f"[{host}]" if ":" in host else host
        console.print(f"http://{address}:{port}/dashboard  (/metrics, /alerts; Ctrl-C ends it)", markup=False)
        settings = uvicorn.Config(make_app(monitor), log_level="warning", timeout_graceful_shutdown=1)
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after it has closed everything
            uvicorn.Server(settings).run(sockets=[listening])
    return 0
