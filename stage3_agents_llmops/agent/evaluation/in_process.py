"""The agents in this process, without a service: the quick way to evaluate them."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from data.scripted_customers.dialogue import Act, Decide, Say, Turn
from stage3_agents_llmops.agent.customer_service_agent import CustomerServiceAgent
from stage3_agents_llmops.agent.evaluation.conversation import LONGEST_TURN, Event, turn_of
from stage3_agents_llmops.agent.events import Decision
from stage3_agents_llmops.agent.settings import AgentSettings


class AgentInProcess:
    """CustomerServiceAgent in this process. A restart closes it and opens another one on the same files."""

    name = "agent"

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self._stack = AsyncExitStack()
        self.agent: CustomerServiceAgent | None = None

    async def __aenter__(self) -> "AgentInProcess":
        self.agent = await self._stack.enter_async_context(CustomerServiceAgent.open(self.settings))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        """Nothing that lives in memory only survives this."""
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        await self.__aenter__()

    async def converse(self, customer_id: str, language: str, thread_id: str) -> "ConversationInProcess":
        """A new conversation."""
        return ConversationInProcess(self, customer_id, thread_id)


class ConversationInProcess:
    """See Conversation."""

    def __init__(self, host: AgentInProcess, customer_id: str, thread_id: str) -> None:
        self._host, self._customer_id, self._thread_id = host, customer_id, thread_id

    async def take(self, act: Act) -> Turn:
        """One run of the graph. What the agent raises is the agent's fault, a run without an answer."""
        words: dict[str, Any] = {"message": act.text} if isinstance(act, Say) else {"decision": decision(act)}
        events: list[Event] = []
        began = time.monotonic()
        try:
            async with asyncio.timeout(LONGEST_TURN):
                run = self._host.agent.stream(thread_id=self._thread_id, customer_id=self._customer_id, **words)
                async for event in run:
                    events.append((event.type, event.data))
        except Exception as error:  # whatever it is: a customer would see no answer
            text = f"{type(error).__name__}: {error}"
            return Turn("", end="failed", seconds=time.monotonic() - began, path=(text[:300],))
        return turn_of(events, time.monotonic() - began)


def decision(act: Decide) -> Decision:
    """A press on a button, in the agent's words."""
    return Decision(act.proposal.proposal_id, act.approve)
