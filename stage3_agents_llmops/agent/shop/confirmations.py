"""What the customer has agreed to: these arguments and no others.

The proposal's id is the key of the write. So a confirmation can be spent once: a second call with the key returns what
the first one did, and a call with other arguments fits no confirmation.
"""

import hashlib
import sqlite3
from datetime import UTC, datetime
from typing import Any

from data.shop.shop_database import canonical, insert
from stage3_agents_llmops.agent.shop.shop import Shop, read_customer
from stage3_agents_llmops.agent.shop.tool_errors import ToolError
from stage3_agents_llmops.agent.shop.tool_specs import validated


def arguments_sha256(arguments: dict[str, Any]) -> str:
    """Of the arguments as canonical JSON: the order of the keys does not count, every letter of a value does."""
    return hashlib.sha256(canonical(arguments).encode()).hexdigest()


def record_confirmation(
    shop: Shop, proposal_id: str, customer_id: str, thread_id: str, tool: str, arguments: dict[str, Any], decision: bool
) -> None:
    """Keep the customer's decision about a proposal. The same decision again changes nothing.

    Args:
        decision: True for yes. It must be a bool: the string "no" would be true.

    Raises:
        ToolError: `conflict`, the proposal was decided otherwise or about something else; `invalid`; `not_found`, no
            such customer; `busy`.
    """
    if not isinstance(decision, bool):
        raise ToolError("invalid", f"a decision is True or False, not {decision!r}")
    if not proposal_id:
        raise ToolError("invalid", "a confirmation needs the id of a proposal")
    row = {
        "proposal_id": proposal_id,
        "customer_id": customer_id,
        "thread_id": thread_id,
        "tool": tool,
        "arguments_sha256": arguments_sha256(validated(tool, arguments)),
        "decision": "approved" if decision else "rejected",
    }
    with shop.writing() as connection:
        read_customer(connection, customer_id)
        known = connection.execute("SELECT * FROM confirmations WHERE proposal_id = ?", (proposal_id,)).fetchone()
        if known is None:
            insert(connection, "confirmations", [row | {"decided_at": now()}])
        elif any(known[name] != value for name, value in row.items()):
            raise ToolError("conflict", f"proposal {proposal_id} was decided otherwise, or about something else")


def require_confirmation(
    connection: sqlite3.Connection, key: str, customer_id: str, thread_id: str, tool: str, arguments: dict[str, Any]
) -> None:
    """Raises ToolError("unconfirmed") unless this customer approved exactly this call in this thread (rule R13)."""
    approved = connection.execute(
        "SELECT 1 FROM confirmations WHERE proposal_id = ? AND customer_id = ? AND thread_id = ? AND tool = ? "
        "AND arguments_sha256 = ? AND decision = 'approved'",
        (key, customer_id, thread_id, tool, arguments_sha256(arguments)),
    ).fetchone()
    if approved is None:
        raise ToolError("unconfirmed", f"{tool} needs the customer's confirmation of exactly these arguments", "R13")


def now() -> str:
    """The real time, in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
