"""Runs: start one, read what it tells, look at it, cancel it."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from starlette.responses import Response

from stage3_agents_llmops.agent.events import Decision
from stage3_agents_llmops.agent.service import database as db
from stage3_agents_llmops.agent.service.api_error import ApiError, unknown
from stage3_agents_llmops.agent.service.bodies import NewRun, RunAccepted, RunStatus
from stage3_agents_llmops.agent.service.run import Asked
from stage3_agents_llmops.agent.service.service import AnyCaller, Customer, Service, TheService, clean, refusals
from stage3_agents_llmops.agent.service.streaming import STREAM, open_stream

router = APIRouter(tags=["runs"], responses=refusals(e401="no valid token"))
Key = Annotated[str | None, Header(max_length=200, description="the same key again answers the same run")]
Cursor = Annotated[int | None, Query(ge=0, le=2**53, description="the last event that you have; Last-Event-ID wins")]
NOT_FOUND = refusals(e404="unknown, or another customer's")


@router.post(
    "/threads/{thread_id}/runs", status_code=202,
    responses=NOT_FOUND | refusals(
        e403="the operator replies elsewhere", e409="a run is going on, or the proposal is no longer open",
        e413="too long", e422="not a message and not a decision", e429="too many runs; Retry-After tells when",
        e503="the service is stopping",
    ),
)  # fmt: skip
async def start_run(
    service: TheService, caller: Customer, thread_id: str, body: NewRun, idempotency_key: Key = None
) -> RunAccepted:  # fmt: skip
    """Send a message, or decide about a proposal. The run goes on by itself; read its events."""
    thread = await service.thread(thread_id, caller)
    asked = asked_of(service, body, idempotency_key, thread["language"])
    try:
        run_id = await service.runs.create(thread, asked)
    except ApiError as error:
        if error.status == 429:
            service.metrics.refused.labels("runs").inc()
        raise
    return RunAccepted(run_id=run_id, events=f"/runs/{run_id}/events")


def asked_of(service: Service, body: NewRun, key: str | None, language: str | None) -> Asked:
    """The body, cleaned and masked: from here on nothing holds what was written in the raw."""
    mac = service.tokens.sign(body.model_dump_json()) if key else None
    if body.decision:
        return Asked(None, Decision(body.decision.proposal_id, body.decision.approve), key, mac, language)
    text = service.mask(clean(body.message or "", service.limits.message_chars))
    return Asked(text, None, key, mac, language)


@router.get("/runs/{run_id}/events", response_class=Response, responses=NOT_FOUND | STREAM | refusals(
            e422="the cursor is no number", e429="too many streams") | {
            204: {"description": "the run is over and you have all of it: do not come back"}})  # fmt: skip
async def read_events(
    service: TheService, caller: AnyCaller, run_id: str, after: Cursor = None,
    last_event_id: Annotated[str | None, Header(description="sent by browsers that reconnect")] = None,
) -> Response:  # fmt: skip
    """Server-sent events of a run, from its beginning or from your cursor on, until `end`.

    Data is JSON with run_id, seq and at (seconds since 1970) in every event. `resync` says that events after your
    cursor are gone (reason "expired": load the thread; the stream goes on with `oldest`) or that the server restarts
    (reason "restarting": come back with the same cursor). Lines that begin with a colon keep the connection open.
    """
    run = await service.run(run_id, caller)
    cursor = cursor_of(last_event_id, after)
    if run.log.closed and cursor is not None and cursor >= run.log.last_seq:
        return Response(status_code=204)
    reader = service.runs.open_reader(run, cursor)
    return open_stream(service, caller.name, reader.frames(), lambda: run.readers.discard(reader))


def cursor_of(last_event_id: str | None, after: int | None) -> int | None:
    """Where a reader goes on; None for an id that was never given out."""
    if last_event_id is None or not last_event_id.strip():
        return after or 0
    text = last_event_id.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


@router.get("/runs/{run_id}", responses=NOT_FOUND)
async def read_run(service: TheService, caller: AnyCaller, run_id: str) -> RunStatus:
    """How a run stands."""
    run = await service.run(run_id, caller)
    row = await service.database.call(db.run_row, run.run_id)
    if row is None:
        raise unknown("run", run_id)
    return RunStatus(**{**row, "last_seq": max(row["last_seq"], run.log.last_seq)})


@router.post("/runs/{run_id}/cancel", status_code=202, responses=NOT_FOUND)
async def cancel_run(
    service: TheService, caller: AnyCaller, run_id: Annotated[str, Path(examples=["run_9b1f6c0d33aa4e21"])]
) -> RunStatus:  # fmt: skip
    """Stop a run; its `end` with reason "cancelled" follows within a second. Nothing happens to one that is over."""
    run = await service.run(run_id, caller)
    service.runs.cancel(run)
    return await read_run(service, caller, run_id)
