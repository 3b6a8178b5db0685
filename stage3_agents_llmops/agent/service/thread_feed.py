"""Tells open pages that a conversation has changed outside their own run: another tab, a person of the shop.

It carries no content and needs no replay. A reader that comes, or comes back, is told `changed` once and loads the
snapshot; so nothing can be lost.
"""

import asyncio
import json
from collections.abc import AsyncIterator

from stage3_agents_llmops.agent.service.event_log import rings
from stage3_agents_llmops.agent.service.sse import PING, sse_frame


class ThreadFeed:
    """Who watches which conversation."""

    def __init__(self, heartbeat: float) -> None:
        self.heartbeat, self.stopping = heartbeat, False
        self.watchers: dict[str, set[Watcher]] = {}

    def changed(self, thread_id: str, reason: str) -> None:
        """Tell everyone who watches a thread: "run", "operator" or "released"."""
        for watcher in self.watchers.get(thread_id, ()):
            watcher.reasons[reason] = None
            watcher.bell.set()

    def stop(self) -> None:
        """End every stream; the pages come back when the service does."""
        self.stopping = True
        for watcher in {watcher for group in self.watchers.values() for watcher in group}:
            watcher.bell.set()

    async def frames(self, thread_id: str) -> AsyncIterator[bytes]:
        """`changed` events of one thread, until the reader leaves or the service stops."""
        watcher = Watcher()
        watcher.reasons["opened"] = None
        self.watchers.setdefault(thread_id, set()).add(watcher)
        try:
            while not self.stopping:
                watcher.bell.clear()
                reasons, watcher.reasons = watcher.reasons, {}
                for reason in reasons:
                    yield sse_frame("changed", json.dumps({"thread_id": thread_id, "reason": reason}))
                if not reasons and not await rings(watcher.bell, self.heartbeat):
                    yield PING
        finally:
            self.watchers[thread_id].discard(watcher)
            if not self.watchers[thread_id]:
                del self.watchers[thread_id]


class Watcher:
    """One reader: a bell, and why it rang; however often, the same reason is told once."""

    def __init__(self) -> None:
        self.bell, self.reasons = asyncio.Event(), dict[str, None]()
