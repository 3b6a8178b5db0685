"""English or Chinese: in which language is the customer to be answered?"""

import re

CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")
ORDER_NUMBER = re.compile(r"\b[A-Za-z]{2}[ -]?\d[\d ]*")
CHARACTERS_PER_WORD = 1.7  # of Chinese: the mean length of a word in running text


def language_of(text: str) -> str:
    """The language that most of a message is in: "zh" or "en".

    A Chinese word is about 1.7 characters, an English one a run of letters; order numbers count for neither. Without
    any word (only digits or emoji) it is English.
    """
    text = ORDER_NUMBER.sub(" ", text)
    chinese = len(CHINESE.findall(text)) / CHARACTERS_PER_WORD
    return "zh" if chinese and chinese >= len(WORD.findall(text)) else "en"
