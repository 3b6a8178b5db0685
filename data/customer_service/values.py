"""What the frames are filled with: hand-written lists (values.toml) and order numbers in many spellings.

The test split draws half of its products, addresses, dates and amounts from lists that no other split sees, training
has products of its own, and no order number occurs in two splits.
"""

import tomllib
from functools import cache
from pathlib import Path
from random import Random

from data.customer_service.frames import Voice

PREFIXES = {
    "train": ["KM", "LT", "RX", "BQ", "HV", "NP", "WD"],
    "validation": ["KM", "LT", "CS"],
    "test": ["RX", "NP", "GJ", "UF"],
}
DIGITS = {"train": "01346", "validation": "25", "test": "789"}  # of the first digit: no number is in two splits
WORDS = {
    "en": ["oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "zh": ["零", "幺", "二", "三", "四", "五", "六", "七", "八", "九"],
}
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


@cache
def lists() -> dict[str, dict[str, dict[str, list[str]]]]:
    """Language -> list name -> {"common": [...], "test": [...]}, and "train" where training has its own."""
    return tomllib.loads(Path(__file__).with_name("values.toml").read_text(encoding="utf-8"))


def order_id(split: str, style: str, language: str, rng: Random) -> str:
    """An order number as someone writes it; the shop's own form is `KM204817` (`normalise.py`)."""
    letters = rng.choice(PREFIXES[split])
    digits = rng.choice(DIGITS[split]) + "".join(rng.choices("0123456789", k=5))
    if style == "spoken":
        glue = " " if language == "en" else ""
        words = glue.join(WORDS[language][int(digit)] for digit in digits)
        return f"{' '.join(letters.lower() if language == 'en' else letters)} {words}"
    return {
        "plain": letters + digits,
        "lower": (letters + digits).lower(),
        "spaced": f"{letters} {digits[:3]} {digits[3:]}",
        "gap": f"{letters} {digits}",
        "dashed": f"{letters}-{digits}",
        "full_width": (letters + digits).translate(FULL_WIDTH),
        "no_letters": digits,  # from here on not valid order numbers: what customers really type
        "too_short": letters + digits[:5],
        "too_long": letters + digits + digits[-1],
        "letter_o": letters + digits[:2] + "O" + digits[3:],
    }[style]


def draw(kind: str, voice: Voice, count: int, rng: Random) -> list[str]:
    """`count` different values for a voice.

    Raises:
        ValueError: no such list, or it is too short.
    """
    values = []
    if kind == "order_id":
        while len(values) < count:
            value = order_id(voice.split, rng.choice(voice.order_id), voice.language, rng)
            values += [value] if value not in values else []
    else:
        known = lists()[voice.language]
        names = [f"{kind}_{style}" for style in voice.amount] if kind == "amount" else [kind]
        if not set(names) <= set(known):
            raise ValueError(f"values.toml has no {names} for {voice.language}")
        common = [value for name in names for value in known[name]["common"]]
        if voice.split == "train":
            common += [value for name in names for value in known[name].get("train", ())]
        unseen = [value for name in names for value in known[name]["test"]] if voice.split == "test" else []
        half = (count + rng.randint(0, 1)) // 2 if unseen else 0
        values = rng.sample(common, count - half) + rng.sample(unseen, half)
        rng.shuffle(values)
    change = {"as_is": str, "lower": str.lower, "upper": str.upper}[voice.case]
    return [change(value) for value in values]
