"""Does the answer say only what the evidence says? Figures, dates, names and citations are looked up one by one.

    check_grounding("It shines for 11 hours [1].", ["... for 11 hours on low ..."], {}).ok      # True
    check_grounding("It shines for 12 hours [2].", ["... for 11 hours on low ..."], {}).unsupported   # ("[2]", "12")

A fluent answer with a wrong date is worse than none. Whole sentences cannot be judged without a model; what does the
damage can: numbers, amounts, dates, order numbers, addresses of the web, names, and the marks of citations. Each must
stand in a passage, in a fact that a tool returned, or in what the customer wrote (append that to the evidence). What it
does not see is a wrong word without a figure or a name in it: "cannot" for "can".
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CITATION = re.compile(r"\[(\d{1,3})\]")
NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?:,\d{3})*(?:\.\d+)?(?![A-Za-z0-9])")
ISO_DATE = re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b|(\d{4})年(\d{1,2})月(\d{1,2})[日号]")
MONTHS = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
]  # fmt: skip
MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" if name != "may" else "may" for name in MONTHS)
WRITTEN_DATE = re.compile(
    rf"\b(?P<month>{MONTH})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b"
    rf"|\b(?P<day2>\d{{1,2}})(?:st|nd|rd|th)? (?P<month2>{MONTH})\b"
    r"|(?P<month3>\d{1,2})月(?P<day3>\d{1,2})[日号]",
    re.IGNORECASE,
)
CODE = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z-]*\d)(?=[\d-]*[A-Za-z])[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*(?![A-Za-z0-9])")
LINK = re.compile(r"(?:https?://|www\.)\S+|[\w.+-]+@[\w-]+\.\w+")
NAME = re.compile(r"(?<![A-Za-z])[A-Z][A-Za-z]*[a-z](?: [A-Z][A-Za-z]*[a-z])*(?![A-Za-z])")
SENTENCE_START = re.compile(r"(?:^|[.!?:;\n•–-]\s*|[\"'“(]\s*|\d\.\s+)$")
QUOTED = re.compile(r"[《「『]([^》」』]{1,40})[》」』]")
ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")
EVERYDAY = {  # capital letters that name nobody
    "i", "ok", "hi", "hello", "dear", "yes", "no", "please", "thank", "thanks", "sorry", "english", "chinese", "euro",
    "euros", "dollar", "dollars", "usd", "eur", "faq", "pdf", "monday", "tuesday", "wednesday", "thursday", "friday",
    "saturday", "sunday", *MONTHS, *(name[:3] for name in MONTHS),
}  # fmt: skip


@dataclass(frozen=True)
class Grounding:
    """The verdict; `unsupported` are the pieces of the answer that nothing supports."""

    ok: bool
    unsupported: tuple[str, ...] = ()


def flat(value: Any) -> list[str]:
    """Every scalar of nested facts as text; keys count, too."""
    if isinstance(value, Mapping):
        return [text for key, item in value.items() for text in [str(key), *flat(item)]]
    if isinstance(value, list | tuple | set | frozenset):
        return [text for item in value for text in flat(item)]
    return [] if value is None else [str(value)]


def plain(text: str) -> str:
    """Full-width digits and letters made plain; commas and stops keep their width: "373，474" is two numbers."""
    return "".join(letter if letter in "，．：；" else unicodedata.normalize("NFKC", letter) for letter in text)


def numbers_of(text: str) -> set[str]:
    """The numbers of a text in one form: "1,050.00" is 1050; letters and digits together are a code, no number."""
    found = set()
    for written in NUMBER.findall(ORDINAL.sub("", plain(text))):
        number = written.replace(",", "")
        found.add(number.rstrip("0").rstrip(".") if "." in number else number.lstrip("0") or "0")
    return found


def dates_of(text: str) -> set[tuple[int, int]]:
    """Month and day of every date: 2026-11-20, 20 November, Nov 20th, 11月20日."""
    found = set()
    for match in ISO_DATE.finditer(plain(text)):
        _, month, day = (part for part in match.groups() if part)
        found.add((int(month), int(day)))
    for match in WRITTEN_DATE.finditer(plain(text)):
        month = match["month"] or match["month2"] or match["month3"]
        day = match["day"] or match["day2"] or match["day3"]
        number = int(month) if month.isdigit() else [name[:3] for name in MONTHS].index(month[:3].lower()) + 1
        found.add((number, int(day)))
    return found


def names_of(text: str) -> set[str]:
    """Words with a capital inside a sentence (in Chinese, titles in 《》), which name a person, a brand or a place."""
    found = {match for match in QUOTED.findall(text)}
    for match in NAME.finditer(text):
        if not SENTENCE_START.search(text[: match.start()][-3:]):
            found.update(word for word in match[0].split() if word.lower() not in EVERYDAY)
    return found


def without(pattern: re.Pattern[str], text: str) -> str:
    """The text with a blank for every match."""
    return pattern.sub(" ", text)


# exercise: agent.check_grounding
def check_grounding(answer: str, evidence: Sequence[str], facts: Mapping[str, Any]) -> Grounding:
    """Look up every citation mark, link, code, date, number and name of an answer.

    Args:
        answer: with citations as [1], [2]: positions in `evidence`, from 1.
        evidence: the passages that were read, then what the customer wrote.
        facts: what tools returned; whole numbers may be cents and count as units, too.

    Returns:
        ok, or what nothing supports, in the order: citations, links, codes, dates, numbers, names.
    """
    scalars = flat(facts)
    known = plain(" \n ".join([*evidence, *scalars]))
    folded = known.casefold()
    said = plain(without(CITATION, answer))
    wrong = [f"[{mark}]" for mark in CITATION.findall(answer) if not 1 <= int(mark) <= len(evidence)]
    wrong += [link for link in LINK.findall(said) if link.rstrip(".,)").casefold() not in folded]
    said = without(LINK, said)
    codes = {code.casefold() for code in CODE.findall(known)}
    wrong += [code for code in CODE.findall(ORDINAL.sub("", said)) if code.casefold() not in codes]
    wrong += [f"{month:02}-{day:02}" for month, day in sorted(dates_of(said) - dates_of(known))]
    said = without(WRITTEN_DATE, without(ISO_DATE, said))
    supported = numbers_of(known)
    supported |= {one for cents in scalars if cents.isdigit() for one in numbers_of(f"{int(cents) / 100:.2f}")}
    wrong += sorted(numbers_of(said) - supported)
    wrong += sorted(name for name in names_of(said) if name.casefold() not in folded)
    return Grounding(not wrong, tuple(dict.fromkeys(wrong)))
# end exercise
