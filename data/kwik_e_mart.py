"""mindmeld's example shop, Kwik-E-Mart: what customers type, with the intent and the entities marked by its authors.

    When does the {Elm Street|store_name} store close?    (in get_store_hours/train.txt)

The package's own test files are the test split, but its training files hold 63 of the 133 test utterances word for
word. So every text counts once, and what is in test is in neither train nor validation: letters and digits are
compared, so that "How are you?" is "how are you". transfer_money has no test file; every fourth of its lines is test.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ENTITIES = {  # mindmeld's entity type and role -> slot
    "store_name": "store_name",
    "sys_time": "time",
    "sys_amount-of-money": "amount",
    "account_type|origin": "origin_account",
    "account_type|dest": "destination_account",
}
MARK = re.compile(r"\{(?P<value>[^{}|]+)\|(?P<entity>[^{}]+)\}")
TEST_EVERY = 4  # of an intent without a test file
VALIDATE_EVERY = 10


@dataclass(frozen=True)
class Line:
    """One line of a file: its text without marks, its intent, and its slots."""

    text: str
    intent: str
    slots: Mapping[str, str]


def parse_line(line: str, intent: str) -> Line | None:
    """A marked line; None where it is empty or has two values for one slot (8 lines of the package).

    Raises:
        ValueError: an entity that is not in ENTITIES.
    """
    line = " ".join(unicodedata.normalize("NFKC", line).split())  # the files have non-breaking spaces
    entities = [match["entity"] for match in MARK.finditer(line)]
    if unknown := [entity for entity in entities if entity not in ENTITIES]:
        raise ValueError(f"unknown entity {unknown[0]}: {line}")
    if not line or len(set(entities)) < len(entities):
        return None
    values = {ENTITIES[match["entity"]]: match["value"] for match in MARK.finditer(line)}
    slots = {slot: values[slot] for slot in ENTITIES.values() if slot in values}
    return Line(MARK.sub(lambda match: match["value"], line), intent, slots)


def same_text(text: str) -> str:
    """What two texts are compared by: letters and digits, in lower case."""
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def read_lines(folder: Path, name: str) -> Iterator[Line]:
    """Every line of all files of that name, intents in alphabetical order."""
    for path in sorted(folder.glob(f"*/*/{name}.txt"), key=lambda path: path.parent.name):
        for line in path.read_text(encoding="utf-8").splitlines():
            if parsed := parse_line(line, path.parent.name):
                yield parsed


def split_lines(folder: Path) -> dict[str, list[Line]]:
    """Split -> its lines, no text twice (`same_text`). Always the same: nothing is drawn."""
    test = {same_text(line.text): line for line in read_lines(folder, "test")}
    rest = {same_text(line.text): line for line in read_lines(folder, "train")}
    rest = {key: line for key, line in rest.items() if key not in test}
    untested = {line.intent for line in rest.values()} - {line.intent for line in test.values()}
    moved = [key for key, line in rest.items() if line.intent in untested][::TEST_EVERY]
    test |= {key: rest.pop(key) for key in moved}
    kept = list(rest.values())
    return {
        "train": [line for number, line in enumerate(kept) if number % VALIDATE_EVERY],
        "validation": kept[::VALIDATE_EVERY],
        "test": list(test.values()),
    }


def leaked_test_lines(folder: Path) -> tuple[int, int]:
    """How many of the package's test utterances are in its training files, letter case aside, and of how many."""
    train = {line.text.casefold() for line in read_lines(folder, "train")}
    test = [line.text.casefold() for line in read_lines(folder, "test")]
    return sum(text in train for text in test), len(test)
