"""The rows of one customer, what each write must change in them, and what differs from it.

The agents' tools are not asked: what a cancellation does is written down here a second time, from data/shop/README.md,
so that a tool that forgets the refund is found out. Ids, times and summaries of new rows are free.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from data.scripted_customers.script import Action
from data.shop.shop_database import canonical, open_shop

Row = dict[str, Any]
Rows = dict[str, list[Row]]
OF_ORDER = ("items", "shipments", "refunds", "returns", "invoices")
TABLES = ("customers", "orders", *OF_ORDER, "tickets")
FREE = {
    "refunds": ("refund_id", "created_on", "reason"),
    "returns": ("return_id", "reason"),
    "invoices": ("invoice_id",),
    "tickets": ("ticket_id", "thread_id", "summary", "created_at", "status"),
}
OPTIONAL_ORDER = ("human",)  # kinds of tickets that need not name the order


def rows_of(shop: Path, customer_id: str) -> Rows:
    """Every row that belongs to a customer, and the audit and confirmations about them, at one moment."""
    with closing(open_shop(shop)) as connection:
        connection.execute("BEGIN")
        rows = {
            table: select(connection, f"SELECT * FROM {table} WHERE customer_id = ? ORDER BY 1", customer_id)
            for table in ("customers", "orders", "tickets", "audit", "confirmations")
        }
        for table in OF_ORDER:
            query = f"SELECT t.* FROM {table} t JOIN orders USING (order_id) WHERE customer_id = ? ORDER BY 1"
            rows[table] = select(connection, query, customer_id)
        return rows


def select(connection: sqlite3.Connection, query: str, *values: Any) -> list[Row]:
    return [dict(row) for row in connection.execute(query, values)]


def expected_rows(before: Rows, actions: Iterable[Action], values: Mapping[str, str]) -> Rows:
    """What the rows must be after these writes, and no others."""
    rows = {table: [dict(row) for row in before[table]] for table in TABLES}
    for action in actions:
        EFFECTS[action.tool](rows, action, values)
    return rows


def cancelled(rows: Rows, action: Action, values: Mapping[str, str]) -> None:
    order = order_of(rows, action, values)
    order["status"] = "cancelled"
    for item in rows["items"]:
        if item["order_id"] == order["order_id"]:
            item["status"] = "cancelled"
    rows["refunds"].append(refund(order["order_id"], None, order["total_cents"]))


def readdressed(rows: Rows, action: Action, values: Mapping[str, str]) -> None:
    order_of(rows, action, values)["address"] = values[f"{action.address}.text"]


def returned(rows: Rows, action: Action, values: Mapping[str, str]) -> None:
    item = sent_back(rows, action, values, "return", "returning")
    rows["refunds"].append(refund(item["order_id"], item["item_id"], item["price_cents"] * item["quantity"]))


def exchanged(rows: Rows, action: Action, values: Mapping[str, str]) -> None:
    sent_back(rows, action, values, "exchange", "exchanging")


def sent_back(rows: Rows, action: Action, values: Mapping[str, str], kind: str, status: str) -> Row:
    item_id = values[f"{action.about}.item_{action.item}"]
    item = next(item for item in rows["items"] if item["item_id"] == item_id)
    item["status"] = status
    row = {"order_id": item["order_id"], "item_id": item_id, "kind": kind, "status": "requested"}
    rows["returns"].append(row)
    return item


def invoiced(rows: Rows, action: Action, values: Mapping[str, str]) -> None:
    order_id = values[f"{action.about}.id"]
    if not any(row["order_id"] == order_id for row in rows["invoices"]):
        rows["invoices"].append({"order_id": order_id, "sent_to": rows["customers"][0]["email"]})


def complained(rows: Rows, action: Action, values: Mapping[str, str]) -> None:
    rows["tickets"].append(ticket(rows, "complaint", values[f"{action.about}.id"]))


def handed_over(rows: Rows, action: Action, values: Mapping[str, str]) -> None:
    rows["tickets"].append(ticket(rows, "human", None))


def order_of(rows: Rows, action: Action, values: Mapping[str, str]) -> Row:
    return next(row for row in rows["orders"] if row["order_id"] == values[f"{action.about}.id"])


def refund(order_id: str, item_id: str | None, cents: int) -> Row:
    return {"order_id": order_id, "item_id": item_id, "amount_cents": cents, "status": "pending"}


def ticket(rows: Rows, kind: str, order_id: str | None) -> Row:
    return {"customer_id": rows["customers"][0]["customer_id"], "kind": kind, "order_id": order_id}


EFFECTS = {
    "cancel_order": cancelled, "change_address": readdressed, "return_item": returned, "exchange_item": exchanged,
    "send_invoice": invoiced, "open_complaint": complained, "request_human": handed_over,
}  # fmt: skip


KEYS = {"customers": "customer_id", "orders": "order_id", "items": "item_id", "shipments": "order_id"}


def differences(wanted: Rows, found: Rows, tables: Sequence[str] = TABLES) -> list[str]:
    """What is missing and what is there unasked, a line each; empty when two states are the same."""
    lines = []
    for table in tables:
        if table in KEYS:
            lines += changed_rows(table, wanted[table], found[table])
            continue
        left, right = (Counter(compared(table, row) for row in rows[table]) for rows in (wanted, found))
        lines += [f"missing in {table}: {row}" for row in sorted((left - right).elements())]
        lines += [f"unasked in {table}: {row}" for row in sorted((right - left).elements())]
    return lines


def changed_rows(table: str, wanted: Sequence[Row], found: Sequence[Row]) -> list[str]:
    """Of a table whose rows keep their keys: which columns are not as they should be."""
    key = KEYS[table]
    left, right = ({row[key]: row for row in rows} for rows in (wanted, found))
    lines = [f"{table} {id} is gone" for id in left.keys() - right.keys()]
    lines += [f"{table} {id} is new" for id in right.keys() - left.keys()]
    for id in left.keys() & right.keys():
        for name, value in left[id].items():
            if right[id].get(name) != value:
                lines.append(f"{table} {id}: {name} is {right[id].get(name)!r}, not {value!r}")
    return sorted(lines)


def compared(table: str, row: Row) -> str:
    """A row without what is free in it."""
    kept = {name: value for name, value in row.items() if name not in FREE.get(table, ())}
    if table == "tickets" and row["kind"] in OPTIONAL_ORDER:
        kept["order_id"] = None
    return canonical(kept)


def without_tickets(rows: Rows, kinds: Iterable[str], before: Rows) -> Rows:
    """Rows without the new tickets of some kinds: what a script allows and does not ask for."""
    old = {row["ticket_id"] for row in before["tickets"]}
    kept = [row for row in rows["tickets"] if row["ticket_id"] in old or row["kind"] not in kinds]
    return rows | {"tickets": kept}
