"""ROUGE, BLEU, exact match and F1. Each test names the bug that it catches."""

import math

import pytest

from stage2_rag_finetune_deploy.rag.evaluation.overlap import (
    bleu_scores,
    exact_match,
    overlap_table,
    rouge_scores,
    tokens,
)

REFERENCES = ["The parcel counts as lost after seven days.", "Dry it flat on a towel."]


def test_the_same_text_scores_one_and_another_text_scores_nothing():
    """Catches: answers and references swapped with other rows; a score that is high for anything."""
    same = overlap_table(REFERENCES, REFERENCES)
    assert all(math.isclose(value, 1.0, abs_tol=1e-6) for value in same.values()), same
    other = overlap_table(["Violet elephants sing opera quietly.", "Mountains hum."], REFERENCES)
    assert all(value < 0.05 for value in other.values()), other


def test_rouge_by_hand():
    """Catches: precision or recall reported in place of F. Five of six words, then five of five."""
    scores = rouge_scores(["the cat sat on mats"], ["the cat sat on the mats"])
    # the library counts sets of 1-grams: 5 shared, 5 in the answer, 5 distinct in the reference
    assert scores["rouge-1"] == pytest.approx(1.0, abs=1e-6)
    # 2-grams: the-cat, cat-sat, sat-on shared; 4 in the answer, 5 in the reference
    assert scores["rouge-2"] == pytest.approx(2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5), abs=1e-6)


def test_bleu_by_hand():
    """Catches: sentence scores averaged in place of corpus counts, a forgotten brevity penalty.

    "a b c d e" against "a b c d e f": every n-gram is in the reference, so BLEU is the penalty exp(1 - 6 / 5).
    """
    scores = bleu_scores(["a b c d e"], ["a b c d e f"])
    assert scores["bleu-nltk"] == pytest.approx(math.exp(1 - 6 / 5), abs=1e-6)
    assert scores["bleu-sacrebleu"] == pytest.approx(math.exp(1 - 6 / 5), abs=1e-6)


def test_chinese_is_counted_by_characters():
    """Catches: a Chinese sentence taken for one word, so that one changed character makes the score 0."""
    assert tokens("可以开 2024 年的专票, OK!") == ["可", "以", "开", "2024", "年", "的", "专", "票", "ok"]
    close = overlap_table(["可以开电子专用发票，三个工作日内发送。"], ["可以开电子专用发票，五个工作日内发送。"], "zh")
    assert close["rouge-1"] > 0.85 and close["bleu-sacrebleu"] > 0.6 and close["bleu-nltk"] > 0.6


def test_an_empty_answer_scores_zero_and_stays_in_the_mean():
    """Catches: the library's exception on empty text, and empty answers left out of the average."""
    scores = rouge_scores(["", "Dry it flat on a towel."], REFERENCES)
    assert scores["rouge-l"] == pytest.approx(0.5, abs=1e-6)
    assert rouge_scores(["", ""], REFERENCES) == {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0}


def test_exact_match_forgives_articles_and_marks_only():
    """Catches: "The Towel." counted as wrong, and "a towel rail" counted as right."""
    assert exact_match("The Towel.", ["a towel"]) == 1.0
    assert exact_match("a towel rail", ["a towel"]) == 0.0


@pytest.mark.parametrize("measure", [rouge_scores, bleu_scores, overlap_table])
@pytest.mark.parametrize("answers", [[], ["one"], ["one", "two", "three"]])
def test_lists_must_match(measure, answers):
    """Catches: zip cutting the longer list in silence."""
    with pytest.raises(ValueError, match="references"):
        measure(answers, REFERENCES if answers else [])
