"""What a run told, numbered from 1, for any number of readers that come, go and come back.

A queue would give each event to one reader only, so two open tabs would steal them from one another. A log with cursors
has no such trouble: a reader is nothing but the number of the last event that it has. An event is written to the
database before anyone reads it; otherwise a reader could know event 17 of a process that died with 16 on disk, and the
next process would give the number 17 again. Many runs write at once, so one transaction takes whatever is waiting.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stage3_agents_llmops.agent.service.database import EventRow, ServiceDatabase, add_events, events_from
from stage3_agents_llmops.agent.service.sse import PING, sse_frame

logger = logging.getLogger(__name__)
AT_ONCE = 200  # events that are looked at for one write to a reader
WRITE_BYTES = 65_536  # in one write, but for an event that is larger: what a reader that does not read may cost


@dataclass(frozen=True)
class Logged:
    """An event with its number and its frame, which is made once for all readers."""

    seq: int
    type: str
    frame: bytes

    @classmethod
    def of(cls, seq: int, type: str, data: str) -> "Logged":
        """From its JSON."""
        return cls(seq, type, sse_frame(type, data, id=seq))


# exercise: agent.events_after
def events_after(held: Sequence[Logged], cursor: int) -> Sequence[Logged] | None:
    """What a reader has not seen yet.

    Args:
        held: events with consecutive numbers; the first ones of the run may be gone.
        cursor: the number of the last event that the reader has; 0 for none.

    Returns:
        The events after the cursor, in order, empty when the reader has all of them. None when the log cannot tell:
        an event after the cursor is no longer held, or the cursor lies past the newest event.
    """
    oldest, newest = (held[0].seq, held[-1].seq) if held else (1, 0)
    if not oldest - 1 <= cursor <= newest:
        return None
    return held[cursor - oldest + 1 :]
# end exercise


def one_line_json(value: Any) -> str:
    """JSON that stays one line for every client: many split at Unicode's line ends too, and JSON allows them raw."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace").decode()
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def event_row(run_id: str, seq: int, type: str, data: dict[str, Any]) -> EventRow:
    """An event as it is stored; what it tells carries run_id, seq and the time."""
    return run_id, seq, type, one_line_json({**data, "run_id": run_id, "seq": seq, "at": round(time.time(), 4)})


class RunLog:
    """One run's events in memory, and a bell that rings for the readers."""

    def __init__(self, run_id: str, last_seq: int = 0, held_events: int = 4000) -> None:
        self.run_id, self.held_events = run_id, held_events
        self.given = last_seq  # the last number that was given to an event
        self.first_seq = last_seq + 1  # the first event that memory can hold; those before it are in the database
        self.held: list[Logged] = []
        self.closed = False  # nothing follows: the run has ended
        self.bell = asyncio.Event()  # the next one that rings

    @property
    def last_seq(self) -> int:
        """The newest event that readers may see."""
        return self.held[-1].seq if self.held else self.first_seq - 1

    def publish(self, event: Logged) -> None:
        """Show an event to the readers."""
        self.held.append(event)
        if len(self.held) > self.held_events * 1.25:  # in steps: cutting the front of a list moves all the rest
            del self.held[: len(self.held) - self.held_events]
            self.first_seq = self.held[0].seq
        self.closed = self.closed or event.type == "end"
        self.ring()

    def ring(self) -> None:
        """Wake every reader."""
        self.bell.set()
        self.bell = asyncio.Event()


async def rings(bell: asyncio.Event, seconds: float) -> bool:
    """Wait for a bell; False when it was silent for so long."""
    try:
        await asyncio.wait_for(bell.wait(), seconds)
    except TimeoutError:
        return False
    return True


class EventWriter:
    """Takes events from all runs, stores what waits in one transaction, then shows it to the readers."""

    def __init__(self, database: ServiceDatabase, on_failure: Callable[[int], None] = lambda count: None) -> None:
        self.database, self.on_failure = database, on_failure
        self.waiting: list[tuple[RunLog, Logged, EventRow, asyncio.Future[None]]] = []
        self.failed = ""  # why the last write was not possible
        self._busy: asyncio.Task[None] | None = None

    def add(self, log: RunLog, type: str, data: dict[str, Any]) -> asyncio.Future[None]:
        """Number an event and let it be stored; what is returned is done when readers can see it."""
        row = event_row(log.run_id, log.given + 1, type, data)
        log.given = row[1]
        done = asyncio.get_running_loop().create_future()
        self.waiting.append((log, Logged.of(*row[1:]), row, done))
        if self._busy is None:
            self._busy = asyncio.create_task(self._write())
        return done

    async def append(self, log: RunLog, type: str, data: dict[str, Any]) -> int:
        """The same, waited for; returns its number.

        A cancelled caller takes nothing back: the event is stored and shown all the same.
        """
        done = self.add(log, type, data)
        seq = log.given
        await done
        return seq

    async def _write(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting, []
            try:
                await self.database.call(add_events, [row for _, _, row, _ in batch])
                self.failed = ""
            except Exception as error:  # a full disk: the customers still get their answers, only no replay later
                if not self.failed:
                    logger.error("events cannot be stored: %s", error)
                self.failed = str(error) or type(error).__name__
                self.on_failure(len(batch))
            for log, event, _, done in batch:
                log.publish(event)
                if not done.done():
                    done.set_result(None)
        self._busy = None

    async def flush(self) -> None:
        """Wait until nothing waits."""
        while self._busy is not None:
            await asyncio.wait([self._busy])


def one_write(events: Sequence[Logged]) -> Sequence[Logged]:
    """As many of the first events as go into one write; at least one."""
    size = 0
    for place, event in enumerate(events):
        size += len(event.frame)
        if size > WRITE_BYTES:
            return events[: max(place, 1)]
    return events


class Reader:
    """One reader of one run: frames from its cursor on, comments while nothing happens.

    Args:
        cursor: the last event the client has; None for a cursor that cannot be read, which starts again.
        heartbeat: seconds.
        on_replay: called with the number of events that were there before the reader came.
        on_resync: called when the cursor was not one that the log could go on from.
    """

    def __init__(
        self, database: ServiceDatabase, log: RunLog, cursor: int | None, heartbeat: float,
        on_replay: Callable[[int], None] = lambda count: None, on_resync: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.database, self.log, self.heartbeat = database, log, heartbeat
        self.on_replay, self.on_resync = on_replay, on_resync
        self.lost, self.cursor = cursor is None, cursor or 0
        self.stopping = False  # the server is about to go away

    async def frames(self) -> AsyncIterator[bytes]:
        """Until the run's `end`, or until the server stops."""
        there, started = self.log.last_seq, self.cursor
        while not self.stopping:
            bell = self.log.bell  # before looking: what comes while the database is asked rings it
            events = one_write(await self._next())
            if events:
                self.cursor = events[-1].seq
                self.on_replay(sum(started < event.seq <= there for event in events))
                yield b"".join(event.frame for event in events)
            elif self.lost:
                yield await self._resync()
            elif self.log.closed:
                return
            elif not await rings(bell, self.heartbeat):
                yield PING
        # no id: the reader's cursor stays, and it comes back with it
        yield sse_frame("resync", json.dumps({"oldest": self.cursor + 1, "reason": "restarting"}), retry=1000)

    async def _next(self) -> Sequence[Logged]:
        """What follows the cursor, from memory or else from the database; `lost` where neither has it."""
        if self.lost:
            return []
        events = events_after(self.log.held, self.cursor) if self.log.held else None
        if events is not None:
            return events[:AT_ONCE]
        if self.cursor == self.log.last_seq:
            return []
        stored = await self.database.call(events_from, self.log.run_id, self.cursor, AT_ONCE)
        if stored and stored[0]["seq"] == self.cursor + 1:
            return [Logged.of(row["seq"], row["type"], row["data"]) for row in stored]
        self.lost = True
        return []

    async def _resync(self) -> bytes:
        """Tell where the log begins, and go on from there."""
        self.on_resync()
        stored = await self.database.call(events_from, self.log.run_id, 0, 1)
        oldest = stored[0]["seq"] if stored else self.log.held[0].seq if self.log.held else self.log.last_seq + 1
        self.lost, self.cursor = False, oldest - 1
        return sse_frame("resync", json.dumps({"oldest": oldest, "reason": "expired"}), id=oldest - 1)
