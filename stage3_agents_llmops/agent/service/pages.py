"""The page, the drawing of the graph, health, figures, and the demo's tokens."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from stage3_agents_llmops.agent.events import SCHEMA
from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.auth import OPERATOR
from stage3_agents_llmops.agent.service.bodies import Demo, Health, Topology
from stage3_agents_llmops.agent.service.service import TheService, refusals

FOLDER = Path(__file__).parents[1] / "page"
DEMO_CUSTOMERS = 40
# Only the page's own files, no inline script, no frame around it: a message that smuggles markup in stays text
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src "
    "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
router = APIRouter(tags=["service"])


@router.get("/health")
async def health(service: TheService) -> Health:
    """What is served, and how much is going on."""
    runs = service.runs
    working = sum(run.working for run in runs.by_id.values())
    counts = {"active": len(runs.by_id), "waiting": len(runs.by_id) - working, "streams": service.streams.total}
    draining = "draining" if runs.draining else "degraded" if runs.writer.failed else "ready"
    status = "stopping" if runs.stopping else draining
    facts = {name: service.agent.facts[name] for name in ("understander", "wording", "model")}
    own = {"release": service.release, "instance": service.instance}
    return Health(status=status, **own, **facts, schema=SCHEMA, runs=counts)


@router.get("/metrics", response_class=Response,
            responses={200: {"content": {"text/plain": {"example": "agent_runs_total{reason=\"answered\"} 12.0"}}}})
async def metrics(service: TheService) -> Response:
    """Prometheus' text form."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/graph")
async def graph(service: TheService) -> Topology:
    """The agents and the ways between them, drawn from the code."""
    return Topology(mermaid=service.agent.draw(), **service.agent.topology())


@router.get("/demo/customers", responses=refusals(e404="the demo is off"))
async def demo(service: TheService) -> Demo:
    """Some customers with tokens, and the operator's token. Only on this machine, and only where the demo is on."""
    if not service.demo:
        raise ApiError(404, "the demo is off", "serve --demo, or a token from whoever runs the service")
    customers = await asyncio.to_thread(_customers, service.shop)
    issue = service.tokens.issue
    return Demo(
        customers=[{**customer, "token": issue(customer["customer_id"])} for customer in customers],
        operator={"token": issue(OPERATOR)},
    )


def _customers(shop: Any) -> list[dict[str, Any]]:
    sql = "select customer_id, name, language from customers order by customer_id limit ?"
    with shop.connection() as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, (DEMO_CUSTOMERS,))]


class PageFiles(StaticFiles):
    """Static files with the page's headers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(PAGE_HEADERS)
        return response


def add_pages(app: FastAPI, folder: Path = FOLDER) -> None:
    """`/` is the customer's page, `/operator` the operator's; their files lie under /static."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(folder / "index.html", headers=PAGE_HEADERS)

    @app.get("/operator", include_in_schema=False)
    async def operator_page() -> FileResponse:
        return FileResponse(folder / "operator.html", headers=PAGE_HEADERS)

    app.mount("/static", PageFiles(directory=folder, check_dir=False), name="static")
