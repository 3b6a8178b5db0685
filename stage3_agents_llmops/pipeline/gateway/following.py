"""The gateway reads every run it has started, from the first event to `end`, whoever else reads it.

    backend --one stream--> FollowedRun.log --any number--> customers' streams
                                           --at the end---> one row of the run log

Handing each customer's own connection through would be less code and worse: a second tab would be a second stream at
the backend, a run that nobody watches would leave no row, and a backend that goes away would cut its customers off. So
the customer's stream reads a log here, with the same numbers, and the gateway comes back to the backend by itself with
Last-Event-ID: to the same one, or to another instance that has taken the run over.
"""

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from stage3_agents_llmops.agent.service.event_log import Logged, RunLog, events_after, one_write, rings
from stage3_agents_llmops.agent.service.sse import PING, sse_frame
from stage3_agents_llmops.monitoring import Seen
from stage3_agents_llmops.pipeline.gateway.frames import Frame, FrameCutter
from stage3_agents_llmops.pipeline.gateway.upstream import BackendDown, Headers, Upstream

logger = logging.getLogger(__name__)
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)  # seconds before coming back, again and again the last
LOST_SECONDS = 30.0  # without a new event and without anybody who knows the run
READ_OUT_SECONDS = 0.5  # that a backend may take to end a stream after `end`
HELD_RUNS = 2000  # finished runs whose events stay here; those of older ones are asked of a backend


@dataclass
class FollowedRun:
    """A run that was accepted by a backend."""

    run_id: str
    thread_id: str
    backend: str
    authorization: str  # whose run it is; nobody else gets its events from here
    traceparent: str
    labels: dict[str, Any]  # that its row will have: arm, release, unit, trace_id, thread_id, probe
    said: Mapping[str, Any] = field(default_factory=dict)  # the request's body
    approved: Mapping[str, Any] | None = None  # the proposal that the customer said yes to
    accepted_at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    log: RunLog = field(init=False)
    data: list[tuple[str, bytes, float]] = field(default_factory=list)  # type, JSON, seconds since it began
    backends: list[str] = field(default_factory=list)  # that it was followed on
    lost: bool = False
    resumed: bool = False  # taken up by another gateway than the one that began it
    record: Any = None  # its row
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.log = RunLog(self.run_id)

    @property
    def query(self) -> str:
        """The customer's message; empty for a decision."""
        return str(self.said.get("message") or "")

    @property
    def seen(self) -> list[Seen]:
        """What it told, until it is over."""
        return [Seen(type, json.loads(data), seconds) for type, data, seconds in self.data]

    @property
    def over(self) -> bool:
        """Whether nothing follows."""
        return self.log.closed or self.lost


class Follower:
    """Follows runs, and keeps them readable.

    Args:
        backends: those that may know a run, now.
        on_end: awaited with a run whose `end` has come, before anybody reads it; or that is lost.
        on_over: called after that.
        lost_seconds: without a new event, and without anybody who knows the run.
    """

    def __init__(
        self, upstream: Upstream, backends: Callable[[], list[str]], on_end: Callable[[FollowedRun], Awaitable[None]],
        on_over: Callable[[FollowedRun], None], lost_seconds: float = LOST_SECONDS,
    ) -> None:  # fmt: skip
        self.upstream, self.backends, self.on_end, self.on_over = upstream, backends, on_end, on_over
        self.lost_seconds = lost_seconds
        self.running: dict[str, FollowedRun] = {}
        self.by_thread: dict[str, FollowedRun] = {}
        self.over: OrderedDict[str, FollowedRun] = OrderedDict()

    def find(self, run_id: str) -> FollowedRun | None:
        """A run that is followed, or was not long ago."""
        return self.running.get(run_id) or self.over.get(run_id)

    def follow(self, run: FollowedRun) -> FollowedRun:
        """Begin; a run that is known already goes on as it is."""
        if known := self.find(run.run_id):
            return known
        self.running[run.run_id] = self.by_thread[run.thread_id] = run
        run.task = asyncio.create_task(self._follow(run), name=f"follow {run.run_id}")
        return run

    async def _follow(self, run: FollowedRun) -> None:
        try:
            await self._read_to_end(run)
        except Exception:
            logger.exception("run %s can no longer be followed", run.run_id)
        finally:
            if not asyncio.current_task().cancelling():
                await self._over(run)

    async def _over(self, run: FollowedRun) -> None:
        """Keep a run readable for a while; say of one without an end that it is lost."""
        if not run.log.closed:
            run.lost = True
            await self.on_end(run)
            run.log.ring()
        del self.running[run.run_id]
        if self.by_thread.get(run.thread_id) is run:
            del self.by_thread[run.thread_id]
        self.over[run.run_id] = run
        while len(self.over) > HELD_RUNS:
            self.over.popitem(last=False)
        self.on_over(run)
        run.data, run.said = [], {}

    async def _read_to_end(self, run: FollowedRun) -> None:
        seen, tries = time.monotonic(), 0
        while not run.log.closed:
            before = run.log.last_seq
            await self._read_once(run)
            if run.log.closed:
                return
            if run.log.last_seq > before:
                seen, tries = time.monotonic(), 0
            if time.monotonic() - seen > self.lost_seconds:
                logger.error("run %s is lost: no backend knows it", run.run_id)
                return
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            self._elsewhere(run, tries)
            tries += 1

    def _elsewhere(self, run: FollowedRun, tries: int) -> None:
        """Ask the next backend: the run's own may be gone, and another instance may have taken the run over."""
        places = list(dict.fromkeys([run.backends[0], *self.backends()]))
        run.backend = places[tries % len(places)]

    async def _read_once(self, run: FollowedRun) -> None:
        """One connection, until it ends for whatever reason."""
        if run.backend not in run.backends:
            run.backends.append(run.backend)
        cursor = run.log.last_seq
        headers: Headers = [("Authorization", run.authorization), ("traceparent", run.traceparent)]
        headers += [("Last-Event-ID", str(cursor))] if cursor else []
        cutter = FrameCutter()
        try:
            target = f"/runs/{run.run_id}/events"
            async with self.upstream.stream(run.backend, "GET", target, headers) as answer:
                if answer.status != 200:
                    return
                async for piece in answer.pieces:
                    for frame in cutter.feed(piece):
                        await self._take(run, frame)
                    if run.log.closed:
                        await read_out(answer.pieces)
                        return
        except (BackendDown, aiohttp.ClientError, OSError, ValueError) as error:
            logger.info("run %s: the stream of %s broke off: %r", run.run_id, run.backend, error)

    async def _take(self, run: FollowedRun, frame: Frame) -> None:
        """One frame into the log. The row is written before anybody reads `end`: a thumb finds it there."""
        if frame.id is None or frame.type == "resync" or frame.id <= run.log.last_seq or run.log.closed:
            return  # a comment, a restart of the backend, or an event that is here already
        run.data.append((frame.type, frame.data, seconds_of(run, frame)))
        if frame.type == "end":
            await self.on_end(run)
        if not run.log.held:
            run.log.first_seq = frame.id
        run.log.publish(Logged(frame.id, frame.type, frame.raw))

    async def stop(self) -> None:
        """Let go of every run; whoever reads one is told to come back."""
        tasks = [run.task for run in self.running.values() if run.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_out(pieces: AsyncIterator[bytes]) -> None:
    """Read to the end of a stream: a connection with something left on it is closed, and the next request waits for
    the backend to accept another."""
    with suppress(TimeoutError):
        async with asyncio.timeout(READ_OUT_SECONDS):
            async for _ in pieces:
                pass


def seconds_of(run: FollowedRun, frame: Frame) -> float:
    """When an event came; of a run that was begun by another gateway, when the backend says that it happened."""
    if not run.resumed:
        return time.monotonic() - run.began
    try:
        return max(0.0, float(json.loads(frame.data)["at"]) - run.accepted_at)
    except (ValueError, KeyError, TypeError):
        return max(0.0, time.time() - run.accepted_at)


async def frames_of(run: FollowedRun, cursor: int, heartbeat: float, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    """What a customer's stream gets from their cursor on, until the run's end or the gateway's.

    A run that is lost ends with an `error` and an `end` of the gateway's own, without a number: the customer knows that
    nothing will come.
    """
    while not stopping.is_set():
        bell = run.log.bell  # before looking
        events = events_after(run.log.held, cursor) if run.log.held else []
        if events is None:  # given up while this reader was slow: it comes back and is served by the backend
            break
        if events := one_write(events):
            cursor = events[-1].seq
            yield b"".join(event.frame for event in events)
        elif run.log.closed:
            return
        elif run.lost:
            yield lost_frames(run)
            return
        elif not await rings(bell, heartbeat):
            yield PING
    yield sse_frame("resync", json.dumps({"oldest": cursor + 1, "reason": "restarting"}), retry=1000)


def lost_frames(run: FollowedRun) -> bytes:
    """The end of a run that nobody knows any more."""
    common = {"run_id": run.run_id, "seq": 0, "at": round(time.time(), 4)}
    error = {"code": "lost", "message": "the service that answered is gone", "retryable": True, **common}
    end = {"reason": "failed", "text": "", **common}
    return sse_frame("error", json.dumps(error)) + sse_frame("end", json.dumps(end))
