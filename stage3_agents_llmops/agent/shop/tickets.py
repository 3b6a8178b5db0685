"""The queue of customers who wait for a person, and what an operator does with it."""

from typing import Any

from data.shop.shop_database import insert
from stage3_agents_llmops.agent.shop.audit import audit_row
from stage3_agents_llmops.agent.shop.confirmations import now
from stage3_agents_llmops.agent.shop.shop import Shop
from stage3_agents_llmops.agent.shop.tool_errors import ToolError

STATUSES = ("open", "taken", "closed")


def human_queue(shop: Shop) -> list[dict[str, Any]]:
    """Tickets of kind `human` that are not closed, the oldest first, each with the customer's name and language."""
    query = (
        "SELECT ticket_id, thread_id, customer_id, name, language, order_id, summary, status, created_at "
        "FROM tickets JOIN customers USING (customer_id) WHERE kind = 'human' AND status != 'closed' "
        "ORDER BY created_at, ticket_id"
    )
    with shop.connection() as connection:
        return [dict(row) for row in connection.execute(query)]


def set_ticket_status(shop: Shop, ticket_id: str, status: str, actor: str) -> None:
    """Take or close a ticket, with a row in the audit; a status that it has already changes nothing.

    Raises:
        ToolError: `invalid`, no such status; `not_found`, no such ticket; `conflict`, it is closed already; `busy`.
    """
    if status not in STATUSES:
        raise ToolError("invalid", f"no ticket status is called {status!r}; there are {', '.join(STATUSES)}")
    with shop.writing() as connection:
        ticket = connection.execute("SELECT * FROM tickets WHERE ticket_id = ?", (ticket_id,)).fetchone()
        if ticket is None:
            raise ToolError("not_found", f"no ticket {ticket_id}")
        if ticket["status"] == status:
            return
        if ticket["status"] == "closed":
            raise ToolError("conflict", f"ticket {ticket_id} is closed")
        connection.execute("UPDATE tickets SET status = ? WHERE ticket_id = ?", (status, ticket_id))
        insert(connection, "audit", [status_row(dict(ticket), status, actor)])


def status_row(ticket: dict[str, Any], status: str, actor: str) -> dict[str, Any]:
    """The audit row. A ticket may be taken twice, so the key ends with the time."""
    name, arguments = "set_ticket_status", {"ticket_id": ticket["ticket_id"], "status": status}
    result = {"tool": name, "ok": True, "data": arguments, "message_code": f"ticket_{status}"}
    key = f"{ticket['ticket_id']}:{status}:{now()}"
    return audit_row(name, ticket["customer_id"], arguments, ticket["thread_id"], actor, key, result)
