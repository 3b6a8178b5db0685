"""One message, several wishes: cut it where the topic changes.

    split_requests("cancel KM204817 and where is my lamp? also an invoice please")
    # ["cancel KM204817", "where is my lamp?", "an invoice please"]

The understanding model labels the first request of a message and leaves the rest alone (data/customer_service); so the
message is cut first and each piece is read by itself. A clause opens a new request when it names a topic that the one
before it does not have, or the same topic for another order. Reasons ("it is broken"), greetings and thanks stay with
the request beside them. The topics lie in request_topics.toml.
"""

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from data.customer_service.normalise import order_number

TOPICS = Path(__file__).with_name("request_topics.toml")
LONGEST = 4000  # characters that are looked at
TAKES_MONEY_BACK = {"return", "cancel"}


@cache
def rules() -> dict[str, Any]:
    """request_topics.toml, compiled."""
    read = tomllib.loads(TOPICS.read_text(encoding="utf-8"))
    joined = {name: "|".join(forms) for name, forms in (read["topics"] | {"": read["rules"]["cut"]}).items()}
    compiled = {name: re.compile(form, re.IGNORECASE) for name, form in joined.items()}
    return {
        "cut": compiled.pop(""),
        "topics": compiled,
        "asking": re.compile(read["rules"]["asking"][0], re.IGNORECASE),
        "number": re.compile(read["rules"]["number"]),
    }


@dataclass
class Clause:
    """A piece of the message: its text, the cut after it, its topics and the orders it names."""

    text: str
    after: str = ""
    topics: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, text: str, after: str = "") -> "Clause":
        """Read a clause."""
        topics = {name for name, pattern in rules()["topics"].items() if pattern.search(text)}
        orders = {number for written in rules()["number"].findall(text) if (number := order_number(written))}
        return cls(text, after, topics, orders)


def clauses(text: str) -> list[Clause]:
    """The message cut wherever a request may end."""
    pieces, start = [], 0
    for cut in rules()["cut"].finditer(text):
        if cut.end() > start:
            pieces.append(Clause.of(text[start : cut.start()], text[cut.start() : cut.end()]))
            start = cut.end()
    return [*pieces, Clause.of(text[start:])]


def opens_request(before: Clause, clause: Clause) -> bool:
    """Whether a clause wants something else than the request before it."""
    if not clause.topics or not before.topics:
        return False
    if before.orders and clause.orders - before.orders:
        return True
    if clause.topics <= {"refund"} and before.topics & TAKES_MONEY_BACK and not rules()["asking"].search(clause.text):
        return False
    return not clause.topics & before.topics


# exercise: agent.split_requests
def split_requests(text: str) -> list[str]:
    """The requests of a message, in order; a message without any topic is one request, an empty one none.

    Clauses are put together again, with what stood between them, until one opens a new request. What comes before the
    first topic belongs to it.
    """
    requests: list[Clause] = []
    between = ""
    for clause in clauses(text[:LONGEST]):
        if not requests or opens_request(requests[-1], clause):
            requests.append(clause)
        else:
            last = requests[-1]
            last.text += between + clause.text
            last.topics, last.orders = last.topics | clause.topics, last.orders | clause.orders
        between = clause.after
    return [request.text.strip() for request in requests if request.text.strip()]
# end exercise
