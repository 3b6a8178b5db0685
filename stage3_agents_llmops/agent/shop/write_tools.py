"""What each tool writes. They run inside the transaction of `call_tool`, which has asked the policy before.

A function gets the call and gives the data of its result and a message code, for which the agents have words.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data.shop.shop_database import insert
from stage3_agents_llmops.agent.shop.confirmations import now
from stage3_agents_llmops.agent.shop.policy import Verdict
from stage3_agents_llmops.agent.shop.shop import OrderView, read_customer, read_order, read_today


@dataclass(frozen=True)
class Call:
    """One call of a tool, allowed and confirmed, on the connection whose transaction is open."""

    connection: sqlite3.Connection
    customer_id: str
    arguments: dict[str, Any]
    thread_id: str
    verdict: Verdict

    def order(self) -> OrderView:
        return read_order(self.connection, self.customer_id, self.arguments["order_id"])

    def execute(self, statement: str, *values: Any) -> None:
        self.connection.execute(statement, values)

    def insert(self, table: str, **row: Any) -> None:
        insert(self.connection, table, [row])


Outcome = tuple[dict[str, Any], str]


def cancel_order(call: Call) -> Outcome:
    """The order and its items are cancelled, the goods are in stock again, and the whole sum is to be refunded."""
    order = call.order()
    call.execute("UPDATE orders SET status = 'cancelled' WHERE order_id = ?", order.order_id)
    call.execute("UPDATE items SET status = 'cancelled' WHERE order_id = ?", order.order_id)
    for item in order.items:
        restock(call, item.product_id, item.quantity)
    refund = add_refund(call, f"RF-{order.order_id}", None, order.total_cents, "changed_mind")
    return {"order_id": order.order_id, "currency": order.currency} | refund, "order_cancelled"


def change_address(call: Call) -> Outcome:
    """The parcel goes elsewhere."""
    order, address = call.order(), call.arguments["address"]
    call.execute("UPDATE orders SET address = ? WHERE order_id = ?", address, order.order_id)
    return {"order_id": order.order_id, "address": address, "old_address": order.address}, "address_changed"


def return_item(call: Call) -> Outcome:
    """A return is registered, and the price of the item is to be refunded when it is here."""
    order = call.order()
    item = order.item(call.arguments["item_id"])
    data = send_back(call, "return", "returning")
    refund = add_refund(call, f"RF-{item.item_id}", item.item_id, item.quantity * item.price_cents, "changed_mind")
    return data | refund | {"currency": order.currency}, "return_registered"


def exchange_item(call: Call) -> Outcome:
    """An exchange is registered, and the new piece is taken out of stock."""
    item = call.order().item(call.arguments["item_id"])
    restock(call, item.product_id, -item.quantity)
    return send_back(call, "exchange", "exchanging"), "exchange_registered"


def send_invoice(call: Call) -> Outcome:
    """The invoice goes to the customer's own address. An order has one invoice, however often it is sent."""
    order_id = call.arguments["order_id"]
    sent_to = read_customer(call.connection, call.customer_id).email
    invoice_id = f"IN-{order_id}"
    known = call.connection.execute("SELECT 1 FROM invoices WHERE order_id = ?", (order_id,)).fetchone()
    if not known:
        call.insert("invoices", invoice_id=invoice_id, order_id=order_id, sent_to=sent_to)
    return {"order_id": order_id, "invoice_id": invoice_id}, "invoice_sent_again" if known else "invoice_sent"


def open_complaint(call: Call) -> Outcome:
    """A ticket that somebody will read."""
    return add_ticket(call, "complaint"), "complaint_opened"


def request_human(call: Call) -> Outcome:
    """A place in the queue for a person; a thread waits only once."""
    waiting = call.connection.execute(
        "SELECT ticket_id, order_id FROM tickets WHERE thread_id = ? AND customer_id = ? AND kind = 'human' "
        "AND status != 'closed'", (call.thread_id, call.customer_id),
    ).fetchone()  # fmt: skip
    if waiting:
        data = {"ticket_id": waiting["ticket_id"], "position": position(call, waiting["ticket_id"])}
        return data, "human_already_requested"
    data = add_ticket(call, "human")
    return data | {"position": position(call, data["ticket_id"])}, "human_requested"


def restock(call: Call, product_id: str, pieces: int) -> None:
    call.execute("UPDATE products SET stock = stock + ? WHERE product_id = ?", pieces, product_id)


def add_refund(call: Call, refund_id: str, item_id: str | None, amount_cents: int, reason: str) -> dict[str, Any]:
    """A pending refund, to the payment that the order came from (rule R11): there is no field for another one."""
    row = {"refund_id": refund_id, "amount_cents": amount_cents, "status": "pending"}
    call.insert(
        "refunds",
        order_id=call.arguments["order_id"],
        item_id=item_id,
        reason=call.arguments.get("reason", reason),
        created_on=read_today(call.connection).isoformat(),
        **row,
    )
    return {"refund_id": refund_id, "refund_cents": amount_cents}


def send_back(call: Call, kind: str, status: str) -> dict[str, Any]:
    """What a return and an exchange have in common."""
    order_id, item_id, reason = (call.arguments[name] for name in ("order_id", "item_id", "reason"))
    row = {"return_id": f"RT-{item_id}", "order_id": order_id, "item_id": item_id, "kind": kind}
    call.insert("returns", **row, reason=reason, status="requested")
    call.execute("UPDATE items SET status = ? WHERE item_id = ?", status, item_id)
    facts = call.verdict.facts
    return row | {"product_en": facts["product_en"], "product_zh": facts["product_zh"]}


def add_ticket(call: Call, kind: str) -> dict[str, Any]:
    count = call.connection.execute("SELECT COUNT(*) FROM tickets").fetchone()[0]
    ticket_id, order_id = f"T{1001 + count}", call.arguments.get("order_id")
    call.insert(
        "tickets",
        ticket_id=ticket_id,
        customer_id=call.customer_id,
        order_id=order_id,
        thread_id=call.thread_id,
        kind=kind,
        summary=call.arguments["summary"],
        status="open",
        created_at=now(),
    )
    return {"ticket_id": ticket_id} | ({"order_id": order_id} if order_id else {})


def position(call: Call, ticket_id: str) -> int:
    """Place in the queue of those who wait for a person, from 1."""
    query = (
        "SELECT COUNT(*) FROM tickets WHERE kind = 'human' AND status = 'open' "
        "AND created_at <= (SELECT created_at FROM tickets WHERE ticket_id = ?)"
    )
    return max(1, call.connection.execute(query, (ticket_id,)).fetchone()[0])


WRITES: dict[str, Callable[[Call], Outcome]] = {
    function.__name__: function
    for function in (
        cancel_order, change_address, return_item, exchange_item, send_invoice, open_complaint, request_human,
    )
}  # fmt: skip
