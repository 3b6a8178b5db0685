"""The multi-agent customer service over HTTP and server-sent events.

Create a run with a POST, then tail it: `GET /runs/{id}/events`. The run goes on without you; come back with
`Last-Event-ID` and you get exactly what you missed. Every event is JSON with run_id, seq and at; each run ends with
one `end`. Refusals are `{"error": ..., "try": ...}`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from labkit.errors import LabError
from stage3_agents_llmops.agent.service import admin_routes, feedback, operator_routes, pages, run_routes, threads
from stage3_agents_llmops.agent.service import database as db
from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.auth import Tokens
from stage3_agents_llmops.agent.service.instances import MAIN
from stage3_agents_llmops.agent.service.limits import Limits
from stage3_agents_llmops.agent.service.metrics import ServiceMetrics
from stage3_agents_llmops.agent.service.middleware import Bodies, Counted
from stage3_agents_llmops.agent.service.recovery import recover, watch_instances
from stage3_agents_llmops.agent.service.run import Agent
from stage3_agents_llmops.agent.service.runs import RunManager
from stage3_agents_llmops.agent.service.service import Service, refusals
from stage3_agents_llmops.agent.service.thread_feed import ThreadFeed
from stage3_agents_llmops.agent.shop import Shop

TAGS = [
    {"name": "threads", "description": "Conversations."},
    {"name": "runs", "description": "One message, or one decision, and what came of it."},
    {"name": "feedback", "description": "Thumbs."},
    {"name": "operator", "description": "For the shop's own people."},
    {"name": "admin", "description": "For programs that deploy."},
    {"name": "service", "description": "Health, figures, the graph, the demo's tokens."},
]
LOCAL_HOSTS = ["localhost", "127.0.0.1", "[::1]", "testserver"]
OpenAgent = Callable[[], AbstractAsyncContextManager[Agent]]


@dataclass(frozen=True)
class ServiceOptions:
    """How the service is set up around an agent."""

    state_dir: Path
    shop: Path
    mask: Callable[[str], str]  # takes personal data out of a text
    limits: Limits = Limits()
    demo: bool = True  # hands out tokens; for a service that only this machine reaches
    instance: str = MAIN  # its name among the processes of the shop


def make_app(open_agent: OpenAgent, options: ServiceOptions) -> FastAPI:
    """The web application; its start opens the agent and goes on with runs that were cut off."""
    metrics = ServiceMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service(open_agent, options, metrics) as service:
            app.state.service = service
            yield

    app = FastAPI(title="Customer service agents", version="1", description=__doc__, openapi_tags=TAGS,
                  responses=refusals(e422="a field is wrong"), lifespan=lifespan)  # fmt: skip
    for routes in (threads, run_routes, feedback, operator_routes, admin_routes, pages):
        app.include_router(routes.router)
    pages.add_pages(app)
    add_errors(app)
    app.add_middleware(Bodies, limits=options.limits)
    if options.demo:  # else a page elsewhere could reach the demo's tokens by pointing its own name at this machine
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL_HOSTS)
    app.add_middleware(Counted, count=metrics.count_answer)
    return app


@asynccontextmanager
async def open_service(
    open_agent: OpenAgent, options: ServiceOptions, metrics: ServiceMetrics
) -> AsyncIterator[Service]:  # fmt: skip
    """Open everything in the order in which it is needed; close it in the other one."""
    limits = options.limits
    database = db.ServiceDatabase(options.state_dir / "service.sqlite")
    try:
        await database.call(db.forget_events, time.time() - limits.keep_days * 86_400)
        async with open_agent() as agent:
            feed = ThreadFeed(limits.heartbeat)
            runs = RunManager(agent, database, limits, metrics, lambda thread_id: feed.changed(thread_id, "run"),
                              options.instance)  # fmt: skip
            tokens = Tokens.open(options.state_dir)
            service = Service(agent, database, tokens, limits, metrics, runs, feed, Shop(options.shop), options.mask,
                              options.demo, options.instance)  # fmt: skip
            await recover(runs)
            watching = asyncio.create_task(watch_instances(runs, options.state_dir, limits.watch_seconds))
            try:
                yield service
            finally:
                watching.cancel()
                await service.begin_stop()
    finally:
        database.close()


def add_errors(app: FastAPI) -> None:
    """Every refusal as {"error", "try"}; none repeats what the client sent, which may be personal."""

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(LabError)
    async def wrong(request: Request, error: LabError) -> JSONResponse:
        return JSONResponse({"error": error.message, "try": error.try_next}, 409)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "header"))
        what = "the body is no JSON" if first["type"] == "json_invalid" else f"{place or 'the body'}: {first['msg']}"
        return JSONResponse({"error": what, "try": "the form that /docs shows"}, 422)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # what FastAPI makes of JSON that is no UTF-8, or too deep
            return JSONResponse({"error": "the body is no JSON", "try": "the form that /docs shows"}, 422)
        return JSONResponse({"error": str(error.detail), "try": "/docs lists the routes"}, error.status_code,
                            error.headers)  # fmt: skip
