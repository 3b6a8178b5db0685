"""The pairs with and without an answer, and the parables. Each test names the bug that it catches."""

import json

import pytest

import data
from data.answerability import read_parables, read_unsolvable


def write_rows(path, rows):
    lines = [json.dumps({"input": [{}, {"content": content}], "ideal": ideal}) for content, ideal in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_labels_and_line_breaks(tmp_path):
    """Catches: labels swapped; a context cut at its first line break."""
    rows = [("Question: Who?\n Context: Ada.\nAnd more.", "Solveable"), ("Question: Why?\n Context: x", "Unsolveable")]
    loaded = read_unsolvable(write_rows(tmp_path / "samples.jsonl", rows))
    assert loaded.answerable == [True, False]
    assert loaded.questions == ["Who?", "Why?"] and loaded.contexts == ["Ada.\nAnd more.", "x"]


@pytest.mark.parametrize(("letter", "moral"), [("A", "Look first."), ("C", "Never (A) boast."), ("E", "Wait.")])
def test_the_right_moral_is_read(tmp_path, letter, moral):
    """Catches: the wrong one of five morals, the next option's text in it, the prompt's end in the last one."""
    options = {"A": "Look first.", "B": "Run.", "C": "Never (A) boast.", "D": "Sleep.", "E": "Wait."}
    text = " ".join(f"{key}) {value}" for key, value in options.items())
    content = f"A fox.\nIt ran.\nWhich moral is this?\n{text}\nThe output should look like E) x. is: A"
    path = write_rows(tmp_path / "p.jsonl", [(content, [f"The final answer is: {letter}"])])
    loaded = read_parables(path, "parables-en", "en")
    assert loaded.corpus == {"story-0": "A fox.\nIt ran."} and loaded.queries == {"moral-0": moral}
    assert loaded.qrels == {"moral-0": {"story-0": 1}} and not loaded.canary


@pytest.mark.assets
def test_the_packaged_sets():
    """Catches: a pair of the package that the patterns do not fit."""
    pairs = data.load_answerability()
    assert (len(pairs.questions), sum(pairs.answerable)) == (300, 150)
    assert all(pairs.contexts) and not [text for text in pairs.questions if "Context:" in text]
    for language, stories in (("en", 1628), ("zh", 1930)):
        parables = data.load_parables(language)
        assert len(parables.corpus) == stories
        assert not [text for text in parables.queries.values() if "E) " in text or "output should" in text]
