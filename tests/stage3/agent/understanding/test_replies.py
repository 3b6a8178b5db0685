"""Each test names the bug that it catches."""

import time
import tomllib
from pathlib import Path

import pytest

import stage3_agents_llmops.agent.understanding as package
from stage3_agents_llmops.agent.understanding import reply_kind

LISTS = tomllib.loads((Path(package.__file__).parent / "labelled" / "replies.toml").read_text(encoding="utf-8"))
REPLIES = [(text, kind) for kinds in LISTS.values() for kind, texts in kinds.items() for text in texts]


def test_there_are_enough_of_every_kind():
    """Catches: a set of yeses."""
    assert set(LISTS) == {"en", "zh"}
    assert all(len(texts) >= 20 for kinds in LISTS.values() for texts in kinds.values())


@pytest.mark.parametrize(("text", "kind"), REPLIES)
def test_labelled_replies(text, kind):
    """Catches: a yes with a condition that writes, and a plain yes that is asked again."""
    assert reply_kind(text) == kind


@pytest.mark.parametrize("text", [text for text, kind in REPLIES if kind == "yes" and text.isascii()])
def test_a_yes_with_something_after_it_is_no_yes(text):
    """Catches: a reader that is content with the first word."""
    for more in (" but not today", " if it is free", " and what about the kettle", "?", " unless you object", " no"):
        assert reply_kind(text.rstrip(".!") + more) == "other"


@pytest.mark.parametrize(
    "text", ["好的" * 45, "不要了" * 30, "yes please ok " * 7, "嗯" * 98, "好的吧了的呢嘛啊" * 12, "h" * 98, "😀" * 500]
)
def test_a_long_row_of_answers_takes_no_time(text):
    """Catches: an expression that tries every way to cut "好的好的好的"."""
    began = time.monotonic()
    reply_kind(text + "x")
    assert time.monotonic() - began < 2
