"""Month 2 judges real retrieval, and nothing easier passes. Each test names the short cut that it closes."""

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import data
from labkit.runs import start_run
from milestones import month2
from milestones.criteria import Month, load_criteria
from milestones.fresh_corpus import exchange, fresh_corpus, rewrite
from milestones.grade import NOT_STARTED, PASSED, Context, MonthResult, grade_month
from tests.shared.hand_in import write_hand_in

pytestmark = pytest.mark.assets
STAND_IN = Path(__file__).with_name("stand_in") / "rag.py"


@pytest.fixture(scope="session")
def squad() -> data.RetrievalSet:
    return data.load_retrieval("squad")


@pytest.fixture
def month() -> Month:
    """Month 2 with fewer questions."""
    month = load_criteria().month(2)
    small = {"questions": 40, "answered": 5, "fresh_passages": 100, "fresh_questions": 25, "start_limit": 30}
    return replace(month, settings=month.settings | small | {"answer_limit": 5, "time_limit": 60, "ingest_limit": 30})


@pytest.fixture
def hand_in(tmp_path, squad, monkeypatch) -> Callable[..., Path]:
    """A function that makes a hand-in whose RAG behaves in one way, with an index of a corpus."""

    def make(behaviour: str = "honest", corpus: dict[str, str] | None = None, claimed: str = "") -> Path:
        folder = tmp_path / "hand-in"
        write_hand_in(folder, "stage2_rag_finetune_deploy.rag", STAND_IN, behaviour)
        corpus = corpus or squad.corpus
        with monkeypatch.context() as patch:
            patch.setenv("COURSE_LAB_RUNS", str(folder / "runs"))
            with start_run("stage2", "rag", "ingest", {}, preset="cpu", seed=1) as run:
                run.data("corpus", claimed or data.corpus_sha256(corpus), 1)
                run.metric("mrr_at_10", 0.99)
                index = folder / "runs" / month2.INDEX
                index.mkdir()
                lines = [json.dumps({"id": id, "text": text}) for id, text in corpus.items()]
                (index / "passages.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return folder

    return make


def graded(month: Month, folder: Path, seed: int = 5) -> MonthResult:
    return grade_month(month2.grade, Context(month, folder, folder / "runs", seed))


def verdicts(result: MonthResult) -> dict[str, str]:
    return {check.check.id: check.status for check in result.checks}


def test_real_retrieval_passes(month, hand_in):
    """Catches: a grader that no honest work can pass. Plain BM25 has MRR@10 0.81, and 0.9 on the small corpus."""
    result = graded(month, hand_in())
    assert result.status == PASSED, result.message
    figures = {check.check.id: check.value for check in result.checks}
    assert 0.7 < figures["mrr_at_10"] < 0.95 and figures["fresh_corpus"] > 0.75
    assert result.details["retrieval_p95_ms"] < 5000 and 0 < result.details["citation_precision"] <= 1


@pytest.mark.parametrize(
    ("behaviour", "failed"),
    [
        ("random", {"mrr_at_10", "fresh_corpus"}),
        ("always the same", {"mrr_at_10", "fresh_corpus"}),
        ("looks answers up", {"fresh_corpus"}),
        ("own text", {"served"}),
        ("invents quotes", {"answers"}),
        ("refuses everything", {"answers"}),
        ("ingest fails", {"fresh_corpus"}),
        ("does not start", {"served"}),
        ("crashes", {"served"}),
        ("malformed", {"served"}),
        ("hangs", {"served"}),
    ],
)
def test_short_cuts_fail(month, hand_in, behaviour, failed):
    """Catches: a ranking without retrieval, labels learnt by heart, made-up text, a server that dies."""
    result = graded(month, hand_in(behaviour))
    assert result.status not in (PASSED, "error"), result.message
    assert failed <= {id for id, status in verdicts(result).items() if status == "failed"}
    assert result.points < 100 and "/" not in result.message.split(":")[0]


def test_an_index_of_another_corpus_fails(month, hand_in, squad):
    """Catches: a right hash in the report of an index that was built from something else."""
    other = data.load_retrieval("construction-faq").corpus
    honest = graded(month, hand_in(corpus=other))
    assert verdicts(honest)["genuine"] == "failed" and honest.points == 0


def test_a_claimed_hash_does_not_help(month, hand_in, squad):
    """Catches: trusting the report's hash."""
    other = data.load_retrieval("construction-faq").corpus
    result = graded(month, hand_in(corpus=other, claimed=data.corpus_sha256(squad.corpus)))
    assert verdicts(result)["served"] == "failed" and verdicts(result)["mrr_at_10"] == "failed"
    assert result.points == 0


def test_a_results_file_without_an_index_fails(month, hand_in):
    """Catches: marks for a report of good figures alone."""
    folder = hand_in()
    shutil.rmtree(folder / "runs" / month2.INDEX)
    result = graded(month, folder)
    assert verdicts(result)["genuine"] == "failed" and result.points == 0


def test_no_run_is_not_started(month, tmp_path):
    """Catches: "failed" for a learner who has not come that far, and a download for nothing."""
    assert graded(month, tmp_path).status == NOT_STARTED


def test_fresh_corpus_hides_the_public_text(squad):
    """Catches: a question or a passage that can be looked up; a word exchanged in one place only."""
    fresh = fresh_corpus(squad, random.Random(3), 120, 60)
    assert len(fresh.corpus) == 120 and len(fresh.questions) == 60
    public = set(squad.queries.values())
    assert not [text for text, _ in fresh.questions if text in public]
    texts = set(squad.corpus.values())
    assert sum(text in texts for text in fresh.corpus.values()) < 12  # passages without a name or a long number
    assert not [gold for _, gold in fresh.questions if fresh.corpus[gold] in texts]
    assert not fresh.corpus.keys() & squad.corpus.keys()
    again = fresh_corpus(squad, random.Random(4), 120, 60)
    assert again.corpus.keys() != fresh.corpus.keys()


def test_exchange_is_one_to_one_and_everywhere_the_same():
    """Catches: two names that become one, so that questions have two right passages; "When" taken for a name."""
    texts = ["When did Alice meet Robert in 1999?", "Alice met Robert and Carol in 1999, not 2004.", "We know when."]
    for seed in range(20):
        table = exchange(texts, random.Random(seed))
        assert set(table) == {"Alice", "Robert", "Carol", "1999", "2004"}
        assert len(set(table.values())) == len(table)
        assert {table[name] for name in ("Alice", "Robert", "Carol")} == {"Alice", "Robert", "Carol"}
        first, second = rewrite(texts[0], table), rewrite(texts[1], table)
        assert re.findall(r"\d{4}", first) == re.findall(r"\d{4}", second)[:1]
