"""Words for what the agents found: one template a situation and language, filled with facts and nothing else.

A template cannot invent an amount or a date, so it is also what a freely worded answer is compared with (answering.py).

    say("status_shipped", "en", order_id="KM204817", carrier="Blue Parcel", tracking="BP123", expected_on="2026-11-23")
"""

import re
import tomllib
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from stage3_agents_llmops.agent.shop import TOOLS

FOLDER = Path(__file__).with_name("answers")
LANGUAGES = ("en", "zh")
FIELD = re.compile(r"\{(\w+)\}")
SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "CNY": "¥"}

_folder: ContextVar[Path] = ContextVar("wording", default=FOLDER)  # of the agent whose run this is


def use_wording(folder: Path) -> None:
    """What this task, and those that it starts, say from now on: a release brings its own words."""
    _folder.set(folder)


def check_wording(folder: Path) -> None:
    """Refuse a folder in which a situation has no words. Raises LabError."""
    for language in LANGUAGES:
        missing = sorted(set(templates_in(FOLDER, language)) - set(templates_in(folder, language)))
        if missing:
            raise LabError(f"{folder}/{language}.toml has no words for {missing[0]}", "a line for every situation")


def templates(language: str) -> dict[str, str]:
    """Code -> template, of the wording in use."""
    return templates_in(_folder.get(), language)


@cache
def templates_in(folder: Path, language: str) -> dict[str, str]:
    """Code -> template.

    Raises:
        LabError: the file cannot be read.
    """
    path = folder / f"{language}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"the answers in {path} cannot be read: {error}", f"git checkout {path.name}") from None


def say(code: str, language: str, **facts: Any) -> str:
    """The template filled in; `{name}` is a fact.

    Raises:
        KeyError: no such template, or a fact that it needs is missing.
    """
    return FIELD.sub(lambda field: str(facts[field[1]]), templates(language)[code])


def money(cents: int, currency: str) -> str:
    """`$39.90`: the amount with its currency's sign, or with its code where no sign is known."""
    sign = SYMBOLS.get(currency)
    amount = f"{cents // 100}.{cents % 100:02d}"
    return f"{sign}{amount}" if sign else f"{amount} {currency}"


def tool_title(tool: str, language: str) -> str:
    """What a write is called."""
    return TOOLS[tool].title_zh if language == "zh" else TOOLS[tool].title_en


def product_name(thing: Any, language: str) -> str:
    """Of an item or a product, in the customer's language."""
    return thing.name_zh if language == "zh" else thing.name_en


def items_text(order: Any, language: str) -> str:
    """`desk lamp, 2 x ceramic mug`."""
    names = []
    for item in order.items:
        name = product_name(item, language)
        names.append(name if item.quantity == 1 else f"{item.quantity} x {name}")
    return ("、" if language == "zh" else ", ").join(names)


def order_line(order: Any, language: str) -> str:
    """An order as one line of a list to choose from."""
    status = say(f"word_{order.status}", language)
    return say("order_line", language, order_id=order.order_id, items=items_text(order, language), status=status,
               placed_on=order.placed_on)  # fmt: skip


def numbered(lines: list[str]) -> str:
    """A list that a customer can answer with a number."""
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
