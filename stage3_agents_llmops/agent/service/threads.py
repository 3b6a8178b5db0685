"""Conversations: open one, list one's own, read one, watch one."""

import asyncio
import secrets
import time
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from stage3_agents_llmops.agent.service import database as db
from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.bodies import NewThread, Snapshot, ThreadId, ThreadList
from stage3_agents_llmops.agent.service.service import AnyCaller, Customer, Service, TheService, refusals
from stage3_agents_llmops.agent.service.streaming import STREAM, open_stream

router = APIRouter(tags=["threads"], responses=refusals(e401="no valid token"))
OPERATOR_KINDS = refusals(e403="the operator has no conversations", e422="a field is wrong")


@router.post("/threads", status_code=201, responses=OPERATOR_KINDS | refusals(e429="too many threads"))
async def open_thread(service: TheService, caller: Customer, body: NewThread | None = None) -> ThreadId:
    """Open a conversation."""
    thread_id, now = f"th_{secrets.token_hex(8)}", time.time()
    values = {
        "thread_id": thread_id, "customer_id": caller.name, "language": body.language if body else None,
        "created_at": now, "updated_at": now,
    }  # fmt: skip
    if not await service.database.call(_add_thread, values, service.limits.threads_per_customer):
        service.metrics.refused.labels("threads").inc()
        count = service.limits.threads_per_customer
        raise ApiError(429, f"you have {count} conversations", "go on with one of them", {"Retry-After": "3600"})
    return ThreadId(thread_id=thread_id)


def _add_thread(connection: Any, values: dict[str, Any], most: int) -> bool:
    if len(db.threads_of(connection, values["customer_id"])) >= most:
        return False
    db.insert(connection, "threads", values)
    return True


@router.get("/threads", responses=refusals(e403="the operator has no conversations"))
async def list_threads(service: TheService, caller: Customer) -> ThreadList:
    """One's own conversations, the last used first."""
    rows = await service.database.call(db.threads_of, caller.name)
    handed_over = {ticket["thread_id"] for ticket in await asyncio.to_thread(service.shop.human_queue)}
    running = await service.database.call(db.running_runs, caller.name)
    more = [
        {"human": row["thread_id"] in handed_over, "run_id": running.get(row["thread_id"], {}).get("run_id")}
        for row in rows
    ]
    return ThreadList(threads=[{**row, **two} for row, two in zip(rows, more, strict=True)])


@router.get("/threads/{thread_id}", responses=refusals(e404="unknown, or another customer's"))
async def read_thread(service: TheService, caller: AnyCaller, thread_id: str) -> Snapshot:
    """A conversation as it stands, with the run that is going on."""
    row = await service.thread(thread_id, caller)
    run = await running_run(service, row)  # before the snapshot: its events then cover what that lacks
    snapshot = await service.agent.snapshot(thread_id)
    by_turn = await service.database.call(db.runs_by_turn, thread_id)
    thumbs = await service.database.call(db.thumbs_of, thread_id)
    messages = [{"run_id": by_turn.get(message.get("turn")), **message} for message in snapshot["messages"]]
    messages = [{**each, "thumb": thumbs.get(each["run_id"])} if each["role"] == "agent" else each for each in messages]
    own = {name: row[name] for name in ("thread_id", "customer_id", "created_at")}
    language = snapshot.get("language") or row["language"]
    return Snapshot(**{**snapshot, **own, "language": language, "messages": messages, "run": run})


async def running_run(service: Service, thread: dict[str, Any]) -> dict[str, Any] | None:
    """The run that goes on in a thread, here or in another instance."""
    thread_id = thread["thread_id"]
    if mine := service.runs.by_thread.get(thread_id):
        return {"run_id": mine.run_id, "last_seq": mine.log.last_seq}
    other = (await service.database.call(db.running_runs, thread["customer_id"])).get(thread_id)
    return {"run_id": other["run_id"], "last_seq": other["last_seq"]} if other else None


@router.get("/threads/{thread_id}/events", response_class=Response,
            responses=refusals(e404="unknown, or another customer's", e429="too many streams") | STREAM)  # fmt: skip
async def watch_thread(service: TheService, caller: AnyCaller, thread_id: str) -> Response:
    """Server-sent events: `changed` when a run ended or a person wrote. Load the thread at each; one comes at once."""
    await service.thread(thread_id, caller)
    return open_stream(service, caller.name, service.feed.frames(thread_id))
