"""Small models for the graph's tests: an understander of keywords and a help centre of four sentences.

What is tested is the graph; the real understander and knowledge have tests of their own, and one test here runs all of
them together.
"""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.shop import create_shop, open_shop
from stage3_agents_llmops.agent.customer_service_agent import CustomerServiceAgent
from stage3_agents_llmops.agent.events import Decision, Reply
from stage3_agents_llmops.agent.settings import AgentSettings
from stage3_agents_llmops.agent.shop import OrderView, Shop
from stage3_agents_llmops.agent.understanding import Understanding, find_slots, language_of

KEYWORDS = (
    ("human_agent", r"human|person|人工"),
    ("refund_status", r"where is my refund|refund status|退款到"),
    ("cancel_order", r"cancel|取消"),
    ("change_address", r"address|地址"),
    ("exchange_item", r"exchange|换货"),
    ("return_item", r"return|退货|send back"),
    ("invoice", r"invoice|发票"),
    ("stock_check", r"in stock|有货"),
    ("product_question", r"waterproof|防水|loud"),
    ("complaint", r"complain|rude|投诉"),
    ("order_status", r"where is|到哪|status"),
    ("thanks", r"thank|谢谢"),
    ("greeting", r"hello|你好"),
    ("out_of_scope", r"weather|天气"),
)


class KeywordUnderstander:
    """The first keyword decides; without one it abstains. `calls` counts."""

    name = "keywords"

    def __init__(self) -> None:
        self.calls = 0

    async def understand(self, text: str, language: str | None = None) -> Understanding:
        self.calls += 1
        language = language or language_of(text)
        intent = next((name for name, words in KEYWORDS if re.search(words, text, re.IGNORECASE)), None)
        slots = find_slots(text, language)
        return Understanding(intent or "out_of_scope", 0.9 if intent else 0.2, slots, language, "rules", intent is None)


@dataclass(frozen=True)
class Found:
    id: str
    title: str
    text: str
    kind: str
    evidence: float
    removed: tuple[str, ...] = ()


ARTICLES = (
    Found(
        "en/window", "Returns", "You have 30 days to return an item. The day of delivery does not count.", "help", 0.9
    ),
    Found("zh/window", "退货", "签收后 30 天内可以退货。签收当天不算。", "help", 0.9),
    Found("review/1", "Customer review", "The mouse is waterproof. I dropped it in the sink.", "product", 0.9),
)


class SmallKnowledge:
    """Finds an article when the question has one of its words."""

    def __init__(self) -> None:
        self.calls = 0

    def search(self, question: str, language: str, kind: str = "help", k: int = 4) -> list[Found]:
        self.calls += 1
        words = {"en/window": "days|how long", "zh/window": "多少天|几天", "review/1": "waterproof|防水"}
        return [each for each in ARTICLES if each.kind == kind and re.search(words[each.id], question)]

    def confident(self, passages: list[Found], question: str) -> bool:
        return bool(passages)


def copy_of_shop(folder: Path, template: Path | None = None) -> Path:
    """A shop of its own for a test."""
    path = folder / "shop.sqlite"
    if template:
        shutil.copy(template, path)
    else:
        create_shop(path, seed=3, customers=40, orders=160)
    return path


@asynccontextmanager
async def open_agent(settings: AgentSettings, **services: Any) -> AsyncIterator[CustomerServiceAgent]:
    """An agent with the small models."""
    small = {"understander": KeywordUnderstander(), "knowledge": SmallKnowledge()} | services
    async with CustomerServiceAgent.open(settings, **small) as agent:
        yield agent


class Talk:
    """One customer in one conversation."""

    def __init__(self, agent: CustomerServiceAgent, customer_id: str, thread_id: str = "t1") -> None:
        self.agent, self.customer_id, self.thread_id = agent, customer_id, thread_id
        self.last: Reply | None = None

    async def say(self, message: str) -> Reply:
        self.last = await self.agent.reply(thread_id=self.thread_id, customer_id=self.customer_id, message=message)
        return self.last

    async def decide(self, approve: bool) -> Reply:
        decision = Decision(self.last.interrupt["proposal_id"], approve)
        self.last = await self.agent.reply(thread_id=self.thread_id, customer_id=self.customer_id, decision=decision)
        return self.last


def orders_like(shop: Shop, wanted: Any, customers: Any = None) -> list[tuple[str, OrderView]]:
    """(customer, order) for every order of which `wanted(order)` is true."""
    ids = customers or [f"C{number}" for number in range(1001, 1041)]
    return [(each, order) for each in ids for order in shop.orders(each) if wanted(order)]


def a_customer(shop: Shop) -> tuple[str, OrderView, OrderView]:
    """A customer with an order that can be cancelled, and one whose only item can be returned."""
    month = shop.today().isoformat()[:7]

    def fresh(order: OrderView) -> bool:
        return (
            order.status == "delivered" and order.shipment.delivered_on[:7] == month and len(order.items) == 1
            and order.items[0].status == "ordered" and order.total_cents <= 20000
        )  # fmt: skip

    for customer, order in orders_like(shop, lambda o: o.status in ("placed", "packed") and o.total_cents <= 20000):
        back = [each for each in shop.orders(customer) if fresh(each)]
        if back:
            return customer, order, back[0]
    raise LookupError("no such customer in this shop")


def writes(shop_path: Path, tool: str | None = None) -> list[dict[str, Any]]:
    """The audit rows of writes that were done."""
    with open_shop(shop_path) as connection:
        rows = [dict(row) for row in connection.execute("SELECT * FROM audit WHERE idempotency_key IS NOT NULL")]
    connection.close()
    return [row for row in rows if tool is None or row["tool"] == tool]


def confirmations(shop_path: Path) -> list[dict[str, Any]]:
    """All rows of the table."""
    with open_shop(shop_path) as connection:
        rows = [dict(row) for row in connection.execute("SELECT * FROM confirmations")]
    connection.close()
    return rows
