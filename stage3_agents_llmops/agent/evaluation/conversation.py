"""How the evaluation reaches an agent: a run's events become a `Turn`, over HTTP and SSE or from the same process.

`in_process.py` has the agent in this process, `service_host.py` starts the service that ConversationOverHttp asks.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Protocol

import httpx

from data.scripted_customers.dialogue import Act, Proposal, Say, Turn
from stage3_agents_llmops.agent.service.sse_client import FrameParser

Event = tuple[str, Mapping[str, Any]]
LONGEST_TURN = 60.0  # seconds; a customer who waits longer is gone


class InfrastructureError(Exception):
    """The conversation could not be held, and that says nothing about the agent: counted apart."""


class Conversation(Protocol):
    """One conversation of one customer."""

    async def take(self, act: Act) -> Turn:
        """What the agent does after an act of the customer (never Leave). Raises InfrastructureError."""


class Agent(Protocol):
    """What is evaluated. `restart` ends it and starts it again on the same state, as a new process would."""

    name: str

    async def converse(self, customer_id: str, language: str, thread_id: str) -> Conversation:
        """A new conversation."""

    async def restart(self) -> None:
        """The service goes down and comes back."""


def turn_of(events: Iterable[Event], seconds: float) -> Turn:
    """The events of one run as the customer sees them; a `start` that resumes voids what was told before.

    A run without `end` is a failed one.
    """
    told: list[Event] = []
    for type, data in events:
        told = [] if type == "start" and data.get("resumed") else told
        told.append((type, data))
    last = {type: data for type, data in told}
    end, asked = last.get("end", {}), last.get("interrupt")
    proposal = None
    if asked and end.get("reason") == "waiting":
        proposal = Proposal(asked["proposal_id"], asked["tool"], asked["arguments"], asked.get("summary", ""))
    return Turn(
        text=str(end.get("text", "")),
        proposal=proposal,
        asked=last.get("slots", {}).get("asked"),
        end=end.get("reason", "failed"),
        citations=tuple(data for type, data in told if type == "citation"),
        streamed=sum(type == "token" for type, _ in told) > 1,
        seconds=seconds,
        path=tuple(data["name"] for type, data in told if type == "node" and data.get("phase") == "start"),
    )


class ConversationOverHttp:
    """A thread of the service: POST a run, read its events.

    Args:
        client: of the service's address, with the customer's token.
    """

    def __init__(self, client: httpx.AsyncClient, thread_id: str) -> None:
        self._client, self._thread_id = client, thread_id

    @classmethod
    async def open(cls, client: httpx.AsyncClient, language: str) -> "ConversationOverHttp":
        """A new thread. Raises InfrastructureError."""
        answer = await request(client, "POST", "/threads", {"language": language})
        return cls(client, answer["thread_id"])

    async def take(self, act: Act) -> Turn:
        """See Conversation."""
        if isinstance(act, Say):
            body: dict[str, Any] = {"message": act.text}
        else:
            body = {"decision": {"proposal_id": act.proposal.proposal_id, "approve": act.approve}}
        began = time.monotonic()
        run = await request(self._client, "POST", f"/threads/{self._thread_id}/runs", body)
        try:
            async with asyncio.timeout(LONGEST_TURN):
                events = [event async for event in self._events(run["run_id"])]
        except (httpx.HTTPError, TimeoutError) as error:
            raise InfrastructureError(f"the events of a run broke off: {type(error).__name__}") from None
        return turn_of(events, time.monotonic() - began)

    async def _events(self, run_id: str) -> AsyncIterator[Event]:
        async with self._client.stream("GET", f"/runs/{run_id}/events") as response:
            response.raise_for_status()
            parser = FrameParser()
            async for line in response.aiter_lines():
                if event := parser.line(line):
                    yield event.type, event.data
                    if event.type == "end":
                        return


async def request(client: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """One request; 429 waits for as long as the service says.

    Raises:
        InfrastructureError: no answer, or an error.
    """
    for _ in range(20):
        try:
            response = await client.request(method, path, json=dict(body))
        except httpx.HTTPError as error:
            raise InfrastructureError(f"{path}: {type(error).__name__}") from None
        if response.status_code == 429:
            await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
            continue
        if response.is_error:
            raise InfrastructureError(f"{path} answered {response.status_code}")
        return response.json()
    raise InfrastructureError(f"{path} is busy (429)")
