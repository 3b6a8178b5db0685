"""Make a shop, open it, and read all of it: SQLite in WAL mode, so that readers never wait for a writer.

A shop is written beside its path and renamed, and one that exists is replaced in a single transaction: a service that
runs on it sees the old shop or the new one.
"""

import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from data.shop.seeding import FOLDER, draw_shop
from labkit.errors import LabError

TABLES = (
    "meta", "customers", "products", "orders", "items", "shipments", "refunds", "returns", "invoices", "tickets",
    "confirmations", "audit",
)  # fmt: skip
RUNNING = {"at", "created_at", "decided_at", "audit_id"}  # columns that differ between two runs of the same story
BUSY_SECONDS = 10
RESET = "python -m stage3_agents_llmops.agent reset"


def create_shop(path: str | Path, seed: int = 1, customers: int = 40, orders: int = 160) -> Path:
    """Make a shop at `path`, instead of the one that is there.

    Args:
        path: of the database file.
        seed: chooses the order numbers, the people, and who bought what.
        customers: between 1 and 400; C1001 and so on, English and Chinese in turn.
        orders: at least one; dealt to the customers in turn.

    Raises:
        LabError: impossible numbers, or the file at `path` is no shop.
    """
    path = Path(path)
    if not (1 <= customers <= 400 and 1 <= orders <= 100_000):
        raise LabError(f"a shop of {customers} customers and {orders} orders", "1 to 400 customers, 1 to 100000 orders")
    if path.is_dir():
        raise LabError(f"{path} is a folder", "the path of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-shop-", dir=path.parent) as folder:
        new = Path(folder) / path.name
        with closing(sqlite3.connect(new)) as connection:
            connection.executescript((FOLDER / "schema.sql").read_text(encoding="utf-8"))
            with connection:
                for table, rows in draw_shop(seed, customers, orders).items():
                    insert(connection, table, rows)
        if path.exists():
            replace_content(path, new)
        else:
            os.replace(new, path)
    return path


def insert(connection: sqlite3.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows; names of tables and columns come from code, never from a customer."""
    for row in rows:
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", row)


def replace_content(path: Path, source: Path) -> None:
    """Write the pages of another database over those of `path`, in one transaction."""
    try:
        with closing(open_shop(path)) as target, closing(sqlite3.connect(source)) as new:
            new.backup(target)
    except sqlite3.DatabaseError as error:
        raise LabError(f"{path} cannot be replaced: {error}", "stop what uses it, or another path") from None


def open_shop(path: str | Path) -> sqlite3.Connection:
    """Connect to a shop: rows by name, foreign keys checked, no transaction open (use `transaction`).

    Raises:
        LabError: there is no shop at `path`.
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"there is no shop at {path}", RESET)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("SELECT value FROM meta WHERE name = 'today'").fetchone()[0]
    except (sqlite3.DatabaseError, TypeError) as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise
        raise LabError(f"{path} is not a shop", f"another path, or remove it and: {RESET}") from None
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it or nothing. It takes the write lock at once, so that what was read is still true when it writes."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def dump(path: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Table -> its rows in the order of their keys, all tables at one moment.

    Raises:
        LabError: there is no shop at `path`.
    """
    with closing(open_shop(path)) as connection:
        connection.execute("BEGIN")
        return {
            table: [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")] for table in TABLES
        }


def fingerprint(path: str | Path, tables: Iterable[str] | None = None) -> dict[str, str]:
    """Table -> SHA-256 of its rows without times and running numbers: equal when two stories ended alike.

    Raises:
        LabError: no shop, or no such table.
    """
    content = dump(path)
    wanted = tuple(tables or TABLES)
    for table in wanted:
        if table not in content:
            raise LabError(f"the shop has no table {table!r}", f"one of: {', '.join(TABLES)}")
    kept = {
        table: sorted(canonical({k: v for k, v in row.items() if k not in RUNNING}) for row in content[table])
        for table in wanted
    }
    return {table: hashlib.sha256("\n".join(rows).encode()).hexdigest() for table, rows in kept.items()}


def canonical(value: Any) -> str:
    """The one way a value is written as JSON: keys sorted, no spaces, nothing escaped that need not be."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
