"""The other side of the service: sends messages, reads event streams, comes back where a stream broke off.

    async with ServiceClient("http://127.0.0.1:8030", token) as client:
        thread = await client.open_thread()
        run = await client.start(thread, message="Where is my order?")
        async for event in client.events(run):
            print(event.seq, event.type, event.data)
"""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from labkit.errors import LabError

TRIES = 20  # to come back to a stream in a row without one new event
PAUSE = 0.25  # seconds before the next try


@dataclass(frozen=True)
class Received:
    """One event as it came over the wire."""

    type: str
    data: dict[str, Any]
    id: int | None

    @property
    def seq(self) -> int:
        """Its number in the run; 0 where it has none, as `resync`."""
        return self.data.get("seq", 0)


class FrameParser:
    """Lines of a stream become events (WHATWG HTML, section 9.2.6); comments are counted."""

    def __init__(self) -> None:
        self.comments, self.retry = 0, None
        self.cursor: int | None = None
        self._type, self._data, self._id = "message", list[str](), None

    def line(self, line: str) -> Received | None:
        """Take one line; an empty one completes an event."""
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and value.isdigit():
            self._id = self.cursor = int(value)
        elif name == "retry" and value.isdigit():
            self.retry = int(value)
        return None

    def _complete(self) -> Received | None:
        type, lines, id = self._type, self._data, self._id
        self._type, self._data, self._id = "message", [], None
        return Received(type, json.loads("\n".join(lines)), id) if lines else None


async def received(lines: AsyncIterable[bytes]) -> AsyncIterator[Received]:
    """The events of a response's lines, for a client that needs less processor time than ServiceClient: aiohttp's."""
    parser = FrameParser()
    async for line in lines:
        if event := parser.line(line.decode().rstrip("\r\n")):
            yield event


class ServiceClient:
    """A customer's, or the operator's, connection to the service."""

    def __init__(self, url: str, token: str, timeout: float = 60.0, **options: Any) -> None:
        headers, secure = {"Authorization": f"Bearer {token}"}, url.startswith("https:")
        self.http = httpx.AsyncClient(  # reading the certificates takes longer than a run
            base_url=url, headers=headers, timeout=timeout, trust_env=False, verify=secure, **options
        )
        self.comments = 0

    async def __aenter__(self) -> "ServiceClient":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.http.aclose()

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """A request whose answer is JSON or nothing.

        Raises:
            LabError: the service refused it; it says why and what to do.
        """
        response = await self.http.request(method, path, **options)
        body = response.json() if response.content else None
        if response.is_error:
            raise LabError(f"{response.status_code}: {body['error']}", body["try"])
        return body

    async def open_thread(self, language: str | None = None) -> str:
        """A new conversation's id."""
        return (await self.call("POST", "/threads", json={"language": language}))["thread_id"]

    async def start(self, thread_id: str, **body: Any) -> str:
        """Start a run with `message=...` or `decision=...`; its id."""
        return (await self.call("POST", f"/threads/{thread_id}/runs", json=body))["run_id"]

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[Received]:
        """A run's events to its end, over as many connections as that takes.

        Raises:
            LabError: the service does not come back, or refuses.
        """
        cursor, failures = after, 0
        while failures < TRIES:
            with suppress(httpx.TransportError):
                async for event in self.stream(run_id, cursor):
                    cursor, failures = (cursor if event.id is None else event.id), 0
                    yield event
                    if event.type == "end":
                        return
            failures += 1
            await asyncio.sleep(PAUSE)
        raise LabError("the service does not come back", "is it running?  python -m stage3_agents_llmops.agent serve")

    async def stream(self, run_id: str, cursor: int = 0) -> AsyncIterator[Received]:
        """What one connection brings."""
        headers = {"Last-Event-ID": str(cursor)} if cursor else {}
        parser = FrameParser()
        async with self.http.stream("GET", f"/runs/{run_id}/events", headers=headers) as response:
            if response.is_error:
                body = json.loads(await response.aread())
                raise LabError(f"{response.status_code}: {body['error']}", body["try"])
            async for line in response.aiter_lines():
                if event := parser.line(line):
                    yield event
                self.comments = max(self.comments, parser.comments)

    async def say(self, thread_id: str, message: str) -> list[Received]:
        """One message and all that its run tells."""
        run_id = await self.start(thread_id, message=message)
        return [event async for event in self.events(run_id)]
