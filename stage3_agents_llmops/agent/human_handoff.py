"""To a person, and back: a ticket in the shop's queue, the operator's words, and the release.

Until somebody takes the ticket the agents go on helping with what they can; from the operator's first word on they are
silent, and every message of the customer is kept for the operator.
"""

import asyncio
from typing import Any

from stage3_agents_llmops.agent.confirmation import write
from stage3_agents_llmops.agent.run_context import RunContext, node, tell
from stage3_agents_llmops.agent.shop import Shop, ToolError, set_ticket_status
from stage3_agents_llmops.agent.state import ConversationState
from stage3_agents_llmops.agent.worklist import outcome, told, write_key

SUMMARY_CHARS = 300


@node("human_handoff")
async def human_handoff(state: ConversationState, context: RunContext) -> dict[str, Any]:
    """Put the conversation in the queue; once, however often it is asked for."""
    if state["human_active"]:
        tell("human", ticket_id=state["ticket_id"], position=0)
        done = [{**each, "status": "done"} for each in state["requests"]]
        return {"requests": done, "asked": None}
    arguments: dict[str, Any] = {"summary": summary(state)}
    if order_id := state["slots"].get("order_id"):
        arguments["order_id"] = order_id
    key = write_key({**state, "current": state.get("current") or 0}, "request_human", arguments)
    result = await write(context, {"proposal_id": key, "tool": "request_human", "arguments": arguments})
    requests = [
        {**each, "status": "done"} if each["number"] == state["current"] else each for each in state["requests"]
    ]
    if isinstance(result, ToolError):
        return {"requests": requests, "outcomes": told(state, outcome("human_unreachable"))}
    ticket_id, position = result.data["ticket_id"], result.data["position"]
    tell("human", ticket_id=ticket_id, position=position)
    code = "human_still_queued" if result.message_code == "human_already_requested" else "human_queued"
    said = outcome(code, state.get("current"), position=position, ticket_id=ticket_id)
    return {"human": True, "ticket_id": ticket_id, "requests": requests, "failures": 0, "outcomes": told(state, said)}


def summary(state: ConversationState) -> str:
    """The customer's last words for the operator's list; they were masked when they came in."""
    said = [message["text"] for message in state["messages"] if message["role"] == "customer"]
    return (" / ".join(said[-2:])[-SUMMARY_CHARS:]).strip() or "human"


async def take_ticket(shop: Shop, ticket_id: str | None) -> None:
    """An operator has begun to answer."""
    if ticket_id:
        await asyncio.to_thread(set_ticket_status, shop, ticket_id, "taken", "operator")


async def close_ticket(shop: Shop, ticket_id: str | None) -> None:
    """The operator has handed the conversation back."""
    if ticket_id:
        await asyncio.to_thread(set_ticket_status, shop, ticket_id, "closed", "operator")


def operator_message(state: ConversationState, text: str) -> dict[str, Any]:
    """The state's changes when an operator writes."""
    message = {"role": "human", "text": text, "turn": state["turn"], "citations": [], "run_id": None}
    return {"messages": [*state["messages"], message], "human": True, "human_active": True}


def handed_back() -> dict[str, Any]:
    """The state's changes when the operator is done."""
    return {"human": False, "human_active": False, "ticket_id": None, "failures": 0, "anger": 0,
            "active_agent": "supervisor"}  # fmt: skip
