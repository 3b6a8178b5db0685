"""`gateway`: the one address that customers know, in front of the service processes, until Ctrl-C."""

from dataclasses import dataclass
from pathlib import Path

from labkit.cli import Command, option
from labkit.progress import console


@dataclass(frozen=True)
class GatewayConfig:
    """Where the gateway listens and what it keeps."""

    home: Path | None = option(None, "the pipeline's folder; none is runs/stage3/pipeline/home")
    host: str = option("127.0.0.1", "where it listens")
    port: int = option(8040, "where it listens; 0 is any free port")
    monitor: bool = option(True, "alerts, the dashboard, and the figures of all runs in /metrics")
    traces: bool = option(True, "keep a trace of every run")
    mlflow: str | None = option(None, "a tracking server or database that traces are sent on to")
    webhook: str | None = option(None, "an address that is told about alerts")
    heartbeat: float = option(15.0, "seconds between comments on a silent stream")
    grace: float = option(5.0, "seconds that open requests may take after Ctrl-C")


def run_gateway(config: GatewayConfig, preset: str) -> int:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        LabError: no port, a damaged file of routes, or another gateway has the folder.
    """
    from filelock import FileLock, Timeout

    from labkit.errors import LabError
    from stage3_agents_llmops.agent.service.limits import Limits
    from stage3_agents_llmops.agent.service.private_logs import private_logging
    from stage3_agents_llmops.agent.service.server import bind, run_server
    from stage3_agents_llmops.pipeline.gateway.app import Extras, GatewayFiles, make_app
    from stage3_agents_llmops.pipeline.home import Home

    home = Home.at(config.home).folder
    files = GatewayFiles.below(home)
    with bind(config.host, config.port) as listening:
        files.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(files.folder / "gateway.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise LabError(f"another gateway uses {files.folder}", "stop it, or --home FOLDER") from None
        with lock:
            private_logging()
            limits = Limits(heartbeat=config.heartbeat, grace=config.grace)
            host, port = listening.getsockname()[:2]

            def ready() -> None:
                address = f"[{host}]" if ":" in host else host
                console.print(f"http://{address}:{port}  (routes: {files.folder}/token, PUT /admin/routes)",
                              markup=False, soft_wrap=True)  # fmt: skip

            extras = Extras(config.monitor, config.traces, config.mlflow, config.webhook)
            return run_server(make_app(files, limits, extras), listening, limits, ready, access_log=False)


COMMANDS = [Command("gateway", "one address in front of the services: sticky weights, streams, the run log",
                    GatewayConfig, run_gateway)]  # fmt: skip
