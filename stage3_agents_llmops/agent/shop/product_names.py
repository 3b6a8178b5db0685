"""Does what a customer calls a thing fit a product's name? "the blutooth speekers" fits "bluetooth speaker".

English is compared by words, each of which may have a typing error; Chinese, written without spaces, by characters.
"""

import re
import unicodedata
from difflib import SequenceMatcher
from functools import lru_cache

STOP = {"the", "a", "an", "my", "our", "your", "this", "that", "new", "one", "some", "of", "for", "from"}
CHINESE = re.compile(r"[\u3400-\u9fff]")
TYPO = 0.8  # ratio of equal characters from which two words count as one


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[str, ...]:
    """English words without articles and plural s, or the Chinese characters together as one."""
    text = unicodedata.normalize("NFKC", text).casefold()
    if CHINESE.search(text):
        return ("".join(re.findall(r"[\u3400-\u9fffa-z0-9]", text)),)
    found = [word for word in re.findall(r"[a-z0-9]+", text) if word not in STOP]
    return tuple(word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word for word in found)


def similarity(said: str, name: str) -> float:
    """Between 0 and 1; 1 where the words are the same. A part of the name ("lamp" of "desk lamp") is worth less."""
    said_words, name_words = words(said), words(name)
    if not said_words or not name_words or not all(said_words) or not all(name_words):
        return 0.0
    if bool(CHINESE.search(said)) != bool(CHINESE.search(name)):
        return 0.0
    if CHINESE.search(said):
        return chinese_similarity(said_words[0], name_words[0])
    left = list(name_words)
    matched = 0.0
    for word in said_words:
        ratio, best = max(((closeness(word, other), other) for other in left), default=(0.0, ""))
        if ratio >= TYPO:
            matched += ratio
            left.remove(best)
    return 2 * matched / (len(said_words) + len(name_words))


def closeness(first: str, second: str) -> float:
    return 1.0 if first == second else SequenceMatcher(None, first, second, autojunk=False).ratio()


def chinese_similarity(said: str, name: str) -> float:
    """Equal characters in order, of both; a name inside a longer phrase ("我的那个台灯") fits nearly as well."""
    if name in said and len(name) > 1:
        return 1.0 if name == said else 0.95
    return SequenceMatcher(None, said, name, autojunk=False).ratio()
