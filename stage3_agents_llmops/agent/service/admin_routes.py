"""For programs that deploy: take a service out of use without a customer noticing."""

from fastapi import APIRouter

from stage3_agents_llmops.agent.service.bodies import Draining
from stage3_agents_llmops.agent.service.service import Admin, TheService, refusals

router = APIRouter(prefix="/admin", tags=["admin"], responses=refusals(e401="no valid token", e403="not the admin's"))


@router.post("/drain", status_code=202)
async def drain(service: TheService, caller: Admin) -> Draining:
    """Take no new run (503, code "draining"), finish those that go on, then end the process. Again: how far it is."""
    service.begin_drain()
    return Draining(status="draining", runs=len(service.runs.by_id))
