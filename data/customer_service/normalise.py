"""Order numbers as people write them -> the shop's own form, `KM204817`.

    order_number("km 204 817")  order_number("k m two oh four eight one seven")  order_number("ＫＭ２０４８１７")

The label holds what the customer wrote; this is what the shop looks up. None says: ask again.
"""

import re
import unicodedata

from data.customer_service.values import WORDS

DIGITS = {word: str(digit) for words in WORDS.values() for digit, word in enumerate(words)}
DIGITS |= {"zero": "0", "〇": "0", "一": "1"}
FORM = re.compile(r"[A-Z]{2}\d{6}")


def order_number(written: str) -> str | None:
    """Two letters and six digits, or None where that is not what was written."""
    text = unicodedata.normalize("NFKC", written).casefold()
    words = re.findall(r"[a-z]+|\d+|[^\W\d_a-z]", text)  # Chinese digits stand without spaces
    joined = "".join(DIGITS.get(word, word) for word in words).upper()
    joined = joined[:2] + joined[2:].replace("O", "0")
    return joined if FORM.fullmatch(joined) else None
