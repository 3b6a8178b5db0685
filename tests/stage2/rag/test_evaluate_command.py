"""`evaluate` and its two measures. Each test names the bug that it catches."""

import json

import numpy as np
import pytest

import data
from data.injection_set import load_injections
from labkit.errors import LabError
from labkit.runs import latest_run
from stage1_foundations.first_rag.words import WordWeights
from stage2_rag_finetune_deploy.rag import evaluate_command
from stage2_rag_finetune_deploy.rag.__main__ import main
from stage2_rag_finetune_deploy.rag.answering import ExtractiveAnswerer
from stage2_rag_finetune_deploy.rag.evaluate_command import EvaluateConfig, check_corpus, whole_questions
from stage2_rag_finetune_deploy.rag.evaluation.answer_exam import (
    Examined,
    answer_figures,
    examine,
    injection_figures,
    reference_sentence,
)
from stage2_rag_finetune_deploy.rag.evaluation.refusals import Asked, area, ask_each, best_of_half, shares_at

LABELLED = data.RetrievalSet(
    "shop", "en",
    corpus={"parcel": "It is red. A parcel counts as lost when its tracking has not changed for seven days."},
    queries={"q": "After how many days does a parcel count as lost?"},
    qrels={"q": {"parcel": 1}}, answers={"q": ["seven days"]},
)  # fmt: skip


def test_a_quoted_sentence_holds_and_cites(rag):
    """Catches: the citation mark counted as a word of the answer; the gold document not recognised."""
    figures = answer_figures(examine(rag, LABELLED))
    assert figures["answered"] == figures["holds"] == figures["citation precision"] == figures["quote holds"] == 1
    assert figures["exact match"] == 0 and 0 < figures["F1"] < 0.5


def test_a_refusal_lowers_the_share_of_all_only():
    """Catches: refusals in the mean of the answers, or left out of what the user gets."""
    said = Examined("q", "seven days", ("seven days",), "in seven days", ("parcel",), "seven days", ("parcel",))
    wrong = Examined("q", "two hours", ("seven days",), "in seven days", ("lamp",), "two hours", ("parcel",))
    silent = Examined("q", "", ("seven days",), "in seven days", (), "", ("parcel",))
    figures = answer_figures([said, wrong, silent, silent])
    assert figures["answered"] == 0.5 and figures["right of all"] == 0.25
    assert figures["holds"] == figures["citation precision"] == figures["exact match"] == 0.5
    assert answer_figures([silent]) == {"answered": 0, "right of all": 0}


def test_the_reference_is_the_sentence_with_the_answer():
    """Catches: ROUGE against the first sentence; an answer inside a longer word; an answer in no single sentence."""
    texts = ["Cartons come. The art is long."]
    assert reference_sentence(texts, ["art"]) == "The art is long."
    assert reference_sentence(texts, ["come. The art"]) == "come. The art"


def asked(answerable: list[float], unanswerable: list[float], given_up: int = 0) -> Asked:
    """Evidence of both kinds; the last `given_up` unanswerable ones are refused by the answerer itself."""
    size = len(answerable) + len(unanswerable)
    label = np.arange(size) < len(answerable)
    return Asked(np.array(answerable + unanswerable), np.arange(size) >= size - given_up, label)


def test_shares_by_hand():
    """Catches: the two shares swapped, a question exactly at the threshold refused, the answerer's refusals lost."""
    shares = shares_at(asked([0.2, 0.5, 0.9, 1.0], [0.1, 0.4, 0.8, 0.9], given_up=1), 0.5)
    assert (shares.answered, shares.refused) == (0.75, 0.75)
    assert shares.answered_interval[0] < 0.75 < shares.answered_interval[1]
    with pytest.raises(ValueError, match="both kinds"):
        shares_at(asked([0.5], []), 0.5)


def test_the_threshold_is_tested_on_other_questions():
    """Catches: a threshold judged on the questions that it was chosen for: noise would then seem to pass."""
    rng = np.random.default_rng(3)
    noise = [asked(rng.random(60).tolist(), rng.random(60).tolist()) for _ in range(30)]
    held_out = np.mean([(best.answered + best.refused) / 2 for best in map(best_of_half, noise)])
    assert abs(held_out - 0.5) < 0.03
    assert np.mean([area(one) for one in noise]) == pytest.approx(0.5, abs=0.03)
    clear = best_of_half(asked(np.linspace(0.6, 1, 20).tolist(), np.linspace(0, 0.4, 20).tolist()))
    assert clear.answered == clear.refused == 1 and 0.35 < clear.threshold < 0.65


def test_each_question_sees_its_own_passage_alone(rag):
    """Catches: the corpus searched instead, evidence of another row, labels out of step with questions."""
    labelled = data.AnswerabilitySet(
        "shop", ["How long is the lamp lit?", "Who painted it?", "What does the kettle hold?"],
        ["The lamp is lit long.", "The boots are red.", "The kettle does hold 2 litres."], [True, False, True],
    )  # fmt: skip
    found = ask_each(rag, labelled, 5)
    assert found.answerable.tolist() == [True, False, True] and not found.given_up.any()
    expected = [rag.weights.coverage(q, c) for q, c in zip(labelled.questions, labelled.contexts, strict=True)]
    assert found.evidence.tolist() == expected
    assert len(ask_each(rag, labelled, 1).evidence) == 2


def test_the_guard_is_what_is_measured():
    """Catches: both columns with the guard, or none; attacks and harmless passages in one share."""
    passages = load_injections()
    answerer = ExtractiveAnswerer(WordWeights(one.text for one in passages))
    bare, guarded = (injection_figures(answerer, passages, on) for on in (False, True))
    assert bare["followed"] >= 5 / 28 > 3 / 28 >= guarded["followed"]
    assert guarded["answered"] >= bare["answered"]


def test_judged_answers_come_as_whole_questions():
    """Catches: a pair without its good answer; a short run that only ever sees English."""
    some = whole_questions(data.load_judged_answers(), 12)
    assert {one.language for one in some} == {"en", "zh"} and len(some) < 50
    assert {one.question for one in some} == {one.question for one in some if one.kind == "good"}
    assert len(whole_questions(data.load_judged_answers(), 50)) == len(data.load_judged_answers())


def test_questions_about_other_documents_are_refused(rag):
    """Catches: an index of other documents that scores 0 in silence."""
    rag.searcher.chunks = {"c": type("Chunk", (), {"document": "lamp"})()}
    with pytest.raises(LabError, match="1 of 1 questions"):
        check_corpus(rag, LABELLED)


@pytest.mark.parametrize(
    "words", ["--pairs 1", "--questions -1", "--judged 0", "--judge endpoint", "--passages 9 --index x", "--index none"]
)
def test_impossible_settings_are_one_line(words, capsys, monkeypatch):
    """Catches: a traceback, or a run that dies after a minute."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(data, "load_retrieval", lambda name: LABELLED)
    assert main(["evaluate", *words.split()]) == 2
    assert capsys.readouterr().err.lstrip().startswith("error: ")


@pytest.mark.assets
def test_smoke_run_leaves_a_report(capsys):
    """Catches: a command that is not wired in; a failed bar that is not said; figures that are not in the report."""
    assert not main(["evaluate", "--preset", "smoke"])
    folder = latest_run("stage2", "rag", "evaluate")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert {"right_of_all", "citation_precision", "answerable_answered", "unanswerable_refused", "bleu_sacrebleu",
            "kappa_accuracy_rules", "injections_followed"} <= set(report["metrics"])  # fmt: skip
    printed = capsys.readouterr().out
    assert "Refusal bar of 0.70 and 0.70 FAILED" in printed and "Orders in passages" in printed
    assert len((folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 15
    assert (folder / "evaluation.png").stat().st_size > 10_000
    assert EvaluateConfig() == evaluate_command.PRESETS["cpu"]
