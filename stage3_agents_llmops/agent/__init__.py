"""A multi-agent customer service on LangGraph: understand, hand off, ask, confirm, act, answer, remember.

Reading order: state, graph, listening, turn_taking, supervisor, agents/, confirmation, answering, human_handoff,
memory, customer_service_agent. Under them shop/, knowledge, understanding/, guardrails/; over them service/, page/,
evaluation/.

    from stage3_agents_llmops.agent import AgentSettings, CustomerServiceAgent, Decision
"""

from typing import Any

from stage3_agents_llmops.agent.events import Decision, Event, Reply
from stage3_agents_llmops.agent.settings import AgentSettings, default_settings

__all__ = ["AgentSettings", "CustomerServiceAgent", "Decision", "Event", "Reply", "default_settings"]


def __getattr__(name: str) -> Any:
    """`CustomerServiceAgent` on first use: it needs LangGraph, and a program that only reads settings does not."""
    if name != "CustomerServiceAgent":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stage3_agents_llmops.agent.customer_service_agent import CustomerServiceAgent

    return CustomerServiceAgent
