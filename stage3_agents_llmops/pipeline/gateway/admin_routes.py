"""The gateway's own routes: the table of arms for programs with the token, health and figures for everybody."""

import asyncio
import time
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from labkit.errors import LabError
from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.pipeline.gateway.admin_token import allowed
from stage3_agents_llmops.pipeline.gateway.customer_routes import METHODS, gateway_of
from stage3_agents_llmops.pipeline.gateway.gateway import Gateway, read_object
from stage3_agents_llmops.pipeline.gateway.routes import RoutesConflict, parse_routes


def administered(request: Request) -> Gateway:
    """The gateway, for whoever has its token. Raises ApiError 401."""
    gateway = gateway_of(request)
    if not allowed(request.headers.get("authorization"), gateway.token):
        raise ApiError(401, "this is for the gateway's administrators", "Authorization: Bearer and the token's file",
                       {"WWW-Authenticate": "Bearer"})  # fmt: skip
    return gateway


async def read_routes(request: Request) -> Response:
    """GET /admin/routes"""
    return shown(administered(request))


async def put_routes(request: Request) -> Response:
    """PUT /admin/routes: a whole table whose number is that of the table in force; 409 if it is another."""
    gateway = administered(request)
    try:
        gateway.put(parse_routes(read_object(await request.body())))
    except RoutesConflict as error:
        return JSONResponse({"error": error.message, "try": error.try_next, "number": gateway.routes.number}, 409)
    except LabError as error:
        raise ApiError(422, error.message, error.try_next) from None
    return shown(gateway)


def shown(gateway: Gateway) -> Response:
    """The table in force, the gateway's clock, and whether the table is on the disk."""
    extra = {"time": time.time(), "persisted": gateway.table.persisted}
    return JSONResponse({**gateway.routes.as_dict(), **extra})


async def read_load(request: Request) -> Response:
    """GET /admin/load: the runs that are being read, by backend. One with none has nothing more to say."""
    gateway = administered(request)
    counts: dict[str, int] = dict.fromkeys(gateway.routes.backends, 0)
    for run in gateway.follower.running.values():
        counts[run.backend] = counts.get(run.backend, 0) + 1
    return JSONResponse({"time": time.time(), "runs": counts})


async def health(request: Request) -> Response:
    """GET /health"""
    gateway = gateway_of(request)
    arms = [{"name": arm.name, "release": arm.release, "weight": arm.weight} for arm in gateway.routes.arms]
    status = "stopping" if gateway.stopping.is_set() else "ready" if arms else "no routes"
    body: dict[str, Any] = {"status": status, "number": gateway.routes.number, "arms": arms, "time": time.time(),
                            "runs": len(gateway.follower.running)}  # fmt: skip
    return JSONResponse(body, 200 if status == "ready" else 503)


async def metrics(request: Request) -> Response:
    """GET /metrics: the gateway's own, and the monitor's over the run log, which reads a database."""
    text = await asyncio.to_thread(generate_latest, gateway_of(request).metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def read_releases(request: Request) -> Response:
    """GET /releases: which there are, and what share of the customers each one has."""
    from stage3_agents_llmops.pipeline.releases_view import releases

    gateway, home = gateway_of(request), request.app.state.home
    return JSONResponse({"releases": await asyncio.to_thread(releases, home, gateway.routes)})


async def unknown(request: Request) -> Response:
    """Nothing else below /admin reaches a backend."""
    administered(request)
    raise ApiError(404, "there is no such route", "/admin/routes, /admin/load")


ROUTES = [
    Route("/admin/routes", read_routes, methods=["GET"]),
    Route("/admin/routes", put_routes, methods=["PUT"]),
    Route("/admin/load", read_load, methods=["GET"]),
    Route("/admin/{path:path}", unknown, methods=METHODS),
    Route("/health", health, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/releases", read_releases, methods=["GET"]),
]
