"""Yes, no, or something else: the answer to "shall I cancel the order?".

What may be written down after a yes is money. So a yes is only what consists of nothing but a yes, and everything with
a condition, a question or a new wish is "other": nothing is done, and the new wish is read as a request. The words are
in reply_words.toml; labelled/replies.toml measures them.
"""

import re
import tomllib
import unicodedata
from functools import cache
from pathlib import Path

WORDS = Path(__file__).with_name("reply_words.toml")
EDGE = frozenset(" \t\n,.!;:~…、'\"“”()-。")  # after NFKC; what may stand between words
THUMBS = {"👍": "yes", "👌": "yes", "✅": "yes", "🆗": "yes", "👎": "no", "❌": "no", "🙅": "no"}
DECORATION = "🙏😊🙂😀😅🥲❤️🌸"
NUMBER = r"#?[a-z]{2}[ -]?\d{3} ?\d{3}"
LONGEST = 100  # characters of a plain answer


LONGEST_WORD = 48


@cache
def words() -> dict[str, dict[str, re.Pattern[str]]]:
    """Language -> "yes", "no", "filler" -> what counts as one."""
    lists = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    return {
        language: {kind: re.compile("|".join(forms).replace("{number}", NUMBER)) for kind, forms in kinds.items()}
        for language, kinds in lists.items()
    }


def only(kind: str, forms: dict[str, re.Pattern[str]], text: str) -> bool:
    """Whether the text is answers of one kind and fillers, with at least one answer, and nothing else.

    One big expression with a star would try every way to cut "好的好的好的" and take for ever; here each place of the
    text is reached once without an answer before it, and once with one.
    """
    reached = {(0, False)}
    for start in range(len(text)):
        for answered in {state[1] for state in reached if state[0] == start}:
            if text[start] in EDGE:
                reached.add((start + 1, answered))
            for end in range(start + 1, min(len(text), start + LONGEST_WORD) + 1):
                if text[end - 1 : end + 1].isascii() and text[end - 1 : end + 1].isalnum() and end < len(text):
                    continue  # in the middle of a word
                if forms[kind].fullmatch(text, start, end):
                    reached.add((end, True))
                elif forms["filler"].fullmatch(text, start, end):
                    reached.add((end, answered))
    return (len(text), True) in reached


# exercise: agent.reply_kind
def reply_kind(text: str) -> str:
    """The answer to a confirmation: "yes", "no" or "other".

    Both languages are tried, because people answer "ok" in Chinese and "好的" in English chats. A text that reads as
    both ("yes no"), a question ("yes?"), a condition ("yes, but") and an empty one are "other". A thumb alone counts.
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'").casefold().strip()
    text = "".join(letter for letter in text if not "\U0001f3fb" <= letter <= "\U0001f3ff" and letter != "\ufe0f")
    thumbs = {THUMBS[letter] for letter in text if letter in THUMBS}
    plain = "".join(letter for letter in text if letter not in THUMBS and letter not in DECORATION).strip()
    if len(plain) > LONGEST or "?" in plain:
        return "other"
    said = {kind for kind in ("yes", "no") for forms in words().values() if only(kind, forms, plain)}
    if not plain.strip(" .!~"):
        said = set(thumbs)
    return said.pop() if len(said) == 1 and thumbs <= said else "other"
# end exercise
