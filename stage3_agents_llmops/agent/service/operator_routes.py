"""The shop's own people: who waits for one of them, what they answer, and handing back to the agents."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from stage3_agents_llmops.agent.service.api_error import ApiError, unknown
from stage3_agents_llmops.agent.service.bodies import OperatorText, Queue
from stage3_agents_llmops.agent.service.service import Caller, Operator, Service, TheService, clean, refusals

router = APIRouter(
    prefix="/operator", tags=["operator"], responses=refusals(e401="no valid token", e403="operator only")
)
TALKING = refusals(e404="unknown thread", e409="a run is going on, or nobody of the shop is in this conversation")


@router.get("/queue")
async def read_queue(service: TheService, caller: Operator) -> Queue:
    """Who waits for a person, the longest first."""
    tickets = await asyncio.to_thread(service.shop.human_queue)
    return Queue(queue=[{**ticket, "position": number} for number, ticket in enumerate(tickets, 1)])


@router.post("/threads/{thread_id}/reply", status_code=204, response_class=Response,
             responses=TALKING | refusals(e413="too long", e422="no text"))  # fmt: skip
async def reply(service: TheService, caller: Operator, thread_id: str, body: OperatorText) -> Response:
    """Answer in a conversation that was handed over; the customer sees it at once."""
    text = service.mask(clean(body.text, service.limits.message_chars))
    await _handed_over(service, caller, thread_id)
    await service.agent.operator_reply(thread_id, text)
    service.feed.changed(thread_id, "operator")
    return Response(status_code=204)


@router.post("/threads/{thread_id}/release", status_code=204, response_class=Response, responses=TALKING)
async def release(service: TheService, caller: Operator, thread_id: str) -> Response:
    """Hand the conversation back to the agents."""
    await _handed_over(service, caller, thread_id)
    await service.agent.release(thread_id)
    service.feed.changed(thread_id, "released")
    return Response(status_code=204)


async def _handed_over(service: Service, caller: Caller, thread_id: str) -> dict[str, Any]:
    await service.thread(thread_id, caller)
    if thread_id in service.runs.by_thread:
        raise ApiError(409, "a run of this conversation is going on", "again in a moment")
    snapshot = await service.agent.snapshot(thread_id)
    if not snapshot:
        raise unknown("thread", thread_id)
    if not snapshot.get("human"):
        raise ApiError(409, "this conversation was not handed over", "GET /operator/queue lists those that were")
    return snapshot
