"""What an agent may read. Every call names the customer, and what belongs to somebody else does not exist.

"Not yours" would tell a stranger that the number is real. So another customer's order is `not_found`, like one that
was never placed.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from data.shop import open_shop, transaction
from stage3_agents_llmops.agent.shop.product_names import similarity
from stage3_agents_llmops.agent.shop.tool_errors import ToolError

FITS = 0.6  # similarity from which a name is taken for the product


@dataclass(frozen=True)
class CustomerView:
    customer_id: str
    name: str
    email: str
    phone: str
    language: str
    tier: str


@dataclass(frozen=True)
class ProductView:
    """`price_cents` is today's price; `names` are all that customers call it."""

    product_id: str
    name_en: str
    name_zh: str
    price_cents: int
    stock: int
    category: str
    returnable: bool
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ItemView:
    """`price_cents` is of one piece, when it was bought."""

    item_id: str
    product_id: str
    name_en: str
    name_zh: str
    quantity: int
    price_cents: int
    status: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShipmentView:
    carrier: str
    tracking: str
    status: str
    shipped_on: str
    expected_on: str
    delivered_on: str | None


@dataclass(frozen=True)
class RefundView:
    """`item_id` is None for a refund of the whole order."""

    refund_id: str
    item_id: str | None
    amount_cents: int
    status: str
    reason: str
    created_on: str


@dataclass(frozen=True)
class ReturnView:
    return_id: str
    item_id: str
    kind: str
    reason: str
    status: str


@dataclass(frozen=True)
class OrderView:
    """An order with all that belongs to it. Dates are ISO 8601."""

    order_id: str
    status: str
    placed_on: str
    address: str
    total_cents: int
    currency: str
    items: tuple[ItemView, ...]
    shipment: ShipmentView | None
    refunds: tuple[RefundView, ...]
    returns: tuple[ReturnView, ...]

    def item(self, item_id: str) -> ItemView:
        """One item. Raises ToolError("not_found")."""
        for item in self.items:
            if item.item_id == item_id:
                return item
        raise ToolError("not_found", f"order {self.order_id} has no item {item_id}")

    def matching(self, product: str) -> list[ItemView]:
        """Its items that a customer's words fit, best first."""
        scored = [(max(similarity(product, name) for name in item.names), item) for item in self.items]
        return [item for score, item in sorted(scored, key=lambda pair: -pair[0]) if score >= FITS]


@dataclass(frozen=True)
class TicketView:
    ticket_id: str
    order_id: str | None
    thread_id: str
    kind: str
    summary: str
    status: str
    created_at: str


class Shop:
    """A shop's database; any number of threads may use one object, since every call opens its own connection.

    Args:
        path: of the database, made by `data.shop.create_shop`.

    Raises:
        LabError: there is no shop at `path`; from every method that reads.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self.connection():
            pass

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Open for reading. Raises ToolError("busy") when another process holds the shop for too long."""
        try:
            with closing(open_shop(self.path)) as connection:
                yield connection
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ToolError("busy", f"another process holds {self.path.name}") from error
            raise

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open, in one transaction: all of it or nothing."""
        with self.connection() as connection, transaction(connection):
            yield connection

    def today(self) -> date:
        """The shop's date, by which its policy counts days."""
        with self.connection() as connection:
            return read_today(connection)

    def customer(self, customer_id: str) -> CustomerView:
        """Who is asking. Raises ToolError("not_found")."""
        with self.connection() as connection:
            return read_customer(connection, customer_id)

    def order(self, customer_id: str, order_id: str) -> OrderView:
        """One of the customer's orders. Raises ToolError("not_found"), also for another customer's."""
        with self.connection() as connection:
            return read_order(connection, customer_id, order_id)

    def orders(self, customer_id: str) -> list[OrderView]:
        """All of the customer's orders, the newest first."""
        query = "SELECT order_id FROM orders WHERE customer_id = ? ORDER BY placed_on DESC, order_id"
        with self.connection() as connection:
            found = [row["order_id"] for row in connection.execute(query, (customer_id,))]
            return [read_order(connection, customer_id, order_id) for order_id in found]

    def find_orders(self, customer_id: str, product: str | None = None) -> list[OrderView]:
        """The customer's orders with something that fits the words, in either language, the newest first."""
        orders = self.orders(customer_id)
        if product is None:
            return orders
        best = {order.order_id: max(similarity(product, n) for i in order.items for n in i.names) for order in orders}
        top = max(best.values(), default=0.0)
        return [order for order in orders if best[order.order_id] >= max(FITS, 0.85 * top)]

    def products(self, query: str | None = None) -> list[ProductView]:
        """What the shop sells; with a query only what fits it, the best first."""
        with self.connection() as connection:
            found = [view_product(row) for row in connection.execute("SELECT * FROM products ORDER BY product_id")]
        if query is None:
            return found
        scored = [(max(similarity(query, name) for name in product.names), product) for product in found]
        return [product for score, product in sorted(scored, key=lambda pair: -pair[0]) if score >= FITS]

    def product(self, query: str) -> ProductView | None:
        """The product that the words fit best, or None."""
        return next(iter(self.products(query)), None)

    def stock(self, product_id: str) -> int:
        """Pieces that can be sent today. Raises ToolError("not_found")."""
        with self.connection() as connection:
            row = connection.execute("SELECT stock FROM products WHERE product_id = ?", (product_id,)).fetchone()
        if row is None:
            raise ToolError("not_found", f"no product {product_id}")
        return row["stock"]

    def tickets(self, customer_id: str | None = None, status: str | None = None) -> list[TicketView]:
        """Tickets of a customer, or, for an operator (no customer), of all; the oldest first."""
        columns = ", ".join(TicketView.__dataclass_fields__)
        query = (
            f"SELECT {columns} FROM tickets WHERE (?1 IS NULL OR customer_id = ?1) AND (?2 IS NULL OR status = ?2) "
            "ORDER BY created_at, ticket_id"
        )
        with self.connection() as connection:
            return [TicketView(*row) for row in connection.execute(query, (customer_id, status))]

    def human_queue(self) -> list[dict]:
        """See `tickets.human_queue`."""
        from stage3_agents_llmops.agent.shop.tickets import human_queue  # it needs this module first

        return human_queue(self)


def read_today(connection: sqlite3.Connection) -> date:
    return date.fromisoformat(connection.execute("SELECT value FROM meta WHERE name = 'today'").fetchone()[0])


def read_customer(connection: sqlite3.Connection, customer_id: str) -> CustomerView:
    row = connection.execute("SELECT * FROM customers WHERE customer_id = ?", (customer_id,)).fetchone()
    if row is None:
        raise ToolError("not_found", f"no customer {customer_id}")
    return CustomerView(**dict(row))


def read_order(connection: sqlite3.Connection, customer_id: str, order_id: str) -> OrderView:
    """See `Shop.order`; inside a transaction it reads what the transaction sees."""
    order = connection.execute(
        "SELECT * FROM orders WHERE order_id = ? AND customer_id = ?", (order_id, customer_id)
    ).fetchone()
    if order is None:
        raise ToolError("not_found", f"customer {customer_id} has no order {order_id}")
    items = connection.execute(
        "SELECT items.*, name_en, name_zh, aliases FROM items JOIN products USING (product_id) WHERE order_id = ? "
        "ORDER BY item_id", (order_id,),
    )  # fmt: skip
    shipments = related(connection, "shipments", ShipmentView, order_id)
    return OrderView(
        **{name: order[name] for name in ("order_id", "status", "placed_on", "address", "total_cents", "currency")},
        items=tuple(view_item(row) for row in items),
        shipment=shipments[0] if shipments else None,
        refunds=related(connection, "refunds", RefundView, order_id),
        returns=related(connection, "returns", ReturnView, order_id),
    )


def related(connection: sqlite3.Connection, table: str, view: type, order_id: str) -> tuple:
    columns = ", ".join(view.__dataclass_fields__)
    return tuple(
        view(*row) for row in connection.execute(f"SELECT {columns} FROM {table} WHERE order_id = ?", (order_id,))
    )


def view_item(row: sqlite3.Row) -> ItemView:
    names = (row["name_en"], row["name_zh"], *json.loads(row["aliases"]))
    columns = ("item_id", "product_id", "name_en", "name_zh", "quantity", "price_cents", "status")
    return ItemView(**{name: row[name] for name in columns}, names=names)


def view_product(row: sqlite3.Row) -> ProductView:
    names = (row["name_en"], row["name_zh"], *json.loads(row["aliases"]))
    columns = ("product_id", "name_en", "name_zh", "price_cents", "stock", "category")
    return ProductView(**{name: row[name] for name in columns}, returnable=bool(row["returnable"]), names=names)
