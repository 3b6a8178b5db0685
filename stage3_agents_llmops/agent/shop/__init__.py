"""The shop as the agents see it: reads that need the customer, writes through one door, an audit row for each.

Reading order: shop (reads), policy (what is allowed), write_tools (what a write does), confirmations, audit (the door).

    shop = Shop("shop.sqlite")
    verdict = check_tool(shop, "cancel_order", "C1001", {"order_id": "KM204817"})
    record_confirmation(shop, key, "C1001", thread_id, "cancel_order", {"order_id": "KM204817"}, True)
    call_tool(shop, "cancel_order", "C1001", {"order_id": "KM204817"}, key=key, thread_id=thread_id)
"""

from stage3_agents_llmops.agent.shop.audit import ToolResult, call_tool
from stage3_agents_llmops.agent.shop.confirmations import record_confirmation
from stage3_agents_llmops.agent.shop.policy import Verdict, check_tool
from stage3_agents_llmops.agent.shop.shop import (
    CustomerView,
    ItemView,
    OrderView,
    ProductView,
    RefundView,
    ReturnView,
    ShipmentView,
    Shop,
    TicketView,
)
from stage3_agents_llmops.agent.shop.tickets import human_queue, set_ticket_status
from stage3_agents_llmops.agent.shop.tool_errors import ToolError
from stage3_agents_llmops.agent.shop.tool_specs import TOOLS, ToolSpec

__all__ = [
    "TOOLS",
    "CustomerView",
    "ItemView",
    "OrderView",
    "ProductView",
    "RefundView",
    "ReturnView",
    "ShipmentView",
    "Shop",
    "TicketView",
    "ToolError",
    "ToolResult",
    "ToolSpec",
    "Verdict",
    "call_tool",
    "check_tool",
    "human_queue",
    "record_confirmation",
    "set_ticket_status",
]
