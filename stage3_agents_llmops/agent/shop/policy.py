"""The shop's policy as code: may this be done for this customer, and by which rule not?

data/shop/policy.en.md says the same in words, with the same rule numbers. `check_tool` answers before the customer is
asked to confirm; the same rules decide again inside the transaction that writes, because things change in between.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from stage3_agents_llmops.agent.shop.shop import ItemView, OrderView, Shop, read_order, read_today
from stage3_agents_llmops.agent.shop.tool_errors import ToolError
from stage3_agents_llmops.agent.shop.tool_specs import validated

RETURN_DAYS = 30
FAULT_DAYS = 60
FAULTS = ("damaged", "wrong_item", "missing_parts")  # reasons with the longer time
HYGIENE_FAULTS = ("damaged", "wrong_item")  # the only ones for goods that are not taken back
HUMAN_ABOVE_CENTS = 200_00  # a refund of more than this is for a person to decide
NOT_SHIPPED = ("placed", "packed")
RULES = {
    "R1": "own orders only",
    "R2": "cancel before shipping",
    "R3": "change the address before shipping",
    "R4": "return and exchange after delivery",
    "R5": "within 30 days of delivery",
    "R6": "within 60 days where it is damaged, wrong or incomplete",
    "R7": "hygiene goods only where damaged or wrong",
    "R8": "one return or exchange an item",
    "R9": "exchange only for what is in stock",
    "R10": "a person decides above 200.00",
    "R11": "refunds go to the original payment",
    "R12": "no discounts and no goodwill money",
    "R13": "the customer confirms first",
    "R14": "invoices for orders that were not cancelled",
}


@dataclass(frozen=True)
class Verdict:
    """Whether a call is allowed.

    Attributes:
        rule: the rule that forbids it; of an allowed call the one that it was measured by, "" where none speaks.
        facts: what the rule looked at, plain values: status, dates, days, amounts in cents, stock, names; and
            `needs_human` (True) where a person may allow what the agent may not.
    """

    allowed: bool
    rule: str
    facts: dict[str, Any] = field(default_factory=dict)


def check_tool(shop: Shop, name: str, customer_id: str, arguments: dict[str, Any]) -> Verdict:
    """What the policy says about a call, without making it. An order that is not the customer's is forbidden by R1.

    Raises:
        ToolError: `invalid`, where no such tool exists or the arguments do not fit; `busy`.
    """
    arguments = validated(name, arguments)
    with shop.connection() as connection:
        return decide(connection, name, customer_id, arguments)


def decide(connection: sqlite3.Connection, name: str, customer_id: str, arguments: dict[str, Any]) -> Verdict:
    """The same on an open connection, for the transaction that writes. The arguments have been validated."""
    if "order_id" not in arguments:
        return Verdict(True, "")
    try:
        order = read_order(connection, customer_id, arguments["order_id"])
        item = order.item(arguments["item_id"]) if "item_id" in arguments else None
    except ToolError as error:
        return Verdict(False, "R1", {"order_id": arguments["order_id"], "problem": error.message})
    return RULINGS[name](connection, order, item, arguments)


def may_cancel(connection: sqlite3.Connection, order: OrderView, item: None, arguments: dict[str, Any]) -> Verdict:
    """R2, then R10."""
    facts = order_facts(order) | {"refund_cents": order.total_cents}
    if order.status not in NOT_SHIPPED:
        return Verdict(False, "R2", facts)
    return up_to_limit(order.total_cents, "R2", facts)


def may_change_address(
    connection: sqlite3.Connection, order: OrderView, item: None, arguments: dict[str, Any]
) -> Verdict:
    """R3."""
    return Verdict(order.status in NOT_SHIPPED, "R3", order_facts(order))


# exercise: agent.return_ruling
def return_ruling(
    today: date, order: OrderView, item: ItemView, returnable: bool, reason: str
) -> tuple[str | None, int]:
    """The rules that a return and an exchange have in common.

    The rules are asked in this order, and the first that forbids it is the answer: R8 (the item has a return or an
    exchange already, or is cancelled), R4 (not delivered yet), R7 (hygiene goods), then the time: R6 (60 days) for the
    reasons in FAULTS, R5 (30 days) for the others. The last day counts as in time.

    Args:
        returnable: False for hygiene goods.

    Returns:
        The rule that forbids it, or None; and the days that the customer has from delivery.
    """
    days = FAULT_DAYS if reason in FAULTS else RETURN_DAYS
    if item.status != "ordered":
        return "R8", days
    if order.status != "delivered" or not order.shipment or not order.shipment.delivered_on:
        return "R4", days
    if not returnable and reason not in HYGIENE_FAULTS:
        return "R7", days
    if (today - date.fromisoformat(order.shipment.delivered_on)).days > days:
        return ("R6" if reason in FAULTS else "R5"), days
    return None, days


# end exercise


def may_return(
    connection: sqlite3.Connection, order: OrderView, item: ItemView, arguments: dict[str, Any]
) -> Verdict:
    """What `return_ruling` says, then R10."""
    verdict = may_send_back(connection, order, item, arguments["reason"])
    if not verdict.allowed:
        return verdict
    amount = item.quantity * item.price_cents
    return up_to_limit(amount, verdict.rule, verdict.facts | {"refund_cents": amount})


def may_exchange(
    connection: sqlite3.Connection, order: OrderView, item: ItemView, arguments: dict[str, Any]
) -> Verdict:
    """What `return_ruling` says, then R9."""
    verdict = may_send_back(connection, order, item, arguments["reason"])
    if verdict.allowed and verdict.facts["stock"] < item.quantity:
        return Verdict(False, "R9", verdict.facts)
    return verdict


def may_send_back(connection: sqlite3.Connection, order: OrderView, item: ItemView, reason: str) -> Verdict:
    """`return_ruling` with the facts of the item, its product and its days."""
    today = read_today(connection)
    product = connection.execute(
        "SELECT stock, returnable, category FROM products WHERE product_id = ?", (item.product_id,)
    ).fetchone()
    rule, days = return_ruling(today, order, item, bool(product["returnable"]), reason)
    facts = order_facts(order) | {
        "item_id": item.item_id,
        "item_status": item.status,
        "product_en": item.name_en,
        "product_zh": item.name_zh,
        "quantity": item.quantity,
        "reason": reason,
        "days": days,
        "stock": product["stock"],
        "category": product["category"],
    }
    delivered = facts.get("delivered_on")
    if delivered:
        last = date.fromisoformat(delivered) + timedelta(days=days)
        facts |= {"days_since_delivery": (today - date.fromisoformat(delivered)).days, "last_day": last.isoformat()}
    return Verdict(rule is None, rule or ("R6" if days == FAULT_DAYS else "R5"), facts)


def may_send_invoice(
    connection: sqlite3.Connection, order: OrderView, item: None, arguments: dict[str, Any]
) -> Verdict:
    """R14."""
    return Verdict(order.status != "cancelled", "R14", order_facts(order))


def always(connection: sqlite3.Connection, order: OrderView, item: None, arguments: dict[str, Any]) -> Verdict:
    """Anybody may complain and ask for a person."""
    return Verdict(True, "", order_facts(order))


def up_to_limit(amount_cents: int, rule: str, facts: dict[str, Any]) -> Verdict:
    """R10: exactly 200.00 is still the agent's."""
    if amount_cents > HUMAN_ABOVE_CENTS:
        return Verdict(False, "R10", facts | {"limit_cents": HUMAN_ABOVE_CENTS, "needs_human": True})
    return Verdict(True, rule, facts)


def order_facts(order: OrderView) -> dict[str, Any]:
    facts = {
        "order_id": order.order_id,
        "status": order.status,
        "placed_on": order.placed_on,
        "address": order.address,
        "total_cents": order.total_cents,
        "currency": order.currency,
    }
    if order.shipment:
        facts |= {"shipped_on": order.shipment.shipped_on, "expected_on": order.shipment.expected_on}
        facts |= {"delivered_on": order.shipment.delivered_on} if order.shipment.delivered_on else {}
    return facts


RULINGS: dict[str, Callable[..., Verdict]] = {
    "cancel_order": may_cancel,
    "change_address": may_change_address,
    "return_item": may_return,
    "exchange_item": may_exchange,
    "send_invoice": may_send_invoice,
    "open_complaint": always,
    "request_human": always,
}
