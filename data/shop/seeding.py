"""What a new shop holds, drawn from a seed: customers, and for each of them orders in different situations.

A situation is what a rule of the policy looks at: still packed, on its way, delivered last week or too long ago, worth
more than the agent may decide. They are dealt out in turn, so that every shop has each of them many times, and so that
no two of one customer's first orders are alike.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from data.customer_service.values import PREFIXES, lists

FOLDER = Path(__file__).parent
TODAY = date(2026, 11, 20)
CURRENCY = "USD"
CARRIERS = ("Brightway", "Postline", "Swiftparcel")
Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Situation:
    """What an order is like. Ages are in days before `TODAY`, from and to."""

    name: str
    status: str
    placed: tuple[int, int]
    shipped: tuple[int, int] | None = None
    delivered: tuple[int, int] | None = None
    price: tuple[int, int] = (0, 19_000)  # cents of each product: every item stays below rule R10
    items: tuple[int, int] = (1, 2)
    hygiene: bool = False  # holds one product that is not taken back
    sold_out: bool = False  # holds only products that are not in stock any more
    after: str | None = None  # what has happened since: a return, a paid refund


SITUATIONS = (
    Situation("placed", "placed", (0, 1), price=(0, 9_500)),
    Situation("in_transit", "shipped", (3, 6), shipped=(1, 2)),
    Situation("delivered_recently", "delivered", (9, 26), shipped=(7, 8), delivered=(2, 6)),
    Situation("packed", "packed", (1, 3), items=(1, 1)),
    Situation("delivered_weeks_ago", "delivered", (48, 62), shipped=(46, 47), delivered=(35, 45)),
    Situation("refund_pending", "delivered", (22, 30), shipped=(19, 21), delivered=(12, 18), after="returning"),
    Situation("packed_large", "packed", (1, 3), price=(20_001, 99_999), items=(1, 1)),
    Situation("delivered_hygiene", "delivered", (15, 24), shipped=(12, 14), delivered=(4, 11), hygiene=True),
    Situation("delivered_sold_out", "delivered", (12, 20), shipped=(9, 11), delivered=(3, 8), items=(1, 1),
              sold_out=True),
    Situation("delivered_long_ago", "delivered", (110, 160), shipped=(100, 108), delivered=(80, 98)),
    Situation("delivered_large", "delivered", (20, 28), shipped=(16, 19), delivered=(5, 15), price=(20_001, 99_999),
              items=(1, 1)),
    Situation("cancelled", "cancelled", (25, 60), after="refunded"),
    Situation("late", "shipped", (14, 20), shipped=(11, 13)),
)  # fmt: skip


@cache
def products() -> tuple[dict[str, Any], ...]:
    """products.toml."""
    return tuple(tomllib.loads((FOLDER / "products.toml").read_text(encoding="utf-8"))["product"])


def draw_shop(seed: int, customers: int, orders: int) -> Rows:
    """Table -> rows of a new shop. The same arguments give the same rows."""
    rng = Random(f"shop-{seed}")
    rows: Rows = {"meta": [{"name": "today", "value": TODAY.isoformat()}, {"name": "seed", "value": str(seed)}]}
    rows["products"] = [product_row(product) for product in products()]
    rows["customers"] = draw_customers(customers, rng)
    for table in ("orders", "items", "shipments", "refunds", "returns", "invoices"):
        rows[table] = []
    numbers = order_numbers(rng)
    bought: dict[str, set[str]] = {}
    for place in range(orders):
        customer = rows["customers"][place % customers]
        turn = place // customers
        situation = SITUATIONS[(place % customers * 5 + turn) % len(SITUATIONS)]
        add_order(rows, situation, customer, next(numbers), bought.setdefault(customer["customer_id"], set()), rng)
    return rows


def product_row(product: dict[str, Any]) -> dict[str, Any]:
    return {
        "product_id": product["id"],
        "name_en": product["en"],
        "name_zh": product["zh"],
        "aliases": json.dumps(product["aliases"], ensure_ascii=False),
        "price_cents": round(100 * product["price"]),
        "stock": product["stock"],
        "category": product["category"],
        "returnable": int(product.get("returnable", True)),
    }


def draw_customers(count: int, rng: Random) -> list[dict[str, Any]]:
    """English and Chinese ones in turn, every name once."""
    people = tomllib.loads((FOLDER / "people.toml").read_text(encoding="utf-8"))
    english = [(f"{a} {b}", f"{a}.{b}".lower()) for a in people["en"]["first"] for b in people["en"]["family"]]
    chinese = [(b[0] + a[0], f"{b[1]}.{a[1]}") for a in people["zh"]["first"] for b in people["zh"]["family"]]
    names = {"en": rng.sample(english, len(english)), "zh": rng.sample(chinese, len(chinese))}
    rows = []
    for place in range(count):
        language = ("en", "zh")[place % 2]
        name, mail = names[language].pop()
        digits = f"{rng.randrange(10**8):08d}"
        rows.append({
            "customer_id": f"C{1001 + place}",
            "name": name,
            "email": f"{mail}@example.com",
            "phone": f"+1 202 555 01{digits[:2]}" if language == "en" else f"199{digits}",
            "language": language,
            "tier": "plus" if rng.random() < 0.25 else "basic",
        })  # fmt: skip
    return rows


def order_numbers(rng: Random) -> Iterator[str]:
    """Numbers in the shop's form, each once."""
    prefixes = sorted({prefix for each in PREFIXES.values() for prefix in each})
    seen: set[str] = set()
    while True:
        number = f"{rng.choice(prefixes)}{rng.randrange(10**6):06d}"
        if number not in seen:
            seen.add(number)
            yield number


def add_order(
    rows: Rows, situation: Situation, customer: dict[str, Any], order_id: str, bought: set[str], rng: Random
) -> None:
    """One order with all that belongs to it. `bought` are the customer's products so far, and grows."""
    chosen = choose_products(situation, bought, rng)
    bought |= {product["id"] for product in chosen}
    items = [
        {
            "item_id": f"{order_id}-{place}",
            "order_id": order_id,
            "product_id": product["id"],
            "quantity": 2 if product["price"] < 30 and rng.random() < 0.2 else 1,
            "price_cents": round(100 * product["price"]),
            "status": "cancelled" if situation.status == "cancelled" else "ordered",
        }
        for place, product in enumerate(chosen, start=1)
    ]
    placed = days_ago(situation.placed, rng)
    addresses = lists()[customer["language"]]["address"]["common"]
    order = {
        "order_id": order_id,
        "customer_id": customer["customer_id"],
        "status": situation.status,
        "placed_on": placed,
        "address": rng.choice(addresses),
        "total_cents": sum(item["quantity"] * item["price_cents"] for item in items),
        "currency": CURRENCY,
    }
    rows["orders"].append(order)
    rows["items"] += items
    if situation.shipped:
        rows["shipments"].append(draw_shipment(situation, order_id, rng))
    if situation.after:
        add_aftermath(rows, situation, order, items[0])
    if situation.status == "delivered" and rng.random() < 0.3:
        rows["invoices"].append(
            {"invoice_id": f"IN-{order_id}", "order_id": order_id, "sent_to": customer["email"]}
        )  # fmt: skip


def choose_products(situation: Situation, bought: set[str], rng: Random) -> list[dict[str, Any]]:
    """Different products, new to the customer where there are such, so that a name tells which order is meant."""
    low, high = situation.price
    fitting = [p for p in products() if low <= round(100 * p["price"]) <= high and p.get("returnable", True)]
    fitting = [p for p in fitting if p["stock"] == 0] if situation.sold_out else fitting
    fresh = [p for p in fitting if p["id"] not in bought] or fitting
    count = min(rng.randint(*situation.items), len(fresh))
    chosen = rng.sample(fresh, count)
    if situation.hygiene:
        chosen[0] = rng.choice([p for p in products() if not p.get("returnable", True)])
    return chosen


def draw_shipment(situation: Situation, order_id: str, rng: Random) -> dict[str, Any]:
    shipped = days_ago(situation.shipped, rng)
    delivered = days_ago(situation.delivered, rng) if situation.delivered else None
    return {
        "order_id": order_id,
        "carrier": rng.choice(CARRIERS),
        "tracking": f"TK{rng.randrange(10**9):09d}{order_id[-3:]}",
        "status": "delivered" if delivered else "in_transit",
        "shipped_on": shipped,
        "expected_on": (date.fromisoformat(shipped) + timedelta(days=4)).isoformat(),
        "delivered_on": delivered,
    }


def add_aftermath(rows: Rows, situation: Situation, order: dict[str, Any], item: dict[str, Any]) -> None:
    """A return on its way with its pending refund, or the paid refund of a cancelled order."""
    order_id, returning = order["order_id"], situation.after == "returning"
    if returning:
        item["status"] = "returning"
        rows["returns"].append({
            "return_id": f"RT-{item['item_id']}",
            "order_id": order_id,
            "item_id": item["item_id"],
            "kind": "return",
            "reason": "not_as_described",
            "status": "requested",
        })  # fmt: skip
    rows["refunds"].append({
        "refund_id": f"RF-{item['item_id'] if returning else order_id}",
        "order_id": order_id,
        "item_id": item["item_id"] if returning else None,
        "amount_cents": item["quantity"] * item["price_cents"] if returning else order["total_cents"],
        "status": "pending" if returning else "paid",
        "reason": "not_as_described" if returning else "changed_mind",
        "created_on": (TODAY - timedelta(days=3)).isoformat() if returning else order["placed_on"],
    })  # fmt: skip


def days_ago(age: tuple[int, int], rng: Random) -> str:
    return (TODAY - timedelta(days=rng.randint(*age))).isoformat()
