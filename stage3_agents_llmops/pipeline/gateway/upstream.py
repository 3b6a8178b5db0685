"""The gateway's side towards the service processes: requests, and streams whose pieces are handed on as they come.

aiohttp and not httpx: both are in the course's environment, and a request through aiohttp's compiled parser costs a
fraction of the processor time (figures in the README). One pool of connections for all customers: a new connection for
every request would cost another round trip.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

CONNECT_SECONDS = 2.0  # the processes are near; one that does not answer by then is gone
KEEP_ALIVE = 30.0  # seconds; shorter than the services', or a request meets a connection that is just being closed
# of one connection only (RFC 9110, 7.6.1), or made anew by each side
HOP_BY_HOP = frozenset((
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade", "host", "content-length",
))  # fmt: skip
Headers = list[tuple[str, str]]


class BackendDown(Exception):
    """There is no answer: nobody listens, or the connection broke before the head of an answer had come."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(frozen=True)
class Streamed:
    """An answer whose body is still coming."""

    status: int
    headers: Headers
    pieces: AsyncIterator[bytes]


def end_to_end(headers: Mapping[str, str] | Headers) -> Headers:
    """The headers that are meant for the other end."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(name, value) for name, value in pairs if name.lower() not in HOP_BY_HOP]


class Upstream:
    """Connections to all backends; use it as a context, inside the event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Upstream":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, skip_auto_headers=("User-Agent", "Accept"),
            read_bufsize=2**18,
        )  # fmt: skip
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def ask(
        self, backend: str, method: str, target: str, headers: Headers, body: bytes | None = None, seconds: float = 60.0
    ) -> Answer:  # fmt: skip
        """A request and its whole answer.

        Raises:
            BackendDown: none came in time.
        """
        async with self.stream(backend, method, target, headers, body, seconds) as answer:
            try:
                pieces = [piece async for piece in answer.pieces]
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise BackendDown(f"{backend}: {error!r}") from None
            return Answer(answer.status, answer.headers, b"".join(pieces))

    @asynccontextmanager
    async def stream(
        self, backend: str, method: str, target: str, headers: Headers, body: bytes | None = None,
        seconds: float | None = None,
    ) -> AsyncIterator[Streamed]:  # fmt: skip
        """A request whose answer's body is read piece by piece; reading raises aiohttp.ClientError where it breaks off.

        Args:
            target: path and query, as they came.
            seconds: for the whole answer; None: as long as it takes.

        Raises:
            BackendDown: there is no answer.
        """
        timeout = aiohttp.ClientTimeout(total=seconds, connect=CONNECT_SECONDS)
        url = URL(backend + target, encoded=True)
        try:
            response = await self._session.request(
                method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BackendDown(f"{backend}: {error!r}") from None
        try:
            yield Streamed(response.status, end_to_end(response.headers), response.content.iter_any())
        finally:
            response.release()
