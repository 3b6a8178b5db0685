"""No, by which rule, and what is possible instead."""

from typing import Any

from stage3_agents_llmops.agent.shop import Verdict
from stage3_agents_llmops.agent.state import ConversationState
from stage3_agents_llmops.agent.wording import money
from stage3_agents_llmops.agent.worklist import Update, finish, hand_over, outcome


def refuse(state: ConversationState, tool: str, verdict: Verdict) -> Update:
    """Answer a call that the policy forbids.

    Above the money limit a person decides. A return of what has not been shipped goes to the order agent, who can
    cancel it. Everything else is refused by naming the rule, with an offer where something else is possible.
    """
    facts, rule = verdict.facts, verdict.rule
    order_id = facts.get("order_id", "")
    if rule == "R10":
        amount = money(facts["refund_cents"], facts["currency"])
        limit = money(facts["limit_cents"], facts["currency"])
        said = outcome("above_limit", rule=rule, order_id=order_id, amount=amount, limit=limit)
        return finish(state, said) | {"handoff_to": "human_handoff"}
    if tool == "return_item" and rule == "R4" and facts["status"] in ("placed", "packed"):
        return hand_over(state, "order_agent", intent="cancel_order")
    code, offer = words_for(tool, verdict)
    shown = {name: value for name, value in facts.items() if isinstance(value, str | int)} | {"rule": rule}
    product = facts.get("product_zh" if state["language"] == "zh" else "product_en", "")
    return finish(state, outcome(code, **{**shown, "product": product}), offer=offer)


def words_for(tool: str, verdict: Verdict) -> tuple[str, dict[str, Any] | None]:
    """The template's code, and what a plain "yes" would start."""
    facts, rule = verdict.facts, verdict.rule
    order = {"order_id": facts.get("order_id", "")}
    if rule in ("R2", "R3", "R4"):
        status = facts["status"]
        offer = None
        if status == "delivered" and tool == "cancel_order":
            offer = {"intent": "return_item", "slots": order}
        if tool == "exchange_item" and status in ("placed", "packed"):
            status, offer = "not_shipped", {"intent": "cancel_order", "slots": order}
        return f"refused_{rule}_{status}", offer
    if rule == "R9":
        return "refused_R9", {"intent": "return_item", "slots": {**order, "reason": facts["reason"]}}
    if rule == "R8":
        return f"refused_R8_{facts['item_status']}", None
    return f"refused_{rule}", None
