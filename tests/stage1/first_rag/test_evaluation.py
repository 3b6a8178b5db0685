"""Each test names the bug that it catches."""

import random
from dataclasses import replace

import numpy as np
import pytest
import pytrec_eval
from sklearn.metrics import roc_auc_score

from data import RetrievalSet
from labkit.errors import LabError
from stage1_foundations.first_rag.answer_exam import judge
from stage1_foundations.first_rag.evaluate_command import random_order
from stage1_foundations.first_rag.evaluation import (
    area_under_curve,
    halves,
    holds,
    interval,
    make_exam,
    normalise,
    reciprocal_rank,
    share,
    word_f1,
)
from stage1_foundations.first_rag.rag import Answer, Citation


def test_reciprocal_rank_by_hand():
    """Catches: ranks from 0, a depth off by one, the last gold passage in place of the first."""
    ranking = [f"d{rank}" for rank in range(1, 15)]
    assert reciprocal_rank(ranking, {"d1"}) == 1.0
    assert reciprocal_rank(ranking, {"d4", "d2"}) == 0.5
    assert reciprocal_rank(ranking, {"d10"}) == 0.1
    assert reciprocal_rank(ranking, {"d11"}) == 0.0
    assert reciprocal_rank([], {"d1"}) == 0.0


def test_mrr_equals_trec_eval():
    """Catches: another measure under the same name. trec_eval has no depth, so the rankings are ten long."""
    rng = random.Random(0)
    names = [f"d{number}" for number in range(30)]
    qrels = {f"q{number}": dict.fromkeys(rng.sample(names, 1 + number % 3), 1) for number in range(50)}
    rankings = {query: rng.sample(names, 10) for query in qrels}
    run = {query: {name: 10.0 - rank for rank, name in enumerate(found)} for query, found in rankings.items()}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)
    for query, found in rankings.items():
        assert reciprocal_rank(found, qrels[query]) == pytest.approx(theirs[query]["recip_rank"])


def test_random_order_equals_a_simulation():
    """Catches: a floor that is no floor. 40,000 draws: the mean's standard error is below 0.002."""
    draws = np.random.default_rng(0).permuted(np.tile(np.arange(25), (40_000, 1)), axis=1)
    ranks = (draws == 0).argmax(axis=1) + 1
    floor = random_order(25)
    assert floor["mrr"] == pytest.approx(np.where(ranks <= 10, 1 / ranks, 0).mean(), abs=0.006)
    assert floor["hit@3"] == pytest.approx((ranks <= 3).mean(), abs=0.008)
    assert random_order(4)["hit@10"] == 1.0


@pytest.fixture
def labelled() -> RetrievalSet:
    """Six articles of sixteen passages, a question for each passage."""
    corpus = {f"a{article}/{number}": f"text {article} {number}" for article in range(6) for number in range(16)}
    queries = {f"q-{name}": f"question on {name}" for name in corpus}
    return RetrievalSet("labelled", "en", corpus, queries, {f"q-{name}": {name: 1} for name in corpus}, {})


def test_exam_has_three_kinds_of_questions(labelled):
    """Catches: a gold passage of an unanswerable question in the index, or one of an answerable one left out."""
    exam = make_exam(labelled, articles=3, questions=30, unanswerable=5, seed=2)
    indexed = set(exam.corpus)
    articles = {name.partition("/")[0] for name in indexed}
    gold = {query: next(iter(labelled.qrels[query])) for query in labelled.queries}
    assert len(articles) == 3 and len(exam.answerable) == 30
    assert exam.near and exam.far
    assert all(gold[query] in indexed for query in exam.answerable)
    assert all(gold[query] not in indexed and gold[query].partition("/")[0] in articles for query in exam.near)
    assert all(gold[query].partition("/")[0] not in articles for query in exam.far)
    assert make_exam(labelled, 3, 30, 5, seed=2) == exam != make_exam(labelled, 3, 30, 5, seed=3)


@pytest.mark.parametrize("articles", [0, 6, 7])
def test_exam_wants_articles_to_leave_out(labelled, articles):
    """Catches: an exam without unanswerable questions."""
    with pytest.raises(LabError, match=f"--articles {articles} of 6"):
        make_exam(labelled, articles, 5, 5)


def test_halves_do_not_overlap():
    """Catches: a threshold examined on the questions that it was found on."""
    first, second = halves(["a", "b", "c"])
    assert (first, second) == (["a"], ["b", "c"])


def test_holds_looks_for_whole_words():
    """Catches: "10" found in "1066", an answer missed for its article, its case or its comma."""
    assert holds("It was the Battle of Hastings, in 1066.", ["battle of hastings"])
    assert holds("in 1,066", ["1 066"]) and not holds("in 1066", ["10"]) and not holds("text", ["", "the"])
    assert normalise("The  Battle-of a Hill!") == "battle of hill"


def test_word_f1_by_hand():
    """Catches: precision alone, words counted more often than they occur, the worst answer in place of the best."""
    assert word_f1("the red red fan", ["red fan"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert word_f1("red", ["blue", "red lamp"]) == pytest.approx(2 / 3)
    assert word_f1("", ["x"]) == 0.0


def test_area_under_curve_equals_scikit_learns():
    """Catches: ties that count as won or lost."""
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(3, 12, 40) / 10, rng.integers(0, 9, 60) / 10
    expected = roc_auc_score([1] * 40 + [0] * 60, [*positive, *negative])
    assert area_under_curve(positive, negative) == pytest.approx(expected)


def test_interval():
    """Catches: an interval of the values in place of their mean."""
    low, high = interval([0.0, 1.0] * 200)
    assert 0.44 < low < 0.46 and 0.54 < high < 0.56
    assert share([]) == 0.0


def test_judge_by_hand(labelled):
    """Catches: shares over all questions in place of the answered ones, a sentence judged by its passage."""
    gold = {"q-a0/0": ["red"], "q-a0/1": ["blue"], "q-a0/2": ["green"]}
    exam = make_exam(replace(labelled, answers=gold), 3, 5, 5)
    answers = [
        Answer("", "It is red. [1]", 1.0, [Citation(1, "a0/0", "It is red.", "So. It is red.", 0.9)]),
        Answer("", "It is new. [1]", 1.0, [Citation(1, "a0/9", "It is new.", "It is new. And blue.", 0.9)]),
        Answer("", "No evidence", 0.1),
    ]
    row = judge(exam, list(gold), answers)
    assert row["answered"] == pytest.approx(2 / 3) and row["right_of_all"] == pytest.approx(1 / 3)
    assert (row["citation_holds"], row["passage_holds"], row["gold_cited"], row["text_holds"]) == (0.5, 1.0, 0.5, 0.5)
