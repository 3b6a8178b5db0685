"""Personal data, masked before anything is logged, traced or kept in a checkpoint.

    mask_pii("call 138 1234 5678 about KM204817").text      # "call [phone] about KM204817"

A form alone is no proof: an 18-digit number may be a tracking number, a 16-digit one an invoice's. Where a number has a
checksum, the checksum decides: ISO 7064 MOD 11-2 for the Chinese identity card (GB 11643-1999), Luhn for bank cards
(ISO/IEC 7812-1), MOD 97 for IBANs (ISO 13616). Phones, passports and social security numbers have none: there the
numbering plan decides, or a word beside the number ("passport", "ssn", 护照). Amounts, dates, order numbers, addresses
and tracking numbers stay, because the agents need them. One number in ten is right by Luhn by chance; a masked tracking
number is a nuisance, a leaked card is not: so what is in doubt is masked.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

FULL_WIDTH = {code + 0xFEE0: code for code in range(0x21, 0x7F)} | {0x3000: 0x20}
WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # of the identity card's first 17 digits
CHECK = "10X98765432"
CARD_BEGINS = tuple("3456") + ("2", "81", "9")  # issuers' first digits (ISO/IEC 7812); 1 and 7 are airlines and fuel


@dataclass(frozen=True)
class Masked:
    """A text without personal data, and how much of each kind was in it."""

    text: str
    found: tuple[tuple[str, int], ...] = ()


# exercise: agent.luhn
def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of a bank card's number (Luhn, ISO/IEC 7812-1).

    From the right, every second digit is doubled, and 9 taken off where that gives more than 9; the sum must divide
    by 10.

    Args:
        digits: nothing but digits.
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
# end exercise


def identity_card(number: str) -> bool:
    """Whether 18 characters are a Chinese identity number: a date that exists, and the right check character."""
    month, day = int(number[10:12]), int(number[12:14])
    if number[6:8] not in ("18", "19", "20") or not (1 <= month <= 12 and 1 <= day <= 31):
        return False
    return CHECK[sum(int(d) * w for d, w in zip(number[:17], WEIGHTS, strict=True)) % 11] == number[17].upper()


def iban(number: str) -> bool:
    """Whether letters and digits are an international account number: MOD 97 of ISO 13616."""
    moved = number[4:] + number[:4]
    return 15 <= len(number) <= 34 and int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1


def card(number: str) -> bool:
    """Whether digits are a payment card's: a known issuer, a usual length, the right check digit."""
    return number.startswith(CARD_BEGINS) and len(number) in (15, 16, 17, 18, 19) and luhn(number)


def compact(written: str) -> str:
    """Without what people put between digits."""
    return re.sub(r"[\s.()·/-]", "", written)


def always(written: str) -> bool:
    """The form is proof enough."""
    return True


@dataclass(frozen=True)
class Rule:
    """A kind of personal data: its mask, its form, and the check that decides whether it is one.

    Where the form has a group `value`, only that is masked: the rest is the word beside it.
    """

    kind: str
    form: re.Pattern[str]
    check: Callable[[str], bool]


def rule(kind: str, form: str, check: Callable[[str], bool] = always) -> Rule:
    """A rule; letter case never counts."""
    return Rule(kind, re.compile(form, re.IGNORECASE), check)


EDGE, END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
GAP = r"[ .·-]?"
BETWEEN = r"(?:\W|number|no\.?|is|号码|号|是){0,8}"  # a word and its number
EXTENSION = r"(?:[-转 ]{1,2}\d{1,4}(?!\d))?"
AT, DOT = r"(?:@|\s?[(\[]\s?at\s?[)\]]\s?)", r"(?:\.|\s?[(\[]\s?dot\s?[)\]]\s?)"
HAN = "零〇一二三四五六七八九幺"
SPOKEN = "oh|zero|one|two|three|four|five|six|seven|eight|nine"
PHONE_WORD = r"(?:phone|mobile|cell|tel|telephone|call|ring|reach me|text|whatsapp|电话|手机|号码|联系方式|微信)"
RULES = (  # in this order: the longer and surer forms first
    rule("email", rf"[A-Z0-9](?:[A-Z0-9._%+'-]{{0,63}})\s?{AT}\s?[A-Z0-9-]{{1,63}}(?:{DOT}[A-Z0-9-]{{2,63}})+"),
    rule("iban", rf"{EDGE}[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{END}",
         lambda w: iban(compact(w))),
    rule("id", rf"{EDGE}\d{{6}} ?\d{{4}} ?\d{{4}} ?\d{{3}}[\dXx]{END}", lambda w: identity_card(compact(w))),
    rule("id", rf"{EDGE}\d{{6}} ?\d{{8}} ?\d{{3}}[\dXx]{END}", lambda w: identity_card(compact(w))),
    rule("card", rf"{EDGE}\d(?:[ .-]?\d){{14,18}}{END}", lambda w: card(compact(w))),
    rule("phone", rf"(?:(?<![A-Za-z0-9+])(?:\+|00)86[ -]?|{EDGE})1[3-9]\d{GAP}\d{{4}}{GAP}\d{{4}}{END}"),
    rule("phone", r"(?<![A-Za-z0-9])\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,5}(?![A-Za-z0-9])",
         lambda w: 8 <= len(compact(w).lstrip("+")) <= 15),
    rule("phone", rf"{EDGE}(?:\(0\d{{2,3}}\)|0\d{{2,3}})[ -]?[2-9]\d{{2,3}}[ -]?\d{{4}}{EXTENSION}{END}"),
    rule("phone", rf"{EDGE}0[47]\d{{2,3}}[ -]?\d{{3}}[ -]?\d{{3}}{END}"),
    rule("phone", rf"{EDGE}(?:1[ .-])?(?:\(\d{{3}}\) ?|\d{{3}}[.-])\d{{3}}[ .-]\d{{4}}{END}"),
    rule("phone", rf"{PHONE_WORD}\D{{0,12}}(?P<value>(?<!\d)\d(?:[ .-]?\d){{9,11}}){END}"),
    rule("phone", rf"(?<![{HAN}])[一幺][三四五六七八九][{HAN}]{{9}}(?![{HAN}])"),  # spoken; an order has six digits
    rule("phone", rf"\b(?:{SPOKEN})(?:[ -](?:{SPOKEN})){{8,12}}\b"),
    rule("id", rf"{EDGE}\d{{3}}-\d{{2}}-\d{{4}}{END}"),
    rule("id", rf"\b(?:ssn|social security){BETWEEN}(?P<value>\d{{3}}[ -]?\d{{2}}[ -]?\d{{4}}){END}"),
    rule("id", rf"{EDGE}(?:[A-CEGHJ-PR-TW-Z]{{2}}|QQ) ?\d{{2}} ?\d{{2}} ?\d{{2}} ?[A-D]{END}"),  # national insurance
    rule("passport", rf"(?:passport|护照|通行证){BETWEEN}(?P<value>[A-Z]{{0,2}} ?\d{{6,9}}){END}"),
)  # fmt: skip


def apply(each: Rule, text: str, found: Counter[str]) -> str:
    """The text with one rule's finds masked; counts them."""
    pieces, start = [], 0
    for match in each.form.finditer(text.translate(FULL_WIDTH)):
        begin, end = match.span("value" if "value" in each.form.groupindex else 0)
        if each.check(match.string[begin:end]):
            pieces += [text[start:begin], f"[{each.kind}]"]
            start = end
            found[each.kind] += 1
    return "".join([*pieces, text[start:]])


def mask_pii(text: str) -> Masked:
    """Replace personal data by its kind in brackets: [phone], [id], [card], [email], [iban], [passport].

    Full-width digits count as digits. Masking a masked text changes nothing.
    """
    found: Counter[str] = Counter()
    for each in RULES:
        text = apply(each, text, found)
    return Masked(text, tuple(found.items()))


class PiiFilter(logging.Filter):
    """Masks every record that passes: add it to a handler, so that records of every logger go through it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """The message with its arguments becomes one masked text; so does a traceback."""
        record.msg, record.args = mask_pii(record.getMessage()).text, None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = mask_pii(record.exc_text).text
        return True
