"""The refund agent: send something back, exchange it, and where is the money."""

import asyncio
from typing import Any

from stage3_agents_llmops.agent.agents.agent_graph import AgentState, build_agent
from stage3_agents_llmops.agent.agents.finding_orders import find_order
from stage3_agents_llmops.agent.agents.order_agent import refund_outcomes
from stage3_agents_llmops.agent.agents.refusals import refuse
from stage3_agents_llmops.agent.run_context import RunContext, tell
from stage3_agents_llmops.agent.shop import ItemView, OrderView, Verdict, check_tool
from stage3_agents_llmops.agent.wording import money, numbered, product_name, say
from stage3_agents_llmops.agent.worklist import ask, current_request, finish, outcome, propose

INTENTS = ("return_item", "exchange_item", "refund_status")
UNASKED = ("changed_mind", "damaged")  # the narrowest and the widest reason: allowed for none, allowed for no reason
DEFAULT_REASON = "changed_mind"  # of somebody who gives none: the reason that the policy is strictest with


def fits(intent: str, order: OrderView) -> bool:
    """Whether the request makes sense for the order."""
    if intent == "refund_status":
        return bool(order.refunds)
    return order.status == "delivered" and any(item.status == "ordered" for item in order.items)


async def lookup(state: AgentState, context: RunContext) -> dict[str, Any]:
    """Find the order."""
    intent = current_request(state)["intent"]
    return await find_order(state, context, lambda order: fits(intent, order))


async def choose_item(state: AgentState, context: RunContext) -> dict[str, Any]:
    """Which of the order's items; a question about money is answered here."""
    request, order, language = current_request(state), state["order"], state["language"]
    if request["intent"] == "refund_status":
        said = refund_outcomes(order, language) or [no_refund(order)]
        return finish(state, *said)
    item = which_item(order, request["slots"], state["slots"])
    if item:
        return {"item": item, "slots": {**state["slots"], "item_id": item.item_id}}
    options = [{"value": each.item_id, "names": list(each.names)} for each in order.items]
    lines = numbered([product_name(each, language) for each in order.items])
    tell("slots", slots=state["slots"], asked="item_id")
    code = "ask_item_return" if request["intent"] == "return_item" else "ask_item_exchange"
    return ask(state, "item_id", outcome(code, order_id=order.order_id, items=lines), options)


async def decide(state: AgentState, context: RunContext) -> dict[str, Any]:
    """Ask the policy before asking the customer why: what is never allowed needs no reason."""
    request, item, language = current_request(state), state["item"], state["language"]
    reason = request["slots"].get("reason")
    asked = state.get("asked") or {}
    if not reason and asked.get("request") == request["number"] and asked["slot"] == "reason" and asked["times"] >= 2:
        reason = DEFAULT_REASON
    verdicts = [await verdict_of(state, context, each) for each in ([reason] if reason else UNASKED)]
    if not any(verdict.allowed for verdict in verdicts):
        return refuse(state, request["intent"], verdicts[0])
    if not reason:
        tell("slots", slots=state["slots"], asked="reason")
        return ask(state, "reason", outcome("ask_reason", product=product_name(item, language)))
    requests = [{**each, "slots": {**each["slots"], "reason": reason}} if each["number"] == request["number"] else each
                for each in state["requests"]]  # fmt: skip
    return {"requests": requests, "asked": None if asked.get("request") == request["number"] else asked or None}


async def put_forward(state: AgentState, context: RunContext) -> dict[str, Any]:
    """The checked return or exchange, with what it means in words."""
    request, order, item, language = current_request(state), state["order"], state["item"], state["language"]
    tool, reason = request["intent"], request["slots"]["reason"]
    facts = {
        "order_id": order.order_id,
        "product": product_name(item, language),
        "reason": say(f"reason_{reason}", language),
        "amount": money(item.quantity * item.price_cents, order.currency),
    }
    return propose(state, tool, arguments_of(order, item, reason), facts, say(f"propose_{tool}", language, **facts))


async def verdict_of(state: AgentState, context: RunContext, reason: str) -> Verdict:
    """What the policy says with this reason."""
    arguments = arguments_of(state["order"], state["item"], reason)
    tool = current_request(state)["intent"]
    return await asyncio.to_thread(check_tool, context.services.shop, tool, context.customer_id, arguments)


def arguments_of(order: OrderView, item: ItemView, reason: str) -> dict[str, Any]:
    """Of return_item and of exchange_item."""
    return {"order_id": order.order_id, "item_id": item.item_id, "reason": reason}


def which_item(order: OrderView, slots: dict[str, str], remembered: dict[str, str]) -> ItemView | None:
    """The item that was chosen, named or remembered, or the only one that can still be sent back."""
    by_id = {item.item_id: item for item in order.items}
    if slots.get("item_id") in by_id:
        return by_id[slots["item_id"]]
    if slots.get("product") and (found := order.matching(slots["product"])):
        return found[0]
    if remembered.get("item_id") in by_id and not slots.get("product"):
        return by_id[remembered["item_id"]]
    if remembered.get("product") and (found := order.matching(remembered["product"])):
        return found[0]
    left = [item for item in order.items if item.status == "ordered"]
    candidates = left or list(order.items)
    return candidates[0] if len(candidates) == 1 else None


def no_refund(order: OrderView) -> dict[str, Any]:
    """What to say where no money is on its way, and why."""
    waiting = any(each.status == "requested" for each in order.returns)
    return outcome("refund_waits_for_return" if waiting else "refund_none", order_id=order.order_id)


REFUND_AGENT = build_agent(
    "refund_agent", {"lookup": lookup, "choose_item": choose_item, "decide": decide, "propose": put_forward}
)
