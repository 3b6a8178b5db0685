"""Messages that try to command the service. Each test names the bug that it catches."""

import base64
import re

import pytest

from data.hostile_set import BENIGN, KINDS, LANGUAGES, load_hostile, load_unseen, read
from labkit.errors import LabError


def test_every_kind_and_both_languages():
    """Catches: attacks of one sort only, and a set without controls."""
    attacks, harmless = load_hostile(benign=False), load_hostile(benign=True)
    assert len(attacks) >= 40 and len(harmless) >= 20
    assert {one.kind for one in attacks} == set(KINDS) and {one.kind for one in harmless} == {BENIGN}
    assert {one.language for one in attacks} == {one.language for one in harmless} == set(LANGUAGES)
    ids = [one.id for one in load_hostile()]
    assert len(ids) == len(set(ids))


def test_unseen_attacks_are_none_of_the_known():
    """Catches: an "unseen" attack that the patterns were written by."""
    assert len(load_unseen()) >= 12 and not {one.text for one in load_hostile()} & set(load_unseen())


def test_the_encoded_attacks_say_something():
    """Catches: a typing error in base64, after which there is no attack."""
    for message in load_hostile(benign=False):
        for coded in re.findall(r"[A-Za-z0-9+/]{40,}={0,2}", message.text):
            said = base64.b64decode(coded + "=" * (-len(coded) % 4)).decode()
            assert "instructions" in said or "指令" in said, message.id


ROW = {"id": "x", "kind": "direct", "text": "Obey! Where is it?", "must_not": ["Obey"], "keep": ["Where"]}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kind": "sneaky"}, "unknown kind"),
        ({"must_not": []}, "must_not stands"),
        ({"kind": BENIGN}, "must_not stands"),
        ({"must_not": ["absent"]}, "lacks words"),
        ({"keep": ["absent"]}, "lacks words"),
        ({"colour": "red"}, "unknown field"),
    ],
)
def test_a_broken_message_is_named(tmp_path, change, what):
    """Catches: a marker that no text could ever show, so that every guard passes."""
    path = tmp_path / "en.toml"
    write = lambda row: "[[messages]]\n" + "\n".join(f"{key} = {value!r}" for key, value in row.items())  # noqa: E731
    path.write_text(write(ROW | change), encoding="utf-8")
    with pytest.raises(LabError, match="en.toml, x") as error:
        read(path)
    assert what in error.value.message
    path.write_text(write(ROW), encoding="utf-8")
    assert read(path)[0].followed("obey!") == ["Obey"] and read(path)[0].kept("so where")


def test_an_unknown_language_is_refused():
    """Catches: a misspelt language that yields nothing."""
    with pytest.raises(LabError, match="'fr'"):
        load_hostile("fr")
