"""What a run carries beside its state: the services it may use, and the means to tell and to stop.

The state is data and is checkpointed; this is not. LangGraph hands it to every node, in subgraphs too, as
`runtime.context`, so the graph itself is built without any service and can be drawn from the code alone.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from langgraph.config import get_stream_writer
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime

from stage3_agents_llmops.agent.events import Event
from stage3_agents_llmops.agent.settings import AgentSettings


@dataclass(frozen=True)
class Services:
    """What lives as long as the agent: opened once, shared by all runs."""

    settings: AgentSettings
    shop: Any
    understander: Any
    knowledge: Any
    profiles: Any
    wording: Any = None  # a ModelClient, or None: the templates as they are
    release: Any = None  # a ReleaseFolder, or None: what the checkout holds


@dataclass
class RunContext:
    """One run: whose it is, and whether it has been stopped."""

    services: Services
    thread_id: str
    customer_id: str
    run_id: str | None = None
    stopped: bool = False
    written: list[dict[str, Any]] = field(default_factory=list)  # writes that this run did, for a run that is stopped

    async def think(self, awaitable_of: Callable[[], Any]) -> Any:
        """Await a model; a run that was stopped starts no further call.

        Raises:
            asyncio.CancelledError: the run was stopped.
        """
        if self.stopped:
            raise asyncio.CancelledError
        return await awaitable_of()


def tell(type: str, **data: Any) -> None:
    """Send an event to whoever reads the run."""
    event = Event(type, data)
    get_stream_writer()({"type": event.type, "data": event.data})


def node(name: str, agent: str = "supervisor") -> Callable:
    """Make a function a node of that name: its start and end are told, and its time.

    The function is given the state and the RunContext.
    """

    def decorate(work: Callable) -> Callable:
        async def traced(state: dict[str, Any], runtime: Runtime[RunContext]) -> Any:
            started = time.perf_counter()
            tell("node", name=name, agent=agent, phase="start", ms=0.0)
            try:
                return await work(state, runtime.context)
            except GraphBubbleUp:
                raise
            finally:
                spent = round(1000 * (time.perf_counter() - started), 2)
                tell("node", name=name, agent=agent, phase="end", ms=spent)

        hints = get_type_hints(work)  # LangGraph reads the state's type and the targets of a Command from them
        traced.__annotations__ |= {"state": hints["state"], "return": hints["return"]}
        traced.__name__, traced.__doc__, traced.node_name = work.__name__, work.__doc__, name
        return traced

    return decorate


async def use_tool(context: RunContext, name: str, arguments: dict[str, Any], read: Callable[[], Any]) -> Any:
    """Look something up in the shop, in a thread, and tell it.

    Args:
        read: does the look-up; its result is returned as it is.
    """
    told = {"name": name, "arguments": arguments, "sensitive": False, "write": False}
    tell("tool", phase="call", **told)
    result = await asyncio.to_thread(read)
    found = len(result) if isinstance(result, list) else int(result is not None)
    tell("tool", phase="result", ok=bool(found), message_code="found" if found else "not_found",
         result={"found": found}, **told)  # fmt: skip
    return result
