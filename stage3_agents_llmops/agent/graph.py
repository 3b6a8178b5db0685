"""The graph: `classify -> retrieve -> generate`, grown into a supervisor, four agents, a confirmation and a person.

    START -> guard -> classify -> supervisor <-> order / refund / product / complaint agent, retrieve, human_handoff
    supervisor -> generate -> check -> confirm (waits) -> act -> supervisor
                                    -> END

It is built without any service: what a run needs comes with it (run_context.py). So it can be drawn from this code.
"""

from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from stage3_agents_llmops.agent.agents.complaint_agent import COMPLAINT_AGENT
from stage3_agents_llmops.agent.agents.order_agent import ORDER_AGENT
from stage3_agents_llmops.agent.agents.product_agent import PRODUCT_AGENT
from stage3_agents_llmops.agent.agents.refund_agent import REFUND_AGENT
from stage3_agents_llmops.agent.answering import check, generate, retrieve
from stage3_agents_llmops.agent.confirmation import act, confirm
from stage3_agents_llmops.agent.human_handoff import human_handoff
from stage3_agents_llmops.agent.listening import after_guard, classify, guard
from stage3_agents_llmops.agent.run_context import RunContext
from stage3_agents_llmops.agent.state import ConversationState
from stage3_agents_llmops.agent.supervisor import supervisor

AGENT_GRAPHS = {
    "order_agent": ORDER_AGENT,
    "refund_agent": REFUND_AGENT,
    "product_agent": PRODUCT_AGENT,
    "complaint_agent": COMPLAINT_AGENT,
}
WRITERS = ("order_agent", "complaint_agent")  # have writes that need no yes: an invoice, a complaint


def after_agent(state: ConversationState) -> Literal["act", "supervisor"]:
    """A write that needs no yes is done at once."""
    return "act" if state.get("write") else "supervisor"


def after_check(state: ConversationState) -> Literal["confirm", "__end__"]:
    """A proposal waits for the customer's answer, anything else is the end of the run."""
    return "confirm" if state.get("proposal") else END


def build_graph(checkpointer: Any = None, agents: dict[str, CompiledStateGraph] | None = None) -> CompiledStateGraph:
    """The compiled graph.

    Args:
        checkpointer: keeps the state after every step; without one nothing can be confirmed or resumed.
        agents: other agents than the course's, by name.
    """
    graph = StateGraph(ConversationState, context_schema=RunContext)
    for work in (guard, classify, supervisor, retrieve, human_handoff, generate, check, confirm, act):
        graph.add_node(work.node_name, work)
    for name, agent in (AGENT_GRAPHS | (agents or {})).items():
        graph.add_node(name, agent)
        if name in WRITERS:
            graph.add_conditional_edges(name, after_agent)
        else:
            graph.add_edge(name, "supervisor")
    graph.add_edge(START, "guard")
    graph.add_conditional_edges("guard", after_guard)
    graph.add_edge("retrieve", "supervisor")
    graph.add_edge("human_handoff", "supervisor")
    graph.add_edge("act", "supervisor")
    graph.add_edge("generate", "check")
    graph.add_conditional_edges("check", after_check)
    return graph.compile(checkpointer=checkpointer, name="customer_service")
