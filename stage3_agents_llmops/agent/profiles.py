"""What is remembered of a customer when a conversation is over: the language, and which orders were asked about last.

The shop knows who a customer is. This knows how to talk to them, and nothing that could identify anybody: no name, no
address, no word that they wrote.

    profiles = ProfileStore("profiles.sqlite")
    profiles.note("C1001", language="zh", order_id="KM204817")
    profiles.get("C1001").orders        # ("KM204817",)
"""

import json
import re
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from labkit.errors import LabError

LAST_ORDERS = 5
PREFERENCES = {"language": ("en", "zh"), "brief": ("yes", "no"), "refund_mail": ("yes", "no")}  # and their values
SCHEMA = """
CREATE TABLE IF NOT EXISTS profiles (
    customer_id TEXT PRIMARY KEY, language TEXT, orders TEXT NOT NULL, preferences TEXT NOT NULL,
    conversations INTEGER NOT NULL, updated_at REAL NOT NULL
) STRICT
"""


@dataclass(frozen=True)
class Profile:
    """One customer. `orders` are the numbers asked about, the last one first."""

    customer_id: str
    language: str | None = None
    orders: tuple[str, ...] = ()
    preferences: dict[str, str] = field(default_factory=dict)
    conversations: int = 0


class ProfileStore:
    """A table of profiles in SQLite; any number of threads may use one object.

    Args:
        path: of the database; made where there is none.

    Raises:
        LabError: the file is no database.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            # stays open: whenever the last connection is closed, SQLite copies its log into the database and waits
            self._kept = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            self._kept.execute("PRAGMA journal_mode=WAL")
            self._kept.execute(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise LabError(f"{self.path} cannot be used: {error}", "remove it, or another --state") from None

    def get(self, customer_id: str) -> Profile:
        """What is known; an empty profile of somebody who was never here."""
        with self._open() as connection:
            row = connection.execute("SELECT * FROM profiles WHERE customer_id = ?", (customer_id,)).fetchone()
        if row is None:
            return Profile(customer_id)
        _, language, orders, preferences, conversations, _ = row
        return Profile(customer_id, language, tuple(json.loads(orders)), json.loads(preferences), conversations)

    def note(
        self, customer_id: str, language: str | None = None, order_id: str | None = None,
        preference: tuple[str, str] | None = None, new_conversation: bool = False,
    ) -> Profile:  # fmt: skip
        """Remember something.

        Raises:
            ValueError: a preference that is not in PREFERENCES, or something that is no order number: a profile keeps
                no free text, so that no personal data can get into it.
        """
        if preference and preference[1] not in PREFERENCES.get(preference[0], ()):
            raise ValueError(f"a profile has no preference {preference[0]!r} with the value {preference[1]!r}")
        if order_id and not re.fullmatch(r"[A-Z]{2}\d{6}", order_id):
            raise ValueError("a profile keeps order numbers only")
        with self._lock, self._open() as connection:
            old = self.get(customer_id)
            orders = [order_id, *(each for each in old.orders if each != order_id)] if order_id else list(old.orders)
            preferences = old.preferences | (dict([preference]) if preference else {})
            values = (customer_id, language or old.language, json.dumps(orders[:LAST_ORDERS]), json.dumps(preferences),
                      old.conversations + new_conversation, time.time())  # fmt: skip
            connection.execute("INSERT OR REPLACE INTO profiles VALUES (?, ?, ?, ?, ?, ?)", values)
        return self.get(customer_id)

    def forget(self, customer_id: str) -> bool:
        """Remove a customer's profile; whether there was one."""
        with self._lock, self._open() as connection:
            return connection.execute("DELETE FROM profiles WHERE customer_id = ?", (customer_id,)).rowcount > 0

    def close(self) -> None:
        """Let go of the database."""
        self._kept.close()

    def _open(self) -> closing:
        return closing(sqlite3.connect(self.path, timeout=10, isolation_level=None))
