"""The corpora as labs read them. Each test names the bug that it catches."""

import re

import pytest

import data
from data.texts import play_text
from labkit.errors import LabError

PLAY = """# Hamlet

## ACT I

_Enter BERNARDO and
FRANCISCO_

**BERNARDO**  
Who’s there?  
\\--_\\[Aside]_ speak—

_Flourish_

& c. and so on.

**Ghost**  
_\\[Beneath]_

**HAMLET**
__\\[Reads]_  
A “word”.

Ghosts

**of Princes: & KINGS:**  
Dream on.

**FORD**  
[Aside]_  
Well.

_Burthen _\\[dispersedly, within_
"""  # noqa: W291 - two spaces at the end of a line are Markdown's line break


def test_play_markdown_becomes_speeches():
    """Catches: directions left in, also broken ones; speech after one lost; a speaker without words."""
    assert play_text(PLAY).split("\n\n") == [
        "BERNARDO:\nWho's there?\n-- speak--\n&c. and so on.",
        'HAMLET:\nA "word".',
        "Ghosts of Princes & KINGS:\nDream on.",
        "FORD:\nWell.\n",
    ]


def test_tiny_shakespeare_is_the_pinned_corpus():
    """Catches: another order, length or form than the course's numbers were measured on."""
    text = data.load_text("tiny-shakespeare")
    assert len(text) == 1_115_394 and len(text.encode("ascii")) == len(text)
    assert text.startswith(
        "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\nFirst"
    )
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert "".join(sorted(set(text))) == "\n !$&',-.:;?" + letters
    # the nine plays follow each other; each is known by a line of its first speech
    openings = ["Before we proceed", "Now is the winter", "Old John of Gaunt", "Gregory, o' my word"]
    openings += [
        "I wonder how the king",
        "If you shall chance, Camillo",
        "Escalus",
        "I'll pheeze you",
        "Boatswain!",
    ]
    places = [text.index(words) for words in openings]
    assert places == sorted(places) and places[-1] > 1_000_000


@pytest.mark.parametrize(("name", "least"), [("tiny-shakespeare", 6_000), ("shakespeare", 30_000)])
def test_every_speech_has_a_speaker_and_words(name, least):
    """Catches: Markdown left over, empty speeches, a direction that swallowed the rest of a play."""
    text = data.load_text(name)
    assert not re.search(r"[_*#\[\]\\\t]|  | \n|\n\n\n", text)
    speeches = text.strip().split("\n\n")
    assert len(speeches) > least
    assert [s for s in speeches if not re.match(r"[A-Z][A-Za-z'&., -]*:\n\S", s)] == []
    assert max(map(len, text.splitlines())) < 120


def test_all_plays_are_in_shakespeare():
    """Catches: a play lost, or plays in an order that depends on the file system."""
    text = data.load_text("shakespeare")
    openings = [
        "Now, fair Hippolyta",
        "As I remember, Adam",
        "Two households",
        "Who's there?",
        "When shall we three",
    ]
    assert all(words in text for words in openings)
    assert text.startswith("THESEUS:\nNow, fair Hippolyta") and len(text) > 4_700_000


def test_sanguo_has_120_chapters():
    """Catches: chapters lost, tabs and web addresses left in, another encoding."""
    text = data.load_text("sanguo")
    chapters = text.strip().split("\n\n")
    assert len(chapters) == 120 and all(re.match(r"第\S{1,5}回", chapter) for chapter in chapters)
    assert "滚滚长江东逝水" in chapters[0] and not re.search(r"[\t ]|www|\n\n\n", text)


def test_splits():
    """Catches: a split asked for where there is none and silently ignored."""
    with pytest.raises(LabError, match="in one piece"):
        data.load_text("sanguo", split="test")
    assert "wikitext-2" in data.text_names() and "all-minilm-l6-v2" not in data.text_names()
