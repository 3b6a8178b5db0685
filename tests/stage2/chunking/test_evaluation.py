"""Exams, marks, tests of significance. Each test names the bug that it catches."""

import numpy as np
import pytest
from ir_measures import RR, ScoredDoc, nDCG

from ir_measures import Qrel, calc_aggregate  # isort: skip

from data.meeting_set import load_meetings
from stage1_foundations.embeddings.encoders import RandomEncoder
from stage2_rag_finetune_deploy.chunking.dispatch import BY_KIND
from stage2_rag_finetune_deploy.chunking.exam import EXAMS, Exam, Question, load_exam, meeting_text
from stage2_rag_finetune_deploy.chunking.measure import EncodingCost, Row, run_row
from stage2_rag_finetune_deploy.chunking.readers import make_document
from stage2_rag_finetune_deploy.chunking.relevance import Context, judge, ndcg, places_held
from stage2_rag_finetune_deploy.chunking.rows import rows_of
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter
from stage2_rag_finetune_deploy.chunking.summary import holm, sentence_about, summarise

QUESTION = Question("q", "?", "d", (((10, 20), (50, 60)), ((30, 40),)))  # two places, the first stands twice


def test_places_by_hand():
    """Catches: half an answer that counts, an answer in another document, the second of two equal places ignored."""
    assert places_held(Context("d", 10, 20, 5), QUESTION) == {0}
    assert places_held(Context("d", 45, 99, 5), QUESTION) == {0}
    assert places_held(Context("d", 0, 99, 5), QUESTION) == {0, 1}
    assert places_held(Context("d", 11, 39, 5), QUESTION) == set()
    assert places_held(Context("e", 0, 99, 5), QUESTION) == set()


def test_judge_by_hand():
    """Catches: a rank counted from 0, a budget that is overdrawn, a lost answer that nobody notices."""
    none, first, second = Context("d", 0, 9, 400), Context("d", 0, 25, 400), Context("d", 28, 45, 400)
    mark = judge(QUESTION, [none, first, second], [none, first, second], budget=1000)
    assert (mark.mrr, mark.recall, mark.budget_recall, mark.cut) == (0.5, 1.0, 0.5, 0.0)
    assert judge(QUESTION, [none, first], [none, first], budget=1000).cut == 0.5
    assert judge(QUESTION, [none], [none], budget=1000).ndcg == 0
    late = judge(QUESTION, [none] * 10 + [first], [none, first], budget=1000)
    assert (late.mrr, late.recall, late.budget_recall) == (0, 0, 0)


def test_marks_are_those_of_ir_measures():
    """Catches: a discount one rank off, an ideal that is longer than the depth."""
    rng = np.random.default_rng(3)
    for _ in range(30):
        total = int(rng.integers(1, 30))
        relevant = rng.random(total) < 0.3
        relevant[int(rng.integers(total))] = True
        qrels = [Qrel("q", str(n), int(hit)) for n, hit in enumerate(relevant)]
        run = [ScoredDoc("q", str(n), float(total - n)) for n in range(total)]
        expected = calc_aggregate([RR @ 10, nDCG @ 10], qrels, run)
        assert ndcg([bool(hit) for hit in relevant[:10]], int(relevant.sum())) == pytest.approx(expected[nDCG @ 10])
        contexts = [Context("d" if hit else "e", 0, 99, 1) for hit in relevant]
        question = Question("q", "?", "d", (((1, 2),),))
        assert judge(question, contexts, contexts, 10).mrr == pytest.approx(expected[RR @ 10])


def test_holm_by_hand():
    """Catches: Bonferroni for all, an order lost, a corrected value smaller than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_the_technical_exam():
    """Catches: evidence that is lost on the way from HTML to text; fewer questions than promised."""
    exam = load_exam("technical", None, None, 1)
    assert len(exam.questions) >= 60 and not exam.notes
    texts = {document.id_: document.text for document in exam.documents}
    assert {document.metadata["kind"] for document in exam.documents} == {"markdown", "html", "python"}
    for question in exam.questions:
        for ((start, end), *_others) in question.places:
            assert 0 <= start < end <= len(texts[question.document])
    assert len({question.id for question in exam.questions}) == len(exam.questions)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_meeting_exams(language):
    """Catches: quotes at the wrong turn; a transcript that the chunkers read otherwise than the labels."""
    from stage2_rag_finetune_deploy.chunking.transcript import find_turns

    exam = load_exam(f"meeting-{language}", None, None, 1)
    texts = {document.id_: document.text for document in exam.documents}
    for meeting in load_meetings(language):
        turns = find_turns(meeting_text(meeting)[0])
        assert [turn.speaker for turn in turns] == [turn.speaker for turn in meeting.turns]
    quotes = {evidence.quote for meeting in load_meetings(language)
              for label in meeting.questions for evidence in label.evidence}  # fmt: skip
    for question in exam.questions:
        for spans in question.places:
            assert spans and all(texts[question.document][start:end] in quotes for start, end in spans)


@pytest.mark.assets
def test_the_article_exam():
    """Catches: an answer span that does not say the answer, or that stands twice in its paragraph."""
    import data

    exam, squad = load_exam("article", 3, 50, 1), data.load_retrieval("squad")
    texts = {document.id_: document.text for document in exam.documents}
    assert len(exam.documents) == 3 and len(exam.questions) == 50
    for question in exam.questions:
        (((start, end),),) = question.places
        assert texts[question.document][start:end] in squad.answers[question.id]


def small_exam():
    """Twelve facts in three sections, each asked for with its own words."""
    facts = [f"Fact number {n} is the word{n} of the day." for n in range(12)]
    text = "".join(f"# Part {n}\n\n{' '.join(facts[4 * n : 4 * n + 4])}\n\n" for n in range(3))
    starts = [text.index(fact) for fact in facts]
    questions = [Question(str(n), fact, "d.md", (((start, start + len(fact)),),))
                 for n, (fact, start) in enumerate(zip(facts, starts, strict=True))]  # fmt: skip
    return Exam("technical", [make_document("d.md", text)], questions, "random")


def results_of(*rows):
    """Rows on the small exam with vectors that find a sentence when it is asked for word by word."""
    encoder = RandomEncoder(64)
    cost = EncodingCost(encoder, TokenCounter(), ["short", "long " * 50])
    return [run_row(small_exam(), row, encoder, cost, 40, 0, 100) for row in rows]


def test_a_chunk_that_is_the_question_comes_first():
    """Catches: texts and vectors out of step, windows judged as sentences, parents counted once for every child."""
    rows = [
        Row("right", "section", "right"), Row("window", "sentence-window"),
        Row("child", "parent-child", options={"child_cap": 16}), Row("cut", "characters", "wrong", {"cap": 16}),
    ]  # fmt: skip
    right, window, child, cut = results_of(*rows)
    assert window.chunks == 15 and (window.values("mrr") == 1).mean() > 0.9
    assert max(window.sizes) > 12 and (child.values("mrr") == 1).mean() > 0.6
    assert len(set(child.sizes)) < child.chunks and child.values("cut").max() == 0
    assert right.values("cut").max() == 0 < cut.values("cut").mean()
    assert right.embed_seconds > 0


def test_the_table_says_who_wins():
    """Catches: a difference of the wrong sign; a loss that is reported as a win."""
    rows = [Row("wrong", "characters", "wrong", {"cap": 16}), Row("right", "sentence-window", "right")]
    wrong, right = lines = summarise(results_of(*rows))
    assert right.by_rank is None and wrong.by_rank.behind == pytest.approx(right.mrr - wrong.mrr)
    assert wrong.by_rank.verdict == "worse" and wrong.by_rank.p < 0.05
    assert "right finds MRR@10" in sentence_about("x", lines) and "beats wrong by MRR" in sentence_about("x", lines)
    rows = [Row("window", "sentence-window"), Row("right", "characters", "right", {"cap": 16})]
    better, reference = summarise(results_of(*rows))
    assert better.by_rank.verdict == "better" and better.by_rank.behind < 0
    assert "loses to window by MRR" in sentence_about("x", [better, reference])


@pytest.mark.parametrize("exam", EXAMS)
@pytest.mark.parametrize("chosen", ["all", "main"])
def test_every_exam_has_one_right_row_and_a_wrong_one(exam, chosen):
    """Catches: a table without its reference, or with fewer than five rows; a right row that nobody would dispatch."""
    rows = rows_of(exam, chosen)
    roles = [row.role for row in rows]
    assert roles.count("right") == 1 and roles[0] == "right" and "wrong" in roles and len(rows) >= 5
    assert len({row.name for row in rows}) == len(rows)
    if exam != "technical":
        assert rows[0].chunker == BY_KIND["text" if exam == "article" else "transcript"]


def test_rows_can_be_chosen():
    """Catches: a choice that loses the reference."""
    assert [row.name for row in rows_of("article", "fixed")] == ["sentences, overlap", "fixed window, overlap"]
