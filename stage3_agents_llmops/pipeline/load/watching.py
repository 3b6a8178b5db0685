"""One run as its customer sees it: event by event, with everything that must not happen to a stream counted.

    dropped      it never came to its `end`, or an event in the middle never came
    duplicated   an event came twice
    reordered    an event came after one with a higher number
"""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from labkit.errors import LabError
from stage3_agents_llmops.agent.service.sse_client import Received, ServiceClient

PATIENCE = 60.0  # seconds that a customer waits for the end of an answer
PAUSE = 0.2  # seconds before coming back to a stream that broke off


@dataclass
class Watched:
    """What came of a run. Seconds count from the moment the message was sent."""

    run_id: str
    events: list[Received] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    connections: int = 0
    first_event: float | None = None
    first_token: float | None = None
    whole: float | None = None

    @property
    def end(self) -> str | None:
        """How it ended; None: it did not."""
        last = self.events[-1] if self.events else None
        return last.data["reason"] if last is not None and last.type == "end" else None

    @property
    def release(self) -> str:
        """Which release says that it answered."""
        return next((event.data.get("release", "") for event in self.events if event.type == "start"), "")

    @property
    def duplicated(self) -> int:
        """Events that came again."""
        return sum(count - 1 for count in Counter(self.seqs).values())

    @property
    def reordered(self) -> int:
        """Events that came after one with a higher number."""
        late, highest, known = 0, 0, set()
        for seq in self.seqs:
            late += seq < highest and seq not in known
            highest = max(highest, seq)
            known.add(seq)
        return late

    @property
    def missing(self) -> int:
        """Events that never came."""
        return max(self.seqs, default=0) - len(set(self.seqs))

    @property
    def dropped(self) -> bool:
        """Whether the customer did not get the whole of it."""
        return self.end is None or self.missing > 0 or not self.seqs

    def pairs(self) -> list[tuple[str, dict[str, Any]]]:
        """Type and data, each event once."""
        return [(event.type, event.data) for event in self.events]


async def watch(client: ServiceClient, run_id: str, sent: float, patience: float = PATIENCE) -> Watched:
    """Read a run to its end, over as many connections as that takes, within a customer's patience.

    Args:
        sent: time.perf_counter() when the message was sent.
    """
    watched = Watched(run_id)
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while watched.end is None:
                watched.connections += 1
                cursor = max(watched.seqs, default=0)
                with suppress(httpx.TransportError, LabError):
                    async for event in client.stream(run_id, cursor):
                        take(watched, event, time.perf_counter() - sent)
                        if watched.end is not None:
                            break
                if watched.end is None:
                    await asyncio.sleep(PAUSE)
    return watched


def take(watched: Watched, event: Received, seconds: float) -> None:
    """Note one event."""
    if event.type == "resync":
        return
    known = event.seq in watched.seqs and event.seq > 0
    if event.seq > 0:
        watched.seqs.append(event.seq)
    if known:
        return
    watched.events.append(event)
    watched.first_event = watched.first_event or seconds
    if event.type == "token":
        watched.first_token = watched.first_token or seconds
    if event.type == "end":
        watched.whole = seconds
