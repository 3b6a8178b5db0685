"""What a run is: what it is to do, what becomes of it, and what the service needs of the agents for it."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

from stage3_agents_llmops.agent.events import Decision, Event
from stage3_agents_llmops.agent.service.event_log import Reader, RunLog


class Agent(Protocol):
    """What the service needs of `CustomerServiceAgent`."""

    @property
    def facts(self) -> dict[str, Any]:
        """understander, wording, model, release."""

    def stream(
        self, *, thread_id: str, customer_id: str, message: str | None = None, decision: Decision | None = None,
        resume: bool = False, run_id: str | None = None, language: str | None = None,
    ) -> AsyncGenerator[Event, None]:  # fmt: skip
        """One run's events."""

    async def snapshot(self, thread_id: str) -> dict[str, Any]:
        """The conversation as it stands."""

    def draw(self) -> str:
        """The graph as Mermaid."""

    def topology(self) -> dict[str, Any]:
        """nodes, edges."""

    async def cancelled_text(self, thread_id: str) -> str:
        """What a cancelled run leaves as its answer."""

    async def operator_reply(self, thread_id: str, text: str) -> Any:
        """A person answers."""

    async def release(self, thread_id: str) -> Any:
        """The person hands back."""


@dataclass(frozen=True)
class Asked:
    """What a run is to do: answer a message, or carry out a decision."""

    message: str | None = None  # personal data masked already
    decision: Decision | None = None
    key: str | None = None  # the client's Idempotency-Key
    mac: str | None = None  # of the body: the same key with another body is a mistake
    language: str | None = None  # that the thread was opened with


@dataclass
class Run:
    """One run: running, or over and still readable."""

    run_id: str
    thread_id: str
    customer_id: str
    asked: Asked
    log: RunLog
    created_at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    working: bool = False  # has a place among those that use models
    closing: bool = False  # what the agent says from now on is not told
    end_told: bool = False
    token_told: bool = False
    turn: int | None = None  # that `start` was told with before the agents told it
    readers: set[Reader] = field(default_factory=set)
