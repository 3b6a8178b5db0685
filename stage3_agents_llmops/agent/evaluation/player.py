"""Plays one conversation: the scripted customer acts, the agent answers, until the customer is gone."""

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from data.scripted_customers.dialogue import Leave, Turn
from data.scripted_customers.judge import Case, Verdict
from stage3_agents_llmops.agent.evaluation.conversation import Agent, InfrastructureError


@dataclass(frozen=True)
class Outcome:
    """One trial of one script. `verdict` is None where the infrastructure failed; `error` says how."""

    name: str
    trial: int
    verdict: Verdict | None
    transcript: list[dict[str, Any]]
    seconds: tuple[float, ...]  # of every turn
    error: str = ""


class Thinks(Protocol):
    """A customer that must be asked asynchronously before it can act (llm_user.py)."""

    async def think(self, turn: Turn | None) -> None: ...


class RestartGate:
    """Conversations that leave wait here for each other, so that one restart serves all of them.

    Args:
        agent: is restarted once everybody who is to leave has left, or has ended otherwise.
        expected: how many conversations may come.
    """

    def __init__(self, agent: Agent, expected: int) -> None:
        self._agent, self._missing = agent, expected
        self._restarted = asyncio.Event()

    async def leave(self) -> None:
        """Come back when the agent has been restarted."""
        await self._arrive()
        await self._restarted.wait()

    async def ended(self) -> None:
        """A conversation that will not come any more."""
        await self._arrive()

    async def _arrive(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            try:
                await self._agent.restart()
            finally:
                self._restarted.set()


async def play(case: Case, agent: Agent, trial: int, thread_id: str, gate: RestartGate | None = None) -> Outcome:
    """Hold one conversation and judge it."""
    seconds: list[float] = []
    left = False
    thinks = case.customer if hasattr(case.customer, "think") else None

    async def next_act(turn: Turn | None) -> Any:
        if thinks:
            await thinks.think(turn)
        return await asyncio.to_thread(case.next, turn)

    try:
        conversation = await agent.converse(case.found.customer_id, case.script.language, thread_id)
        act = await next_act(None)
        while act:
            turn = None
            if isinstance(act, Leave):
                if gate:
                    left = True
                    await gate.leave()
            else:
                turn = await conversation.take(act)
                seconds.append(turn.seconds)
            act = await next_act(turn)
        verdict, error = await asyncio.to_thread(case.verdict), ""
    except InfrastructureError as failure:
        verdict, error = None, str(failure)
    finally:
        if gate and not left:
            await gate.ended()
    return Outcome(case.script.name, trial, verdict, case.transcript(), tuple(seconds), error)
