"""The monitor over HTTP: what Prometheus scrapes, the alerts, the page and its live stream.

    Starlette(routes=[*monitor_routes(monitor, metrics=True), ...])    with `monitor.running()` in the lifespan

| route | what |
|---|---|
| GET /metrics | Prometheus's text (with metrics=True; who has a /metrics already registers monitor.metrics there) |
| GET /alerts | {"alerts": [{name, family, release, state, since, until, value, threshold, ...}]}, the newest first |
| GET /dashboard | the page; GET /dashboard/static/... what it needs |
| GET /dashboard/picture?seconds=600 | what the page shows, once |
| GET /dashboard/events?seconds=600 | the same as server-sent events `picture`, again whenever it has changed |
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from labkit.errors import LabError
from stage3_agents_llmops.monitoring.metrics import exposition
from stage3_agents_llmops.monitoring.monitor import Monitor, safe_picture

PAGE = Path(__file__).with_name("dashboard")
STATIC = {path.name for path in PAGE.glob("*") if path.suffix in (".css", ".js", ".svg")}
REFRESH = 2.0  # seconds between looks at the table
PING = 15.0  # seconds of silence until something is sent all the same
LEAST, USUAL, MOST = 30.0, 600.0, 86_400.0  # seconds that a picture looks back
LOCKED = {"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}


def monitor_routes(monitor: Monitor, metrics: bool = False) -> list[Route]:
    """The routes of one monitor."""

    async def alerts(request: Request) -> Response:
        return JSONResponse({"alerts": monitor.alerts()})

    async def page(request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers=LOCKED)

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            return JSONResponse({"error": f"there is no {name}", "try": "GET /dashboard"}, 404)
        return FileResponse(PAGE / name, headers=LOCKED)

    async def picture(request: Request) -> Response:
        found = await asyncio.to_thread(safe_picture, monitor, seconds_of(request))
        return JSONResponse(found, 503 if "error" in found else 200)

    async def events(request: Request) -> Response:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        frames = pictures(monitor, seconds_of(request))
        return StreamingResponse(frames, media_type="text/event-stream", headers=headers)

    async def scrape(request: Request) -> Response:
        try:
            text = await asyncio.to_thread(exposition, monitor.metrics)
        except LabError as error:  # a scrape that fails is what the alert ExporterDown waits for
            return JSONResponse({"error": error.message, "try": error.try_next}, 503)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def home(request: Request) -> Response:
        return RedirectResponse("/dashboard")

    routes = [
        Route("/alerts", alerts),
        Route("/dashboard", page),
        Route("/dashboard/static/{name}", static),
        Route("/dashboard/picture", picture),
        Route("/dashboard/events", events),
    ]
    return [*routes, Route("/metrics", scrape), Route("/", home)] if metrics else routes


def seconds_of(request: Request) -> float:
    """How far a picture looks back; what is no number, or none that fits, becomes one that does."""
    try:
        return min(MOST, max(LEAST, float(request.query_params.get("seconds", USUAL))))
    except ValueError:
        return USUAL


async def pictures(monitor: Monitor, seconds: float) -> AsyncIterator[str]:
    """Frames for one reader, as long as it listens."""
    yield "retry: 3000\n\n"
    silent, before = 0.0, None
    while True:
        found = await asyncio.to_thread(safe_picture, monitor, seconds)
        same, before = {**found, "now": 0} == before, {**found, "now": 0}
        silent = silent + REFRESH if same else 0.0
        if not same or silent >= PING:
            silent = 0.0
            yield f"event: picture\ndata: {json.dumps(found, ensure_ascii=False, allow_nan=False)}\n\n"
        await asyncio.sleep(REFRESH)
