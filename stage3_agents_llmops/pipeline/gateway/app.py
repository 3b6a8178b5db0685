"""The gateway as one ASGI application: what is open while it runs, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.limits import Limits
from stage3_agents_llmops.agent.service.middleware import Bodies, Counted
from stage3_agents_llmops.monitoring.monitor import Monitor
from stage3_agents_llmops.monitoring.routes import monitor_routes
from stage3_agents_llmops.pipeline.gateway import admin_routes, customer_routes
from stage3_agents_llmops.pipeline.gateway.admin_token import admin_token
from stage3_agents_llmops.pipeline.gateway.gateway import Gateway
from stage3_agents_llmops.pipeline.gateway.gateway_metrics import GatewayMetrics
from stage3_agents_llmops.pipeline.gateway.open_runs import OpenRuns
from stage3_agents_llmops.pipeline.gateway.recording import OpenProposals, Recorder
from stage3_agents_llmops.pipeline.gateway.routes import RouteTable
from stage3_agents_llmops.pipeline.gateway.routing import Router
from stage3_agents_llmops.pipeline.gateway.upstream import Upstream


@dataclass(frozen=True)
class GatewayFiles:
    """Where the gateway keeps things."""

    home: Path
    folder: Path  # routes, token, runs that have not ended
    run_log: Path
    exposures: Path
    traces: Path

    @classmethod
    def below(cls, home: Path) -> "GatewayFiles":
        """The places in a pipeline's home."""
        return cls(home, home / "gateway", home / "run_log.sqlite", home / "exposures.sqlite", home / "traces.sqlite")


@dataclass(frozen=True)
class Extras:
    """What the gateway does beside routing."""

    monitor: bool = True  # alerts, the dashboard, and the figures of the run log in /metrics
    traces: bool = False
    mlflow: str | None = None  # where traces are sent on to
    webhook: str | None = None  # that is told about alerts


def make_app(files: GatewayFiles, limits: Limits, extras: Extras) -> Starlette:
    """The application. Raises LabError: a file is damaged, or others can read the token."""
    token, table = admin_token(files.folder), RouteTable.open(files.folder)
    monitor = Monitor(files.run_log, webhook=extras.webhook) if extras.monitor else None

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(Upstream())
            recorder = Recorder(files.run_log, metrics, OpenProposals(), tracer_of(files, extras))
            stack.callback(recorder.close)
            router = Router(table.routes, files.exposures)
            stack.callback(router.exposures.close)
            gateway = Gateway(table, router, upstream, recorder, metrics, OpenRuns(files.folder), token, limits)
            app.state.gateway = app.state.service = gateway  # the server drains its `service` at a signal
            if monitor:
                await stack.enter_async_context(monitor.running())
            await gateway.recover()
            saving = asyncio.create_task(gateway.keep_saved())
            try:
                yield
            finally:
                saving.cancel()
                await gateway.begin_stop()

    metrics = GatewayMetrics()
    if monitor:
        metrics.registry.register(monitor.metrics)
    watched = monitor_routes(monitor) if monitor else []
    app = Starlette(routes=[*admin_routes.ROUTES, *watched, *customer_routes.ROUTES], lifespan=lifespan,
                    exception_handlers={ApiError: refused, HTTPException: other})  # fmt: skip
    app.state.home = files.home
    app.add_middleware(Bodies, limits=limits)
    app.add_middleware(Counted, count=metrics.count_answer)
    return app


def tracer_of(files: GatewayFiles, extras: Extras) -> Any:
    """Monitoring's tracer, where traces are wanted."""
    if not extras.traces:
        return None
    from stage3_agents_llmops.monitoring.otlp import mlflow_sender
    from stage3_agents_llmops.monitoring.trace_store import TraceStore
    from stage3_agents_llmops.monitoring.tracing import RunTracer

    return RunTracer(TraceStore(files.traces, mlflow_sender(extras.mlflow) if extras.mlflow else None))


async def refused(request: Request, error: Exception) -> Response:
    """A refusal of the gateway's own, in the services' form."""
    return JSONResponse(error.body(), error.status, error.headers)


async def other(request: Request, error: Exception) -> Response:
    """What Starlette refuses."""
    return JSONResponse({"error": str(error.detail), "try": "the services' /docs"}, error.status_code)
