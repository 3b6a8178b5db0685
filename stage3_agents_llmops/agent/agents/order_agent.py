"""The order agent: where is it, cancel it, send it elsewhere, an invoice please."""

import asyncio
from typing import Any

from stage3_agents_llmops.agent.agents.agent_graph import AgentState, build_agent
from stage3_agents_llmops.agent.agents.finding_orders import OPEN, find_order
from stage3_agents_llmops.agent.agents.refusals import refuse
from stage3_agents_llmops.agent.run_context import RunContext, tell
from stage3_agents_llmops.agent.shop import OrderView, check_tool
from stage3_agents_llmops.agent.wording import items_text, money, say
from stage3_agents_llmops.agent.worklist import ask, current_request, finish, outcome, propose

INTENTS = ("order_status", "cancel_order", "change_address", "invoice")
FITS = {
    "order_status": OPEN,
    "cancel_order": ("placed", "packed"),
    "change_address": ("placed", "packed"),
    "invoice": (*OPEN, "delivered"),
}


async def lookup(state: AgentState, context: RunContext) -> dict[str, Any]:
    """Find the order; a status question is answered at once."""
    statuses = FITS[current_request(state)["intent"]]
    return await find_order(state, context, lambda order: order.status in statuses)


async def decide(state: AgentState, context: RunContext) -> dict[str, Any]:
    """Answer, ask for the address, or refuse by the policy."""
    request, order, language = current_request(state), state["order"], state["language"]
    if request["intent"] == "order_status":
        return finish(state, status_outcome(order, language), *refund_outcomes(order, language))
    tool, arguments = call_for(request, order)
    verdict = await asyncio.to_thread(check_tool, context.services.shop, tool, context.customer_id, arguments)
    if not verdict.allowed:
        return refuse(state, tool, verdict)
    if tool == "change_address" and not request["slots"].get("address"):
        tell("slots", slots=state["slots"], asked="address")
        return ask(state, "address", outcome("ask_address", order_id=order.order_id))
    return {}


async def put_forward(state: AgentState, context: RunContext) -> dict[str, Any]:
    """The checked write, with what it means in words."""
    request, order, language = current_request(state), state["order"], state["language"]
    tool, arguments = call_for(request, order)
    facts = {"order_id": order.order_id, "items": items_text(order, language), "address": arguments.get("address", ""),
             "old_address": order.address, "amount": money(order.total_cents, order.currency)}  # fmt: skip
    summary = "" if tool == "send_invoice" else say(f"propose_{tool}", language, **facts)
    return propose(state, tool, arguments, facts, summary)


def call_for(request: dict[str, Any], order: OrderView) -> tuple[str, dict[str, Any]]:
    """The tool and its arguments; without an address yet the old one stands in, so that the rule can be asked first."""
    arguments = {"order_id": order.order_id}
    if request["intent"] == "change_address":
        return "change_address", arguments | {"address": request["slots"].get("address") or order.address}
    if request["intent"] == "invoice":
        return "send_invoice", arguments
    reason = request["slots"].get("reason")
    return "cancel_order", arguments | ({"reason": reason} if reason else {})


def status_outcome(order: OrderView, language: str) -> dict[str, Any]:
    """Where an order is."""
    facts = {
        "order_id": order.order_id,
        "items": items_text(order, language),
        "placed_on": order.placed_on,
        "address": order.address,
    }
    if order.shipment:
        facts |= {
            name: getattr(order.shipment, name) for name in ("carrier", "tracking", "expected_on", "delivered_on")
        }
        facts["shipped_on"] = order.shipment.shipped_on
    code = f"status_{order.status}"
    if order.status == "shipped" and order.shipment and order.shipment.status == "out_for_delivery":
        code = "status_out_for_delivery"
    return outcome(code, **facts)


def refund_outcomes(order: OrderView, language: str) -> list[dict[str, Any]]:
    """What is being refunded of the order, one outcome a refund."""
    return [
        outcome(f"refund_{refund.status}", order_id=order.order_id, created_on=refund.created_on,
                amount=money(refund.amount_cents, order.currency))
        for refund in order.refunds
    ]  # fmt: skip


ORDER_AGENT = build_agent("order_agent", {"lookup": lookup, "decide": decide, "propose": put_forward})
