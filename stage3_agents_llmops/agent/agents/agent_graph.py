"""How an agent is built: nodes in a row, each of which may end the work early.

An agent reads and decides; the write is the graph's, after the customer's yes. So an agent may be run again from its
start at any time, and needs no checkpoints of its own.
"""

from collections.abc import Callable
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from stage3_agents_llmops.agent.run_context import RunContext, node
from stage3_agents_llmops.agent.state import ConversationState


class AgentState(ConversationState, total=False):
    """The conversation, and what the agent has in hand: objects that are never checkpointed."""

    order: Any  # OrderView
    item: Any  # ItemView
    product: Any  # ProductView
    passages: list[dict[str, Any]]
    confident: bool


def settled(state: AgentState) -> bool:
    """Whether nothing more is to be done for the current request: it was answered, asked about, put forward, or
    handed to another agent."""
    status = next(each["status"] for each in state["requests"] if each["number"] == state["current"])
    return status != "open" or bool(state.get("write")) or bool(state.get("handoff_to"))


def build_agent(name: str, steps: dict[str, Callable]) -> CompiledStateGraph:
    """A graph of the steps in their order; after each but the last it may be over.

    Args:
        steps: name -> async function of the state and the RunContext that gives the keys to change.
    """
    graph = StateGraph(AgentState, context_schema=RunContext, output_schema=ConversationState)
    names = list(steps)
    for step, work in steps.items():
        graph.add_node(step, node(f"{name}:{step}", name)(work))
    graph.add_edge(START, names[0])
    for step, following in zip(names, names[1:], strict=False):
        graph.add_conditional_edges(step, going_on(following), [following, END])
    graph.add_edge(names[-1], END)
    return graph.compile(checkpointer=False, name=name)


def going_on(following: str) -> Callable[[AgentState], str]:
    """The edge to the next step, or to the end when the request is settled."""
    return lambda state: END if settled(state) else following
