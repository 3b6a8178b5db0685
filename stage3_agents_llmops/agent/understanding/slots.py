"""Slots by rules: what has a form (order numbers, amounts, dates, addresses) or a known name (products).

    find_slots("send KM204817 to 14 Fennel Row, Oakmere please", "en")
    # {"order_id": "KM204817", "address": "14 Fennel Row, Oakmere"}

The classifier says only which intent a message has; this fills in what the message mentions. Values are copied as they
were written, as in the labels of data/customer_service; `reason` is a code, found by words here and by a trained head
in the classifier. The forms lie in slot_forms.toml.
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from data.customer_service.values import WORDS, lists

FORMS = Path(__file__).with_name("slot_forms.toml")
FULL_WIDTH = {code + 0xFEE0: code for code in range(0x21, 0x7F)} | {0x3000: 0x20, 0x2019: 0x27}
DETERMINERS = "my|the|this|that|a|an|your|our|his|her"
NO_HEADS = {  # parts and packaging, too
    "bag", "bank", "box", "can", "case", "charger", "cover", "holder", "lock", "opener", "phone", "set", "sheet",
    "strap",
}  # fmt: skip
TOWN = re.compile(r"(?P<comma>,\s*)?\s?(?P<word>[A-Za-z][A-Za-z'-]*|\d{4,6}|[A-Z]{1,2}\d\w?)(?!\w)")
LONGEST = 2000  # characters that are looked at: the rest of a longer text is no request


@cache
def forms() -> dict[str, Any]:
    """slot_forms.toml, its words filled in and its expressions compiled."""
    read = tomllib.loads(FORMS.read_text(encoding="utf-8"))
    words = read.pop("words") | {"street": read["address"]["street"]}
    words |= {"digit_en": "|".join([*WORDS["en"], "zero"]), "digit_zh": "".join(WORDS["zh"]) + "〇一"}

    def ready(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: ready(item) for name, item in value.items()}
        if isinstance(value, list):
            return [re.compile(ready(one), re.IGNORECASE) for one in value]
        return re.sub(r"\{([a-z_]+)\}", lambda name: words[name[1]], value)

    return ready(read)


@cache
def product_patterns(language: str) -> list[re.Pattern[str]]:
    """Products of the shop, the longest name first; then, after "my" or "the", the last word of a name ("my lamp")."""
    kinds = [values for kind, values in lists()[language].items() if kind.startswith("product")]
    names = {name for values in kinds for each in values.values() for name in each}
    joined = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    if language == "zh":
        return [re.compile(joined, re.IGNORECASE)]
    heads = "|".join(sorted({name.split()[-1] for name in names if " " in name} - NO_HEADS))
    return [
        re.compile(rf"\b(?:{joined})s?\b", re.IGNORECASE),
        re.compile(rf"(?<=\b)(?:{DETERMINERS})\s+(?:\w+\s)?(?P<value>(?:{heads})s?)\b", re.IGNORECASE),
    ]


def first(patterns: list[re.Pattern[str]], text: str) -> tuple[int, int] | None:
    """Where the first pattern that fits, fits."""
    for pattern in patterns:
        if found := pattern.search(text):
            return found.span("value" if "value" in pattern.groupindex else 0)
    return None


def english_address(text: str) -> tuple[int, int] | None:
    """A number, a name and a kind of street, and the town after the comma if there is one."""
    span = first(forms()["address"]["en"], text)
    if span is None:
        return None
    start, end = span[0], span[0] + len(text[span[0] : span[1]].rstrip("."))
    address = forms()["address"]
    stop, street = (re.compile(rf"(?:{address[name]})\b", re.IGNORECASE) for name in ("stop", "street"))
    capitals = any(word[0].isupper() for word in re.findall(r"[A-Za-z]{3,}", text[start:end]))
    town = False
    while after := TOWN.match(text, end):
        word = after["word"]
        if stop.match(word) or (not after["comma"] and not town):
            break
        if not (word[0].isupper() or word[0].isdigit()) if capitals else town and not street.fullmatch(word):
            break  # in capitals, a town's name is; without them nothing tells where it ends: after one word
        town, end = True, after.end()
    return start, end


@cache
def chinese_address_form() -> re.Pattern[str]:
    """A chain of names with a unit each (区, 路, 号楼, 室 ...) that has a number in it."""
    unit = forms()["address"]["zh_unit"]
    number = r"(?:\d+[A-Za-z]?|[A-Z]|[一二三四五六七八九十]+)"
    head = rf"(?>[一-鿿]{{0,7}}?(?:{unit})){{1,6}}"  # atomic and few: no time lost on 路路路路
    named = rf"[一-鿿]{{0,5}}?(?:{unit})|[一-鿿]{{2,3}}(?:大厦|公寓|驿站)|快递驿站"
    tail = rf"(?>{number}(?:{unit})|之\d+|{named}|\d+){{0,8}}"
    building = rf"[一-鿿]{{2,7}}{number}(?:号楼|號樓|号院|栋|棟|幢|单元|座|室)"
    return re.compile(rf"(?<!\d)(?:{head}{number}(?:{unit})?|{building}){tail}")


def chinese_address(text: str) -> tuple[int, int] | None:
    """The chain, without the words before it that say where to ("改送", "寄到")."""
    for found in chinese_address_form().finditer(text):
        head = re.match(r"[一-鿿]*", found[0])[0]  # type: ignore[index]
        cut = [before.end() for before in re.finditer(forms()["address"]["zh_before"], head[:-1])]
        start = found.start() + (cut[-1] if cut else 0)
        if found.end() - start >= 5 and re.search(r"\d|[一二三四五六七八九十]", text[start : found.end()]):
            return start, found.end()
    return None


def find_reason(text: str) -> str | None:
    """The code of the reason whose words the text holds; None where it holds none. "It isn't broken" is no reason."""
    for denied in forms()["no_reason"]["forms"]:
        text = denied.sub(" ", text)
    for code, patterns in forms()["reason"].items():
        if first(patterns, text):
            return code
    return None


def find_slots(text: str, language: str) -> dict[str, str]:
    """Every slot that the text mentions, whatever the intent, as it was written.

    Args:
        text: one request; only its first 2,000 characters are read.
        language: "en" or "zh": whose forms are tried first.
    """
    text = text[:LONGEST]
    rest = text.translate(FULL_WIDTH)  # letter by letter, so that places stay
    slots: dict[str, str] = {}

    def take(slot: str, span: tuple[int, int] | None) -> None:
        nonlocal rest
        if span is not None:
            slots[slot] = text[span[0] : span[1]].strip()
            rest = rest[: span[0]] + "\N{SYMBOL FOR DELETE}" * (span[1] - span[0]) + rest[span[1] :]

    other = "zh" if language == "en" else "en"
    take("order_id", first(forms()["order_id"]["forms"], rest))
    addresses = {"en": english_address, "zh": chinese_address}
    take("address", addresses[language](rest) or addresses[other](rest))
    for slot in ("amount", "date"):
        take(slot, first(forms()[slot][language], rest) or first(forms()[slot][other], rest))
    names = [pattern for each in (language, other) for pattern in product_patterns(each)]
    named = [pattern for pattern in names if "value" not in pattern.groupindex]
    take("product", first(named if "order_id" in slots else named + [one for one in names if one not in named], rest))
    if reason := find_reason(rest):
        slots["reason"] = reason
    return slots
