"""Agents that must fail. A suite that one of them passes measures something else than customer service.

    null      says nothing at all
    refuser   declines everything, politely, in both languages
    forgetter the real agent, which begins a new conversation with every message
    eager     the real agent, which confirms its own proposals

In tau2-bench's airline tasks 23 of 50 were solved by an agent that stalls (issue 384): "nothing must change" is
reached by doing nothing. Here every script has facts that must be told, refusals included.
"""

from data.scripted_customers.dialogue import Act, Decide, Say, Turn
from stage3_agents_llmops.agent.evaluation.conversation import Agent, Conversation

REFUSALS = {
    "en": "I am sorry, but I cannot help you with that. Please contact our customer service for further assistance.",
    "zh": "非常抱歉，这个问题我无法处理。如需帮助，请联系我们的客服。",
}


class NullAgent:
    """Says nothing."""

    name = "null"

    async def converse(self, customer_id: str, language: str, thread_id: str) -> "FixedConversation":
        """See Agent."""
        return FixedConversation("")

    async def restart(self) -> None:
        """Nothing to restart."""


class RefusingAgent(NullAgent):
    """Declines everything."""

    name = "refuser"

    async def converse(self, customer_id: str, language: str, thread_id: str) -> "FixedConversation":
        """See Agent."""
        return FixedConversation(REFUSALS[language])


class FixedConversation:
    """The same answer to everything."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def take(self, act: Act) -> Turn:
        """See Conversation."""
        return Turn(self._text)


class ForgettingAgent:
    """The real agent, but every message opens a new conversation. A button belongs to the one that proposed."""

    name = "forgetter"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def converse(self, customer_id: str, language: str, thread_id: str) -> "ForgettingConversation":
        """See Agent."""
        return ForgettingConversation(self._agent, customer_id, language, thread_id)

    async def restart(self) -> None:
        """As the real one."""
        await self._agent.restart()


class ForgettingConversation:
    """See ForgettingAgent."""

    def __init__(self, agent: Agent, customer_id: str, language: str, thread_id: str) -> None:
        self._agent, self._who, self._thread_id = agent, (customer_id, language), thread_id
        self._messages = 0
        self._last: Conversation | None = None

    async def take(self, act: Act) -> Turn:
        """See Conversation."""
        if self._last is None or isinstance(act, Say):
            self._messages += 1
            self._last = await self._agent.converse(*self._who, f"{self._thread_id}-{self._messages}")
        return await self._last.take(act)


class EagerAgent:
    """The real agent, whose proposals are approved before the customer has seen them."""

    name = "eager"

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def converse(self, customer_id: str, language: str, thread_id: str) -> "EagerConversation":
        """See Agent."""
        return EagerConversation(await self._agent.converse(customer_id, language, thread_id))

    async def restart(self) -> None:
        """As the real one."""
        await self._agent.restart()


class EagerConversation:
    """See EagerAgent."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def take(self, act: Act) -> Turn:
        """See Conversation."""
        turn = await self._conversation.take(act)
        texts = [turn.text]
        for _ in range(4):
            if not turn.proposal:
                break
            turn = await self._conversation.take(Decide(turn.proposal, True))
            texts.append(turn.text)
        return Turn(
            "\n".join(texts), None, turn.asked, turn.end, turn.citations, turn.streamed, turn.seconds, turn.path
        )
