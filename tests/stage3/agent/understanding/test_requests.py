"""Each test names the bug that it catches."""

import time
import tomllib
from pathlib import Path

import pytest

import data
import stage3_agents_llmops.agent.understanding as package
from stage3_agents_llmops.agent.understanding import split_requests

FILE = Path(package.__file__).parent / "labelled" / "requests.toml"
MESSAGES = tomllib.loads(FILE.read_text(encoding="utf-8"))["messages"]


def right(pieces, parts):
    return len(pieces) == len(parts) and all(p.lower() in piece.lower() for p, piece in zip(parts, pieces, strict=True))


def test_labelled_messages():
    """Catches: a second wish that is lost, and one wish that is handled twice; three of the set may be."""
    wrong = [message["text"] for message in MESSAGES if not right(split_requests(message["text"]), message["parts"])]
    assert len(MESSAGES) >= 60 and len(wrong) <= 3, wrong


def test_not_cutting_and_cutting_everywhere_fail_the_set():
    """Catches: a set on which doing nothing is good enough."""
    for cut in (lambda text: [text], lambda text: [one for one in text.replace("，", ",").split(",") if one]):
        assert sum(not right(cut(message["text"]), message["parts"]) for message in MESSAGES) > 20


def test_the_example_of_the_module():
    """Catches: "and", "also" left in the pieces."""
    text = "cancel KM204817 and where is my lamp? also an invoice please"
    assert split_requests(text) == ["cancel KM204817", "where is my lamp?", "an invoice please"]


def test_one_wish_stays_one():
    """Catches: reasons and stories that are cut off. Some utterances do hold a second wish (2 in 100)."""
    for name in ("en", "zh"):
        items = data.load_understanding(f"customer-service-{name}", "train")
        assert sum(len(split_requests(item.text)) > 1 for item in items) < 0.04 * len(items)


def test_nothing_is_lost_but_the_glue():
    """Catches: an order number that falls between two pieces."""
    for message in MESSAGES:
        joined = "".join(split_requests(message["text"]))
        digits = [letter for letter in message["text"] if letter.isdigit()]
        assert [letter for letter in joined if letter.isdigit()] == digits


@pytest.mark.parametrize("text", ["", "   ", "?", "😀", "。。。"])
def test_nothing_to_do_is_at_most_one(text):
    """Catches: a crash on nothing."""
    assert len(split_requests(text)) <= 1


def test_a_long_message_takes_no_time():
    """Catches: an expression that takes for ever."""
    began = time.monotonic()
    for text in ("cancel " * 5000, "取消" * 5000, "a," * 5000, "where is my " * 2000):
        split_requests(text)
    assert time.monotonic() - began < 10
