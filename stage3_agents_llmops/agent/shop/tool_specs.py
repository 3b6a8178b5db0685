"""The tools that change something: names, arguments as JSON Schema, and which of them the customer must confirm."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from data.customer_service.schema import REASONS
from stage3_agents_llmops.agent.shop.tool_errors import ToolError


@dataclass(frozen=True)
class ToolSpec:
    """One tool.

    Attributes:
        sensitive: whether the customer must confirm a call with exactly its arguments.
        arguments: JSON Schema (draft 2020-12) of the arguments.
        title_en, title_zh: what a person is asked to confirm.
    """

    name: str
    sensitive: bool
    arguments: dict[str, Any]
    title_en: str
    title_zh: str


def schema(required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object with these fields and no others."""
    fields = {
        "order_id": {"type": "string", "pattern": r"^[A-Z]{2}\d{6}$"},
        "item_id": {"type": "string", "pattern": r"^[A-Z]{2}\d{6}-\d+$"},
        "reason": {"enum": list(REASONS)},
        "address": {"type": "string", "minLength": 5, "maxLength": 200, "pattern": r"^\S[^\x00-\x1f]*\S$"},
        "summary": {"type": "string", "minLength": 1, "maxLength": 500, "pattern": r"\S"},
    }
    return {
        "type": "object",
        "required": list(required),
        "additionalProperties": False,
        "properties": {name: fields[name] for name in (*required, *optional)},
    }


TOOLS = {
    spec.name: spec
    for spec in (
        ToolSpec("cancel_order", True, schema(("order_id",), ("reason",)), "Cancel the order", "取消订单"),
        ToolSpec("change_address", True, schema(("order_id", "address")), "Change the address", "修改收货地址"),
        ToolSpec("return_item", True, schema(("order_id", "item_id", "reason")), "Return an item", "退货"),
        ToolSpec("exchange_item", True, schema(("order_id", "item_id", "reason")), "Exchange an item", "换货"),
        ToolSpec("send_invoice", False, schema(("order_id",)), "Send the invoice", "发送发票"),
        ToolSpec("open_complaint", False, schema(("summary",), ("order_id", "reason")), "Open a complaint", "提交投诉"),
        ToolSpec("request_human", False, schema(("summary",), ("order_id",)), "Ask for a person", "转人工客服"),
    )
}


@cache
def validator(name: str) -> Any:
    import jsonschema  # a third of a second, for a program that only reads

    return jsonschema.Draft202012Validator(TOOLS[name].arguments)


def validated(name: str, arguments: Any) -> dict[str, Any]:
    """The arguments, or ToolError("invalid") that says what does not fit."""
    if name not in TOOLS:
        raise ToolError("invalid", f"no tool is called {name!r}; there are {', '.join(TOOLS)}")
    errors = sorted(validator(name).iter_errors(arguments), key=str)
    if errors:
        raise ToolError("invalid", f"{name}: {errors[0].message[:200]}")
    return dict(arguments)
