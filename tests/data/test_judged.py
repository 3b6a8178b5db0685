"""The answers with human scores. Each test names the bug that it catches."""

import pytest

import data
from data.judged import CRITERIA, KINDS, read


def test_every_fault_lowers_the_score_it_is_about():
    """Catches: scores entered under the wrong criterion, or a "good" answer that another one beats."""
    answers = data.load_judged_answers()
    assert {answer.kind for answer in answers} == set(KINDS) and len({answer.id for answer in answers}) == 50
    good = {answer.question: answer for answer in answers if answer.kind == "good"}
    assert len(good) == 10
    faults = {"wrong": "accuracy", "invented": "accuracy", "broken": "fluency", "padded": "fluency",
              "terse": "completeness", "partial": "completeness", "refusal": "completeness",
              "off_topic": "completeness"}  # fmt: skip
    for answer in answers:
        best = good[answer.question]
        assert all(answer.scores[name] <= best.scores[name] for name in CRITERIA), answer.id
        if answer.kind in faults:
            assert answer.scores[faults[answer.kind]] <= best.scores[faults[answer.kind]] - 1, answer.id
        if answer.kind == "padded":
            assert len(answer.text) > 1.8 * len(best.text), answer.id


def test_languages_are_apart():
    """Catches: Chinese answers judged by the English prompt."""
    assert {answer.language for answer in data.load_judged_answers("zh")} == {"zh"}
    assert all(answer.text.isascii() for answer in data.load_judged_answers("en"))


@pytest.mark.parametrize("score", [0, 11, 7.5, True])
def test_scores_outside_the_scale_are_refused(tmp_path, score):
    """Catches: a typing error in a score that moves a judge's agreement in silence."""
    text = (
        '[[questions]]\nid = "q"\nquestion = "?"\npassage = "p"\nreference = "r"\nanswers = [{ kind = "good", '
        f'accuracy = {str(score).lower()}, completeness = 5, fluency = 5, text = "t" }}]\n'
    )
    path = tmp_path / "en.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="en.toml, q"):
        read(path)
