"""The one door to every write: validated, confirmed, allowed, done and noted in a single transaction, and done once.

A process may die after the write and before it could say so; whoever continues calls again with the same key. The key
stands in the audit row, the audit row in the transaction of the write: either both are there, and the second call
returns what the first one did, or neither is.
"""

import json
import sqlite3
from dataclasses import asdict, dataclass, replace
from typing import Any

from data.shop.shop_database import canonical, insert
from stage3_agents_llmops.agent.shop.confirmations import now, require_confirmation
from stage3_agents_llmops.agent.shop.policy import RULES, decide
from stage3_agents_llmops.agent.shop.shop import Shop, read_customer
from stage3_agents_llmops.agent.shop.tool_errors import ToolError
from stage3_agents_llmops.agent.shop.tool_specs import TOOLS, validated
from stage3_agents_llmops.agent.shop.write_tools import WRITES, Call

REFUSALS = ("not_found", "not_allowed", "unconfirmed", "conflict")  # attempts that leave a row without a key


@dataclass(frozen=True)
class ToolResult:
    """What a call did.

    Attributes:
        data: ids, amounts in cents, names.
        message_code: for the wording, as `order_cancelled`.
        replayed: the key was used before, and this is what was done then.
    """

    tool: str
    ok: bool
    data: dict[str, Any]
    message_code: str
    replayed: bool = False


def call_tool(
    shop: Shop, name: str, customer_id: str, arguments: dict[str, Any], *, key: str, thread_id: str,
    actor: str = "agent",
) -> ToolResult:  # fmt: skip
    """Do it once.

    Args:
        key: of the write; of a sensitive tool it is the id of the confirmed proposal. The same key again writes
            nothing and gives the first result.
        actor: who acts for the customer, for the audit.

    Raises:
        ToolError: nothing was changed; its code says why.
    """
    arguments = validated(name, arguments)
    if not key:
        raise ToolError("invalid", f"{name} needs a key")
    try:
        with shop.writing() as connection:
            return idempotent_write(connection, name, customer_id, arguments, key, thread_id, actor)
    except ToolError as error:
        if error.code in REFUSALS:
            note_refusal(shop, error, name, customer_id, arguments, thread_id, actor)
        raise


# exercise: agent.idempotent_write
def idempotent_write(
    connection: sqlite3.Connection, name: str, customer_id: str, arguments: dict[str, Any], key: str, thread_id: str,
    actor: str,
) -> ToolResult:  # fmt: skip
    """A write and its audit row, unless the key has been used.

    The transaction is open and holds the write lock. If the key has an audit row, its result comes back
    (`first_result`) and nothing else happens. Otherwise the call must pass `permitted`, its function from WRITES is
    called, and one row with the key and the result goes into `audit`.

    Raises:
        ToolError: see `first_result` and `permitted`.
    """
    known = connection.execute("SELECT * FROM audit WHERE idempotency_key = ?", (key,)).fetchone()
    if known is not None:
        return first_result(known, name, customer_id, arguments)
    call = permitted(connection, name, customer_id, arguments, key, thread_id)
    data, message_code = WRITES[name](call)
    result = ToolResult(name, True, data, message_code)
    insert(connection, "audit", [audit_row(name, customer_id, arguments, thread_id, actor, key, asdict(result))])
    return result


# end exercise


def first_result(known: sqlite3.Row, name: str, customer_id: str, arguments: dict[str, Any]) -> ToolResult:
    """What was done under the key. Raises ToolError("conflict") where it was something else."""
    if (known["tool"], known["customer_id"], known["arguments_json"]) != (name, customer_id, canonical(arguments)):
        raise ToolError("conflict", f"the key {known['idempotency_key']} was used for another call")
    return replace(ToolResult(**json.loads(known["result_json"])), replayed=True)


def permitted(
    connection: sqlite3.Connection, name: str, customer_id: str, arguments: dict[str, Any], key: str, thread_id: str
) -> Call:
    """The call, ready to be made.

    Raises:
        ToolError: `not_found`, no such customer, or an order or item that is not theirs; `unconfirmed`; `not_allowed`.
    """
    read_customer(connection, customer_id)
    verdict = decide(connection, name, customer_id, arguments)
    if verdict.rule == "R1":
        raise ToolError("not_found", verdict.facts["problem"])
    if TOOLS[name].sensitive:
        require_confirmation(connection, key, customer_id, thread_id, name, arguments)
    if not verdict.allowed:
        raise ToolError("not_allowed", f"{name}: {RULES[verdict.rule]}", verdict.rule, verdict.facts)
    return Call(connection, customer_id, arguments, thread_id, verdict)


def audit_row(
    name: str, customer_id: str, arguments: dict[str, Any], thread_id: str, actor: str, key: str | None,
    result: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    return {
        "at": now(),
        "actor": actor,
        "customer_id": customer_id,
        "thread_id": thread_id,
        "tool": name,
        "arguments_json": canonical(arguments),
        "idempotency_key": key,
        "result_json": canonical(result),
    }


def note_refusal(
    shop: Shop, error: ToolError, name: str, customer_id: str, arguments: dict[str, Any], thread_id: str, actor: str
) -> None:
    """An attempt that was refused is worth a row: somebody may be trying doors."""
    result = {"tool": name, "ok": False, "data": {"rule": error.rule}, "message_code": error.code}
    with shop.writing() as connection:
        insert(connection, "audit", [audit_row(name, customer_id, arguments, thread_id, actor, None, result)])
