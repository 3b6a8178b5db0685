"""uvicorn around the application: one worker, a port that is had before models are loaded, and an end without orphans.

Two clients uvicorn would wait for without end: one that sends half a request, and one whose stream is full because it
does not read. The first is timed here; for the second the response needs a way to drop the connection.
"""

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from labkit.errors import LabError
from stage2_rag_finetune_deploy.serving.server_process import free_port
from stage3_agents_llmops.agent.service.limits import Limits

HALF_SECONDS = 20.0  # until the head of a request has to be complete
LARGEST_HEAD = 16_384  # bytes
SWITCH = 0.0005  # seconds until a thread that waits for a busy loop gets its turn; Python's own is ten times as long
KEEP_ALIVE = 75  # seconds; longer than clients keep an idle connection, or one sends while this end closes


class PatientProtocol(H11Protocol):
    """HTTP/1.1 whose patience ends: half a request is closed, and responses may drop the connection."""

    half_seconds = HALF_SECONDS
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}  # in each request's scope["state"]
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        half = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if half and self._timer is None:
            self._await_head()
        elif not half and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.half_seconds, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn that says when it is up, and that drains the service before it ends.

    `app.state.service` has `begin_drain(seconds)`, `drained` (an event) and `begin_stop()`.
    """

    def __init__(self, config: uvicorn.Config, app: Any, on_ready: Callable[[], None], grace: float) -> None:
        super().__init__(config)
        self.app, self.on_ready, self.grace = app, on_ready, grace

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.running_loop, self.signals = asyncio.get_running_loop(), 0
        if self.started:
            self.ending = asyncio.create_task(self._end_when_drained())
            self.on_ready()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal drains: uvicorn's own exit closes the port, and who has a run could not read it any more."""
        self.signals = getattr(self, "signals", 0) + 1
        service = getattr(self.app.state, "service", None)
        if self.signals == 1 and hasattr(self, "running_loop") and service:
            self.running_loop.call_soon_threadsafe(service.begin_drain, self.grace)  # a handler may only ask the loop
        else:
            super().handle_exit(sig, frame)

    async def _end_when_drained(self) -> None:
        """However it came to be drained, by a signal or by a request: end the streams, then the process."""
        service = self.app.state.service
        await service.drained.wait()
        service.begin_stop()
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens, so that nobody takes the port while models are loaded; port 0 is any free one.

    Raises:
        LabError: in use, not allowed, out of range, or the host is none of this machine's.
    """
    if not 0 <= port <= 65535:
        raise LabError(f"there is no port {port}", "--port 8030")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, or asyncio leaves Nagle on and an answer's body waits 40 ms for the receipt of its head.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(512)
    except OSError as error:
        listening.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror or error}"
        raise LabError(f"port {port} of {host} {reason}", f"--port {free_port()}") from None
    return listening


def run_server(
    app: Any, listening: socket.socket, limits: Limits, on_ready: Callable[[], None], access_log: bool = True
) -> int:
    """Serve until Ctrl-C or SIGTERM, then end in order; returns the exit code."""
    config = uvicorn.Config(
        app, http=PatientProtocol, ws="none", loop="asyncio", log_config=None, access_log=access_log, lifespan="on",
        h11_max_incomplete_event_size=LARGEST_HEAD, timeout_keep_alive=KEEP_ALIVE, server_header=False,
        timeout_graceful_shutdown=round(limits.grace) + 5,
    )  # fmt: skip
    server = Server(config, app, on_ready, limits.grace)
    sys.setswitchinterval(SWITCH)
    before = signal.getsignal(signal.SIGTERM)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after a clean end
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while uvicorn's own handlers are not set, or no more
            server.run(sockets=[listening])
        finally:
            signal.signal(signal.SIGTERM, before)
            listening.close()
    return 0 if server.started else 1
