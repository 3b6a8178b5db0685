"""Each test names the bug that it catches."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stage1_foundations.first_rag.words import (
    WordWeights,
    best_sentence,
    cut_sentences,
    key_words,
    split_sentences,
    split_words,
)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("aB1.!?。！ \n\"')(“”，"), max_size=60))
def test_pieces_put_together_are_the_text(text):
    """Catches: a cutter that loses characters, so that the splitter loses text of the document."""
    assert "".join(cut_sentences(text)) == text


def test_sentences_end_where_a_reader_would_end_them():
    """Catches: a cut inside 3.5 or e.g., one sentence for a Chinese paragraph, a heading glued to the text below it."""
    text = 'Heading\n\nIt costs 3.5 dollars, e.g. here. "Really?" He paid.'
    assert split_sentences(text) == ["Heading", "It costs 3.5 dollars, e.g. here.", '"Really?"', "He paid."]
    assert split_sentences("猫坐着。狗跑了！为什么？") == ["猫坐着。", "狗跑了！", "为什么？"]


def test_words():
    """Catches: "Files" and "file" taken for two words, "class" cut to "clas", Chinese as one long word."""
    assert split_words("Files, file: class's GLASS_2") == ["file", "file", "class", "s", "glass_2"]
    assert split_words("猫sat") == ["猫", "sat"]


def test_key_words_of_asking_are_left_out():
    """Catches: coverage that counts "what does", or a question of such words alone without any word."""
    assert key_words("What does the kettle hold?") == {"kettle", "hold"}
    assert key_words("What is it?") == {"what", "is", "it"}


def test_weight_is_bm25s_idf():
    """Catches: another logarithm, document frequency counted by occurrences."""
    weights = WordWeights(["fan fan fan", "fan lamp", "kettle"])
    assert weights.weight("fan") == pytest.approx(math.log(1 + (3 - 2 + 0.5) / (2 + 0.5)))
    assert weights.weight("unknown") == pytest.approx(math.log(1 + 3.5 / 0.5))


def test_coverage_by_hand():
    """Catches: words that count twice, unweighted shares, a question without words that divides by zero."""
    weights = WordWeights(["red lamp", "red fan", "red clock"])
    red, lamp = weights.weight("red"), weights.weight("lamp")
    assert weights.coverage("the red lamp", "a red, red fan") == pytest.approx(red / (red + lamp))
    assert weights.coverage("lamp lamp red", "lamp") == pytest.approx(lamp / (red + lamp))
    assert weights.coverage("red lamps", "The lamp is red") == 1.0
    assert weights.coverage("?!", "text") == 0.0


def test_best_sentence_prefers_the_earlier_text():
    """Catches: ties that fall to the last text, against the retriever's order."""
    texts = ["It is here. The lamp glows.", "The lamp glows."]
    weights = WordWeights(texts)
    assert best_sentence("does the lamp glow", texts, weights) == (0, "The lamp glows.")


def test_best_sentence_leaves_headings_aside():
    """Catches: the heading that repeats the question quoted as its answer."""
    weights = WordWeights([])
    texts = ["Colour of the lamp\n\nIts colour is red."]
    assert best_sentence("colour of the lamp", texts, weights) == (0, "Its colour is red.")
    assert best_sentence("lamp", ["only a heading"], weights) == (0, "only a heading")
    assert best_sentence("lamp", ["", "***"], weights) == (0, "")
