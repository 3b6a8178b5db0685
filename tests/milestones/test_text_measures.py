"""The measures of month 1, against brute force and by hand."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milestones.control_texts import MarkovWriter, copying_writer, repeating_writer, shuffled_text
from milestones.drawn_samples import sample_rows, softmax
from milestones.held_out_bits import cut_windows
from milestones.ngram_model import NgramModel
from milestones.text_coherence import Units, distinct_share, known_share, units_of, vocabulary_of
from milestones.verbatim_copy import VerbatimIndex

WORDS, CHARACTERS = Units("words"), Units("characters")
LETTERS = st.text(alphabet="ab\n", max_size=30)


@given(LETTERS, st.lists(LETTERS, max_size=3))
def test_longest_copy_equals_brute_force(corpus: str, texts: list[str]) -> None:
    """Catches: an off-by-one in the windows or in the bisection, a copy found across two texts."""
    runs = (t[i:j] for t in texts for i in range(len(t)) for j in range(i + 1, len(t) + 1))
    longest = max((len(run) for run in runs if run in corpus), default=0)
    found = VerbatimIndex(corpus).longest(texts)
    assert found.length == longest == len(found.text)
    assert found.text in corpus


@given(LETTERS, st.lists(LETTERS, min_size=1, max_size=3), st.integers(1, 6))
def test_copied_share_equals_brute_force(corpus: str, texts: list[str], length: int) -> None:
    """Catches: overlapping copies counted twice, the end of a copied run not counted."""
    copied = 0
    for text in texts:
        inside = set()
        for i in range(len(text) - length + 1):
            if text[i : i + length] in corpus:
                inside.update(range(i, i + length))
        copied += len(inside)
    share = VerbatimIndex(corpus).copied_share(texts, length)
    assert share == pytest.approx(copied / max(1, sum(map(len, texts))))


def test_chinese_is_counted_in_characters() -> None:
    """Catches: a novel without spaces taken for one long word."""
    text = "话说天下大势，分久必合，合久必分。"
    assert units_of(text) == CHARACTERS and units_of("to be or not to be") == WORDS
    assert CHARACTERS.words(text, 2)[:4] == ["话说", "说天", "天下", "下大"]
    assert "势分" not in CHARACTERS.words(text, 2)  # not across a comma


def test_known_and_distinct_shares_by_hand() -> None:
    """Catches: short words counted, case taken for novelty, n-grams across texts, no words that pass."""
    vocabulary = vocabulary_of(["Speak, citizens! we know't"], WORDS, 4)
    assert vocabulary == {"speak", "citizens", "know't"}
    assert known_share(["SPEAK we know't", "frowlds"], vocabulary, WORDS, 4) == pytest.approx(2 / 3)
    assert known_share(["..."], vocabulary, WORDS, 4) == 0
    assert distinct_share(["a b a b", "a b"], WORDS, 2) == pytest.approx(2 / 4)
    assert distinct_share([""], WORDS, 4) == 0


def test_shuffling_keeps_words_and_lines() -> None:
    """Catches: a shuffle that loses words, which would move the scale's 1."""
    text = "KING:\nto be or not to be\n\nthat is the question\n"
    shuffled = shuffled_text(text, WORDS, random.Random(1))
    assert shuffled != text
    assert sorted(shuffled.split()) == sorted(text.split())
    assert [len(line.split()) for line in shuffled.split("\n")] == [
        len(line.split()) for line in text.split("\n")
    ]
    chinese = shuffled_text("分久必合，\n合久必分。", CHARACTERS, random.Random(1))
    assert sorted(chinese) == sorted("分久必合，\n合久必分。") and chinese.index("\n") == 5


def test_writers_write_what_they_say() -> None:
    """Catches: controls that are weaker than their name, so that a threshold looks better than it is."""
    rng = random.Random(1)
    text = "the cat sat on the mat and the rat ran at the cat\n" * 20
    written = MarkovWriter(text, 3)(rng, 200)
    assert len(written) == 200
    assert all(written[i : i + 4] in text + text for i in range(197))
    assert copying_writer(text)(rng, 100) in text
    stitched = copying_writer(text, 10)(rng, 95)
    assert len(stitched) == 95 and all(stitched[i : i + 10] in text for i in range(0, 80, 10))
    assert repeating_writer("ab ")(rng, 7) == "ab ab a"


def test_ngram_model_is_a_distribution_and_learns() -> None:
    """Catches: probabilities that do not add up, which would make the baseline too strong or too weak."""
    text = "abracadabra " * 50
    model = NgramModel(text, 4)
    for past in ("", "a", "abr", "zzz"):
        total = sum(model.probability(past, c) for c in set(text)) + model.probability(past, "unknown")
        assert total == pytest.approx(1)
    assert (
        model.bits_per_character([("abra", "cadabra")])
        < 0.2
        < NgramModel(text, 1).bits_per_character([("", "ab")])
    )


def test_rows_are_drawn_by_their_probabilities() -> None:
    """Catches: a draw that ignores the temperature, prefers an end, or repeats one number for all rows."""
    logits = np.log(np.array([[0.7, 0.2, 0.1]])).repeat(20_000, axis=0)
    drawn = sample_rows(softmax(logits), np.random.default_rng(1))
    assert np.bincount(drawn) / 20_000 == pytest.approx([0.7, 0.2, 0.1], abs=0.015)  # four standard errors
    sure = sample_rows(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]), np.random.default_rng(1))
    assert sure.tolist() == [2, 0]


@given(
    st.integers(1, 12), st.lists(st.tuples(st.integers(12, 20), st.integers(1, 30)), min_size=1, max_size=3)
)
def test_every_token_is_scored_once_with_half_a_context(length: int, sizes: list[tuple[int, int]]) -> None:
    """Catches: the last tokens of a passage left out, tokens scored twice or with hardly any past."""
    ids, wanted = [], []
    for passage, (before, count) in enumerate(sizes):
        numbers = [1000 * passage + i for i in range(before + count)]
        ids += [numbers[:before], numbers[before:]]
        wanted += numbers[before:]
    windows, counts = cut_windows(ids, length)
    assert windows.shape[1] == length + 1
    assert [i for window, count in zip(windows, counts, strict=True) for i in window[-count:]] == wanted
    assert counts.max() <= max(1, length // 2)
    assert all((np.diff(window) == 1).all() for window in windows)
