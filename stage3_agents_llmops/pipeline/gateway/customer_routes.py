"""The customers' routes: those of the service, with several services behind them."""

import hmac
from collections.abc import AsyncIterator

import aiohttp
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.run_routes import cursor_of
from stage3_agents_llmops.agent.service.sse import EventStream
from stage3_agents_llmops.pipeline.gateway.following import FollowedRun, frames_of
from stage3_agents_llmops.pipeline.gateway.gateway import Gateway, plain, read_object, target_of
from stage3_agents_llmops.pipeline.gateway.upstream import Answer, BackendDown

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def gateway_of(request: Request) -> Gateway:
    """The running gateway."""
    return request.app.state.gateway


async def start_run(request: Request) -> Response:
    """POST /threads/{thread_id}/runs"""
    return await gateway_of(request).start_run(request, request.path_params["thread_id"])


async def read_events(request: Request) -> Response:
    """GET /runs/{run_id}/events: from the gateway's own log, if this is the one who started the run."""
    gateway, run_id = gateway_of(request), request.path_params["run_id"]
    run = gateway.follower.find(run_id)
    after = request.query_params.get("after", "0")
    cursor = cursor_of(request.headers.get("last-event-id"), int(after) if after.isdigit() else None)
    if run is None or cursor is None or not after.isdigit() or not is_owner(run, request) or is_before(run, cursor):
        return await pass_stream(request, run)
    if run.over and cursor >= run.log.last_seq and run.log.held:
        return Response(status_code=204)
    return open_stream(gateway, frames_of(run, cursor, gateway.limits.heartbeat, gateway.stopping))


def is_owner(run: FollowedRun, request: Request) -> bool:
    """Whether the request carries the very token with which a backend accepted the run."""
    given = request.headers.get("authorization", "")
    return bool(given) and hmac.compare_digest(given.encode(), run.authorization.encode())


def is_before(run: FollowedRun, cursor: int) -> bool:
    """Whether the reader needs what is not held here, or claims to have more than there is."""
    if not run.log.held:
        return cursor > 0
    return not run.log.held[0].seq - 1 <= cursor <= run.log.last_seq


def open_stream(gateway: Gateway, frames: AsyncIterator[bytes]) -> EventStream:
    """A customer's stream, counted."""
    gateway.metrics.streams.inc()
    return EventStream(frames, gateway.limits.write_seconds, on_close=gateway.metrics.streams.dec)


async def pass_stream(request: Request, run: FollowedRun | None) -> Response:
    """A stream, or a refusal, from the first backend that knows the run."""
    gateway = gateway_of(request)
    asking = gateway.asking(request)
    places = [arm.backend for arm in gateway.router.candidates(asking.arm)]
    if run:
        places = [run.backend, *(place for place in places if place != run.backend)]
    last: Answer | None = None
    for place in places:
        headers = gateway.headers(request, asking, asking.arm)
        opened = gateway.upstream.stream(place, "GET", target_of(request), headers)
        try:
            answer = await opened.__aenter__()
        except BackendDown:
            continue
        if answer.status == 200:
            return open_stream(gateway, handed_on(opened, answer.pieces))
        body = b"".join([piece async for piece in answer.pieces])
        await opened.__aexit__(None, None, None)
        last = Answer(answer.status, answer.headers, body)
        if answer.status != 404:
            break
    if last is None:
        raise ApiError(502, "no service answers", "come back with the same cursor", {"Retry-After": "2"})
    return plain(last)


async def handed_on(opened: object, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces as they come; the connection behind them is let go with them."""
    try:
        async for piece in pieces:
            yield piece
    except aiohttp.ClientError:
        return  # the backend is gone: the customer comes back with what they have
    finally:
        await opened.__aexit__(None, None, None)


async def watch_thread(request: Request) -> Response:
    """GET /threads/{thread_id}/events: `changed`, whichever backend's run it was."""
    gateway, thread_id = gateway_of(request), request.path_params["thread_id"]
    asking = gateway.asking(request, thread_id)
    headers = gateway.headers(request, asking, asking.arm)
    answer = await gateway.call(asking, asking.arm.backend, "GET", f"/threads/{thread_id}", headers)
    if answer.status != 200:
        return plain(answer)
    return open_stream(gateway, gateway.feed.frames(thread_id))


async def of_run(request: Request) -> Response:
    """GET /runs/{run_id}, POST .../cancel: whoever works on the run."""
    gateway = gateway_of(request)
    run = gateway.follower.find(request.path_params["run_id"])
    asking = gateway.asking(request)
    return plain(await gateway.pass_on(request, asking, run.backend if run else asking.arm))


async def give_feedback(request: Request) -> Response:
    """POST /runs/{run_id}/feedback: the service keeps it, and the run log."""
    gateway, run_id = gateway_of(request), request.path_params["run_id"]
    asking = gateway.asking(request)
    answer = await gateway.pass_on(request, asking, asking.arm)
    if answer.status < 300:
        await gateway.recorder.update(run_id, feedback=read_object(await request.body()).get("score"))
    return plain(answer)


async def resolved(request: Request) -> Response:
    """POST /runs/{run_id}/resolved {"resolved": true}: the customer says whether that was what they wanted."""
    value = read_object(await request.body()).get("resolved")
    if not isinstance(value, bool):
        raise ApiError(422, "resolved is true or false", '{"resolved": true}')
    run_id = await own_run(request)
    await gateway_of(request).recorder.update(run_id, resolved=value)
    return Response(status_code=204)


async def clicked(request: Request) -> Response:
    """POST /runs/{run_id}/citations/{number}/click: the customer has opened a source."""
    run_id = await own_run(request)
    await gateway_of(request).recorder.click(run_id)
    return Response(status_code=204)


async def own_run(request: Request) -> str:
    """The run of the path, if it is the caller's. Raises ApiError otherwise."""
    gateway, run_id = gateway_of(request), request.path_params["run_id"]
    run = gateway.follower.find(run_id)
    if run is not None and is_owner(run, request):
        return run_id
    asking = gateway.asking(request)
    headers = gateway.headers(request, asking, asking.arm)
    answer = await gateway.call(asking, asking.arm.backend, "GET", f"/runs/{run_id}", headers)
    if answer.status != 200:
        known = read_object(answer.body)
        raise ApiError(answer.status, known.get("error", "refused"), known.get("try", "the run's own customer"))
    return run_id


async def of_thread(request: Request) -> Response:
    """Everything else of a conversation: whoever works in it, else the customer's arm."""
    gateway, thread_id = gateway_of(request), request.path_params["thread_id"]
    asking = gateway.asking(request, thread_id)
    run = gateway.follower.by_thread.get(thread_id)
    answer = await gateway.pass_on(request, asking, run.backend if run else asking.arm)
    if answer.status < 300 and request.url.path.startswith("/operator/"):
        reason = "released" if request.url.path.endswith("/release") else "operator"
        gateway.proposals.set(thread_id, None)
        gateway.feed.changed(thread_id, reason)
    return plain(answer)


async def open_thread(request: Request) -> Response:
    """POST /threads: nothing waits for a yes in a conversation that begins."""
    gateway = gateway_of(request)
    asking = gateway.asking(request)
    answer = await gateway.pass_on(request, asking, asking.arm)
    if answer.status == 201:
        gateway.proposals.set(read_object(answer.body)["thread_id"], None)
    elif answer.status >= 500 or answer.status == 429:  # a customer who does not even come to ask
        await gateway.record_refusal(asking, asking.arm, "", str(answer.status), {})
    return plain(answer)


async def anything(request: Request) -> Response:
    """The pages and the rest: the customer's arm."""
    gateway = gateway_of(request)
    asking = gateway.asking(request)
    return plain(await gateway.pass_on(request, asking, asking.arm))


ROUTES = [
    Route("/threads", open_thread, methods=["POST"]),
    Route("/threads/{thread_id}/runs", start_run, methods=["POST"]),
    Route("/threads/{thread_id}/events", watch_thread, methods=["GET"]),
    Route("/runs/{run_id}/events", read_events, methods=["GET"]),
    Route("/runs/{run_id}/feedback", give_feedback, methods=["POST"]),
    Route("/runs/{run_id}/resolved", resolved, methods=["POST"]),
    Route("/runs/{run_id}/citations/{number:int}/click", clicked, methods=["POST"]),
    Route("/runs/{run_id}", of_run, methods=METHODS),
    Route("/runs/{run_id}/{what:path}", of_run, methods=METHODS),
    Route("/threads/{thread_id}", of_thread, methods=METHODS),
    Route("/operator/threads/{thread_id}/{what:path}", of_thread, methods=METHODS),
    Route("/{path:path}", anything, methods=METHODS),
]
