"""The same script in other words: one of its wordings, a typo, a greeting, an order number as somebody writes it.

Values other than order numbers stay as they are: a customer may mistype "please", but an address that is mistyped is
another address.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from data.customer_service.values import WORDS

TYPO_SHARE = 0.15  # of the messages
SLIPS = {"zh": (("订单", "定单"), ("账", "帐"), ("麻烦", "麻凡"), ("什么", "神马"), ("，", " "))}
JOINTS = {
    "en": (" Also, ", " And another thing: ", " Then ", " Plus: "),
    "zh": ("另外，", "还有，", "顺便，", "再就是，"),
}
VALUE = re.compile(r"\{([a-z_0-9]+\.[a-z_]+)\}")


def written_order(order_id: str, form: str, language: str, rng: Random) -> str:
    """An order number as a customer writes it: `KM204817`, `km 204 817`, or in words where `form` is spoken."""
    letters, digits = order_id[:2], order_id[2:]
    if form == "spoken":
        glue = " " if language == "en" else ""
        words = glue.join(WORDS[language][int(digit)] for digit in digits)
        return f"{' '.join(letters.lower())} {words}" if language == "en" else f"{letters}{words}"
    plain = [order_id] * 5
    return rng.choice([*plain, order_id.lower(), f"{letters} {digits[:3]} {digits[3:]}", f"{letters}-{digits}"])


def worded(
    wordings: Sequence[str], values: Mapping[str, str], language: str, rng: Random, *, form: str = "any",
    typos: bool = True,
) -> str:  # fmt: skip
    """One of the wordings, filled with values; its own words may carry one slip.

    Raises:
        KeyError: a value that was not found in the shop.
    """
    pieces = VALUE.split(rng.choice(list(wordings)))  # words, name, words, name, ..., words
    words, names = pieces[0::2], pieces[1::2]
    if typos and rng.random() < TYPO_SHARE:
        place = rng.randrange(len(words))
        words[place] = slip(words[place], language, rng)
    filled = [
        written_order(values[name], form, language, rng) if name.endswith(".id") else values[name] for name in names
    ]
    return "".join(text for pair in zip(words, [*filled, ""], strict=True) for text in pair)


def worded_parts(
    parts: Sequence[Sequence[str]], values: Mapping[str, str], language: str, rng: Random, **options: Any
) -> str:
    """Several requests in one message, in any order."""
    first, *rest = rng.sample([worded(part, values, language, rng, **options) for part in parts], len(parts))
    return first + "".join(joined(rng.choice(JOINTS[language]), text) for text in rest)


def joined(joint: str, text: str) -> str:
    """A joint and a sentence after it, which no longer begins with a capital."""
    lower = joint.endswith(" ") and not text.startswith(("I ", "I'"))
    return joint + (text[0].lower() + text[1:] if lower else text)


def slip(text: str, language: str, rng: Random) -> str:
    """A text with one typo: two letters change places, or a character gives way to one that sounds like it."""
    if language == "zh":
        fitting = [pair for pair in SLIPS["zh"] if pair[0] in text]
        return text.replace(*rng.choice(fitting), 1) if fitting else text
    long_words = [match for match in re.finditer(r"[a-z]{6,}", text)]
    if not long_words:
        return text
    place = rng.choice(long_words).start() + rng.randint(1, 3)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
