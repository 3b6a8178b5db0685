"""The complaint agent: listens, files a ticket, and says what can be done about it."""

import asyncio
from collections.abc import Mapping
from typing import Any

from data.customer_service.normalise import order_number
from stage3_agents_llmops.agent.agents.agent_graph import AgentState, build_agent
from stage3_agents_llmops.agent.run_context import RunContext, use_tool
from stage3_agents_llmops.agent.shop import OrderView, check_tool
from stage3_agents_llmops.agent.worklist import current_request, finish, outcome, propose

INTENTS = ("complaint",)
SUMMARY_CHARS = 300
SURE = 0.8  # confidence from which a complaint is filed at once; below, the customer is asked whether it is one


async def lookup(state: AgentState, context: RunContext) -> dict[str, Any]:
    """The order that it is about, where one is named or was talked about. Nobody is asked for a number first."""
    request, shop = current_request(state), context.services.shop
    orders = await use_tool(context, "orders", {}, lambda: shop.orders(context.customer_id))
    written = request["slots"].get("order_id")
    wanted = order_number(written) if written else state["slots"].get("order_id")
    order = next((each for each in orders if each.order_id == wanted), None)
    if order is None and not written and request["slots"].get("product"):
        having = [each for each in orders if each.matching(request["slots"]["product"])]
        order = having[0] if len(having) == 1 else None
    slots = {**state["slots"], "order_id": order.order_id} if order else state["slots"]
    return {"order": order, "slots": slots}


async def decide(state: AgentState, context: RunContext) -> dict[str, Any]:
    """A second ticket for the same trouble helps nobody."""
    request, order, shop = current_request(state), state.get("order"), context.services.shop
    tickets = await use_tool(context, "tickets", {}, lambda: shop.tickets(context.customer_id, "open"))
    order_id = order.order_id if order else None
    mine = [each for each in tickets if each.thread_id == context.thread_id and each.kind == "complaint"]
    same = next((each for each in mine if each.order_id == order_id), None)
    if same:
        return finish(state, outcome("complaint_exists", ticket_id=same.ticket_id))
    if is_doubtful(request):
        return finish(state, outcome("offer_complaint"),
                      offer={"intent": "complaint", "slots": request["slots"], "text": request["text"]})  # fmt: skip
    return {}


def is_doubtful(request: Mapping[str, Any]) -> bool:
    """Whether "complaint" is only the likeliest of several readings. Nobody confirms a complaint before it is filed, so
    it takes more to believe in one than in a wish that ends in a question."""
    return request["intent"] == "complaint" and request.get("source") != "rules" and request.get("confidence", 1) < SURE


async def put_forward(state: AgentState, context: RunContext) -> dict[str, Any]:
    """The ticket, and after it the offer of a return where the policy would allow one."""
    request, order = current_request(state), state.get("order")
    arguments: dict[str, Any] = {"summary": request["text"][:SUMMARY_CHARS].strip() or "complaint"}
    reason = request["slots"].get("reason")
    if reason:
        arguments["reason"] = reason
    if order:
        arguments["order_id"] = order.order_id
    offer = await return_offer(order, reason or "", context)
    return propose(state, "open_complaint", arguments, {"order_id": order.order_id if order else ""}) | {"offer": offer}


async def return_offer(order: OrderView | None, reason: str, context: RunContext) -> dict[str, Any] | None:
    """What a plain "yes" would start: a return, if the goods are at fault and the policy allows it."""
    if order is None or reason not in ("damaged", "wrong_item", "missing_parts", "not_as_described", "wrong_size"):
        return None
    left = [item for item in order.items if item.status == "ordered"]
    if not left:
        return None
    arguments = {"order_id": order.order_id, "item_id": left[0].item_id, "reason": reason}
    verdict = await asyncio.to_thread(check_tool, context.services.shop, "return_item", context.customer_id, arguments)
    slots = {"order_id": order.order_id, "reason": reason}
    return {"intent": "return_item", "slots": slots} if verdict.allowed else None


COMPLAINT_AGENT = build_agent("complaint_agent", {"lookup": lookup, "decide": decide, "propose": put_forward})
