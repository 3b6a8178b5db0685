"""Finds what a script talks of in whatever shop there is: "a delivered order younger than 30 days with one item".

    order   status, age (days since delivery, or since it was placed), items, total (cents), returnable, in_stock,
            refund (pending, paid, none), late; owner = "other" for somebody else's
    product in_stock, returnable, bought = false: none of the customer's orders holds it
    nobody  an order number that the shop does not have
    address one that is not in use

Every conversation gets a customer of its own, and nobody's order is touched by two, so that many can share a shop.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from random import Random
from typing import Any

from data.customer_service.values import lists
from data.scripted_customers.script import Script
from labkit.errors import LabError

Row = Mapping[str, Any]
Dump = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class OrderFacts:
    """An order with what belongs to it, and how it looks to a condition."""

    row: Row
    items: tuple[Row, ...]
    products: tuple[Row, ...]  # of the items, in their order
    shipment: Row
    refunds: tuple[Row, ...]
    returned: bool
    invoiced: bool
    age: int  # days since delivery, else since it was placed
    late: bool
    product_ids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """What one conversation is about: the customer, the values of the placeholders, and whose orders it names."""

    customer_id: str
    values: Mapping[str, str]
    strangers: tuple[str, ...] = ()
    language: str = "en"


@dataclass
class Market:
    """A shop as the scripts see it; `taken` are the customers that somebody plays or talks of."""

    today: date
    customers: dict[str, Row]
    orders: dict[str, list[OrderFacts]]  # by customer
    products: Sequence[Row]
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, dump: Dump) -> "Market":
        """From a dump of the shop."""
        today = date.fromisoformat(next(row["value"] for row in dump["meta"] if row["name"] == "today"))
        products = {row["product_id"]: row for row in dump["products"]}
        shipments = {row["order_id"]: row for row in dump["shipments"]}
        items, refunds = by_order(dump["items"]), by_order(dump["refunds"])
        returned, invoiced = ({row["order_id"] for row in dump[table]} for table in ("returns", "invoices"))
        orders: dict[str, list[OrderFacts]] = {row["customer_id"]: [] for row in dump["customers"]}
        for row in dump["orders"]:
            id, shipment = row["order_id"], shipments.get(row["order_id"], {})
            own = tuple(items.get(id, ()))
            since = date.fromisoformat(shipment.get("delivered_on") or row["placed_on"])
            late = row["status"] == "shipped" and date.fromisoformat(shipment["expected_on"]) < today
            orders[row["customer_id"]].append(OrderFacts(
                row, own, tuple(products[item["product_id"]] for item in own), shipment, tuple(refunds.get(id, ())),
                id in returned, id in invoiced, (today - since).days, late,
                frozenset(item["product_id"] for item in own),
            ))  # fmt: skip
        return cls(today, {row["customer_id"]: row for row in dump["customers"]}, orders, dump["products"])

    def find(self, script: Script, rng: Random) -> Found:
        """A free customer of the script's language with all that it needs; taken from here on.

        Raises:
            LabError: the shop has none; a larger one may.
        """
        free = [id for id, row in self.customers.items() if id not in self.taken and row["language"] == script.language]
        for customer_id in rng.sample(free, len(free)):
            own = {name: c for name, c in script.find.items() if c.get("kind", "order") == "order" and "owner" not in c}
            chosen = next(self._assignments(list(own.items()), self.orders[customer_id], {}), None)
            wares = {n: self._wares(c, customer_id) for n, c in script.find.items() if c.get("kind") == "product"}
            if chosen is not None and all(wares.values()):
                return self._completed(script, customer_id, chosen, wares, rng)
        raise LabError(f"the shop has no customer for the script {script.name}", "fewer trials, or a larger shop")

    def _assignments(
        self, wanted: list[tuple[str, Row]], orders: list[OrderFacts], chosen: dict[str, OrderFacts]
    ) -> Iterator[dict[str, OrderFacts]]:
        """Every way to give each name an order of its own. A product's name must tell which order is meant."""
        if not wanted:
            yield chosen
            return
        (name, condition), *rest = wanted
        for order in orders:
            others = [other for other in orders if other is not order]
            ambiguous = any(order.product_ids & other.product_ids for other in others)
            if order not in chosen.values() and not ambiguous and holds(condition, order):
                yield from self._assignments(rest, orders, chosen | {name: order})

    def _completed(
        self, script: Script, customer_id: str, chosen: dict[str, OrderFacts], wares: Mapping[str, Sequence[Row]],
        rng: Random,
    ) -> Found:  # fmt: skip
        self.taken.add(customer_id)
        language, strangers = script.language, []
        values = {"me.name": self.customers[customer_id]["name"], "me.email": self.customers[customer_id]["email"]}
        for name, condition in script.find.items():
            kind = condition.get("kind", "order")
            if kind == "order" and condition.get("owner") == "other":
                chosen[name] = self._stranger(condition, rng)
                strangers.append(chosen[name].row["customer_id"])
            if kind == "order":
                values |= order_values(name, chosen[name], language)
            elif kind == "nobody":
                values[f"{name}.id"] = self._free_number(rng)
            elif kind == "product":
                values |= product_values(name, rng.choice(wares[name]), language)
            else:
                used = {order.row["address"] for order in self.orders[customer_id]}
                known = lists()[language]["address"]
                values[f"{name}.text"] = rng.choice([a for a in known["common"] + known["test"] if a not in used])
        return Found(customer_id, values, tuple(strangers), language)

    def _stranger(self, condition: Row, rng: Random) -> OrderFacts:
        for customer_id in rng.sample(sorted(self.orders), len(self.orders)):
            if customer_id not in self.taken:
                for order in self.orders[customer_id]:
                    if holds(condition, order):
                        self.taken.add(customer_id)
                        return order
        raise LabError("the shop has no other customer with such an order", "more customers and orders")

    def _free_number(self, rng: Random) -> str:
        used = {order.row["order_id"] for orders in self.orders.values() for order in orders}
        prefix = sorted(used)[0][:2]
        return next(n for n in iter(lambda: f"{prefix}{rng.randrange(10**6):06d}", None) if n not in used)

    def _wares(self, condition: Row, customer_id: str) -> list[Row]:
        """Products that fit and that the customer has not bought, so that no order is meant by the name."""
        bought = {id for order in self.orders[customer_id] for id in order.product_ids}
        return [
            row
            for row in self.products
            if (row["stock"] > 0) == condition.get("in_stock", row["stock"] > 0)
            and bool(row["returnable"]) == condition.get("returnable", bool(row["returnable"]))
            and row["product_id"] not in bought
        ]


def holds(condition: Row, order: OrderFacts) -> bool:
    """Whether an order is as a script wants it. Unless it says so: no return, refund or invoice, not late."""
    row, refund = order.row, condition.get("refund", "none")
    status = condition.get("status", row["status"])
    pairs = zip(order.products, order.items, strict=True)
    stocked = all(product["stock"] >= item["quantity"] for product, item in pairs)
    # cancelling puts goods back: of something sold out that another conversation may be asking about
    may_be_back = row["status"] in ("placed", "packed")
    return (
        row["status"] in ([status] if isinstance(status, str) else status)
        and within(order.age, condition.get("age"))
        and within(row["total_cents"], condition.get("total"))
        and len(order.items) == condition.get("items", len(order.items))
        and [each["status"] for each in order.refunds] == ([] if refund == "none" else [refund])
        and (not order.returned or refund != "none")
        and condition.get("invoiced", False) == order.invoiced
        and condition.get("returnable", True) == all(product["returnable"] for product in order.products)
        and condition.get("in_stock", True if may_be_back else stocked) == stocked
        and condition.get("late", False) == order.late
    )


def order_values(name: str, order: OrderFacts, language: str) -> dict[str, str]:
    """`<name>.id`, `.product`, `.total`, `.tracking` and so on, as text."""
    row, shipment = order.row, order.shipment
    values = {
        "id": row["order_id"], "status": row["status"], "placed_on": row["placed_on"], "address": row["address"],
        "total": money(row["total_cents"]), "product": order.products[0][f"name_{language}"],
        "price": money(order.items[0]["price_cents"] * order.items[0]["quantity"]),
    }  # fmt: skip
    for column in ("carrier", "tracking", "shipped_on", "expected_on", "delivered_on"):
        if shipment.get(column):
            values[column] = shipment[column]
    for place, (item, product) in enumerate(zip(order.items, order.products, strict=True)):
        values |= {f"item_{place}": item["item_id"], f"product_{place}": product[f"name_{language}"]}
    if order.refunds:
        values["refund"] = money(order.refunds[0]["amount_cents"])
    return {f"{name}.{key}": str(value) for key, value in values.items()}


def product_values(name: str, row: Row, language: str) -> dict[str, str]:
    """`<name>.name`, `.stock`, `.price`."""
    price = money(row["price_cents"])
    return {f"{name}.name": row[f"name_{language}"], f"{name}.stock": str(row["stock"]), f"{name}.price": price}


def by_order(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their order."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["order_id"], []).append(row)
    return grouped


def within(number: int, bounds: Sequence[int] | None) -> bool:
    """Whether a number lies between two, both included; without bounds it does."""
    return bounds is None or bounds[0] <= number <= bounds[1]


def money(cents: int) -> str:
    """4990 -> "49.90"."""
    return f"{cents / 100:.2f}"
