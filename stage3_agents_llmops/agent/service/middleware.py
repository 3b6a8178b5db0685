"""Around every request: a body that is too large or never comes, and a count of the answers.

Written as plain ASGI, because Starlette's BaseHTTPMiddleware puts a queue between the response and the socket: a stream
would no longer feel that its reader is slow.
"""

import asyncio
import json
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stage3_agents_llmops.agent.service.api_error import ApiError
from stage3_agents_llmops.agent.service.limits import Limits


class Bodies:
    """Reads the whole body of a request before anything else does, within size and time."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._read(receive), self.limits.body_seconds)
        except TimeoutError:
            await refuse(send, ApiError(408, "the body did not come", "the whole body at once"))
        except ApiError as error:
            await refuse(send, error)
        else:
            if body is not None:
                await self.app(scope, replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limits.body_bytes:
                raise ApiError(413, f"the body is larger than {self.limits.body_bytes:,} bytes", "a shorter message")
        return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body again, then what the connection says."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


async def refuse(send: Send, error: ApiError) -> None:
    """The refusal as JSON; the connection closes, because the rest of the body is still under way."""
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
               (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Counted:
    """Has every answer counted when it begins. Plain ASGI, so nothing is buffered.

    Args:
        count: is given the scope and the answer's first message.
    """

    def __init__(self, app: ASGIApp, count: Callable[[Scope, Message], None]) -> None:
        self.app, self.count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.count(scope, message)
            await send(message)

        await self.app(scope, receive, counted)
