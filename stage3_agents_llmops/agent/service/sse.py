"""Server-sent events by hand (WHATWG HTML, section 9.2), and the response that tails a run.

A frame is lines and an empty line:

    id: 7
    event: token
    data: {"run_id": "...", "seq": 7, "text": "Your "}

Three things break naive streams. A generator inside the request dies with the connection, and a graph iterated in it
may not (LangGraph's subgraphs run on); here the response only reads a log. A silent stream is cut by proxies: a comment
every few seconds keeps it open. A reader that stops reading would be waited for without end: it is cut off.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# X-Accel-Buffering: nginx collects answers otherwise and hands them on in blocks
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
PING = b": ping\n\n"


# exercise: agent.sse_frame
def sse_frame(event: str, data: str, id: int | None = None, retry: int | None = None) -> bytes:
    """One event in the wire format, UTF-8.

    Args:
        event: its type, one line.
        data: any text; every line of it becomes a `data:` line, whichever of the three line ends it has.
        id: what the reader's cursor becomes; without one the cursor stays.
        retry: milliseconds after which a reader that lost the connection comes back.

    Raises:
        ValueError: the type has a line end in it, so it would smuggle in fields.
    """
    if "\n" in event or "\r" in event:
        raise ValueError(f"the type of an event is one line, not {event!r}")
    fields = [] if id is None else [f"id: {id}"]
    fields.append(f"event: {event}")
    fields += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    fields += [] if retry is None else [f"retry: {retry}"]
    return ("\n".join(fields) + "\n\n").encode("utf-8", "replace")
# end exercise


class EventStream(Response):
    """Frames as they come, until they end, the reader leaves, or the reader no longer reads.

    Args:
        frames: what to send; closed when the response ends, for whatever reason.
        write_seconds: how long the reader may leave a full buffer full.
        on_slow: called when a reader is cut off.
        on_close: called once, when the response is over.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncIterator[bytes], write_seconds: float, on_slow: Callable[[], None] = lambda: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]  # nobody knows it yet
        self.frames, self.write_seconds, self.on_slow, self.on_close = frames, write_seconds, on_slow, on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(scope, send))
        leaving = asyncio.create_task(until_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
            self.on_close()

    async def _send(self, scope: Scope, send: Send) -> None:
        async with aclosing(self.frames) as frames:  # type: ignore[type-var]
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for frame in frames:
                    message = {"type": "http.response.body", "body": frame, "more_body": True}
                    await asyncio.wait_for(send(message), self.write_seconds)
                await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), self.write_seconds)
            except TimeoutError:
                self.on_slow()
                abort(scope)


async def until_gone(receive: Receive) -> None:
    """Returns when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def abort(scope: Scope) -> None:
    """Drop the connection with what is still in its buffer; closing it would wait for the reader to empty that."""
    drop: Any = scope.get("state", {}).get("abort")
    if drop:
        drop()
