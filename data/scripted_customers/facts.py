"""Whether an answer says something, in any of the forms in which people say it.

"KM204817"                     these characters; case, spaces and full-width forms do not count
"date 2026-11-24"              2026-11-24, 24 November, Nov 24, November 24th, 11月24日, 24/11, ...
"money 49.90"                  49.90, 49.9, $49.90, 1,049.90
"any not found | no order"     at least one of them
"""

import re
import unicodedata
from datetime import date

MONTHS = [date(2000, month, 1).strftime("%B").lower() for month in range(1, 13)]


def says(text: str, fact: str) -> bool:
    """Whether the text says the fact."""
    kind, _, rest = fact.partition(" ")
    if kind == "date":
        return any(re.search(form, plain(text)) for form in date_forms(date.fromisoformat(rest)))
    if kind == "money":
        return says_money(text, rest)
    if kind == "any":
        return any(plain(part) in plain(text) for part in rest.split("|"))
    return plain(fact) in plain(text)


def plain(text: str) -> str:
    """Text as it is compared: one width, one case, one kind of apostrophe, one space."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join(folded.split())


def date_forms(day: date) -> list[str]:
    """Patterns of the ways to write a day, for text that went through `plain`."""
    name, number = MONTHS[day.month - 1], day.day
    months = f"(?:{name}|{name[:3]}\\.?|sept\\.?)" if day.month == 9 else f"(?:{name}|{name[:3]}\\.?)"
    nth = rf"{number}(?:st|nd|rd|th)?"
    month = f"0?{day.month}"
    return [
        rf"{day.year}[-/.]{month}[-/.]0?{number}(?!\d)",
        rf"(?<!\d)0?{nth} (?:of )?{months}(?![a-z])",
        rf"(?<![a-z]){months} (?:the )?0?{nth}(?!\d)",
        rf"(?<!\d){month} ?月 ?0?{number} ?[日号]",
        rf"(?<![\d/]){month}/0?{number}(?!\d)",
        rf"(?<![\d/])0?{number}/{month}(?!\d)",
    ]


def says_money(text: str, amount: str) -> bool:
    """Whether an amount stands in the text; thousands may be set off, and zeros at the end left out."""
    numbers = re.findall(r"\d[\d,]*(?:\.\d+)?", plain(text))
    return any(float(number.replace(",", "")) == float(amount) for number in numbers)
