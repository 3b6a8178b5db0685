"""A measure is worth something only when what should fail, fails. Real questions, real vectors."""

import pytest

import data
from stage1_foundations.embeddings.encoders import RandomEncoder
from stage1_foundations.first_rag.corpus import make_document, passages_as_documents, python_topics
from stage1_foundations.first_rag.embedding import LabEmbedding
from stage1_foundations.first_rag.evaluation import Exam, make_exam, ranked_sources, reciprocal_rank, share
from stage1_foundations.first_rag.evidence import calibrate, evidence
from stage1_foundations.first_rag.index_folder import build_index, split_documents
from stage1_foundations.first_rag.rag import Rag, RagConfig
from stage1_foundations.first_rag.retriever import FusionRetriever

pytestmark = pytest.mark.assets


@pytest.fixture(scope="module")
def exam() -> Exam:
    """Two articles, some 70 passages; 60 questions that they answer, and 60 of other articles."""
    return make_exam(data.load_retrieval("squad"), articles=2, questions=60, unanswerable=60)


def rag_over(exam: Exam, encoder: str | RandomEncoder, **options: object) -> Rag:
    embedding = LabEmbedding(encoder)
    embedding.encoder.encode([exam.labelled.queries[query] for query in exam.answerable + exam.far], "query")
    nodes = split_documents(passages_as_documents(exam.labelled.corpus, exam.corpus), embedding, 200, 0)
    return Rag(build_index(nodes, embedding), embedding, RagConfig(**options))


@pytest.fixture(scope="module")
def rag(exam) -> Rag:
    """MiniLM, with the gate open."""
    return rag_over(exam, "minilm", threshold=0.0)


def mrr(exam: Exam, retrieve) -> float:
    found = {query: ranked_sources(retrieve(exam.labelled.queries[query])) for query in exam.answerable}
    return sum(reciprocal_rank(found[query], exam.labelled.qrels[query]) for query in found) / len(found)


def test_a_random_ranking_scores_low_and_a_real_one_high(exam, rag):
    """Catches: gold that leaks into the ranking; a measure that praises anything. By chance: 2.93 / passages."""
    chance = rag_over(exam, "random")
    dense = FusionRetriever(chance.index, chance.embedding, top_k=20, weight=1.0)
    real = FusionRetriever(rag.index, rag.embedding, top_k=20)
    assert mrr(exam, dense.retrieve) < 0.2
    assert mrr(exam, real.retrieve) > 0.7


def test_an_index_of_other_documents_refuses(exam, rag):
    """Catches: a gate that lets everything through, or that refuses everything."""
    kinds = ("answerable", "far")
    questions = {kind: [exam.labelled.queries[query] for query in getattr(exam, kind)] for kind in kinds}
    strength = {kind: [evidence(text, rag.retrieve(text), rag.weights) for text in questions[kind]] for kind in kinds}
    threshold = calibrate(strength["answerable"][:30], strength["far"][:30])
    gated = Rag(rag.index, rag.embedding, RagConfig(threshold=threshold))
    refused = {kind: share([gated.ask(text).refused for text in questions[kind][30:]]) for kind in questions}
    assert refused["far"] > 0.8 and refused["answerable"] < 0.3


def test_without_its_gate_it_invents(exam, rag):
    """Catches: refusals that do not come from the gate, so that the threshold would be decoration."""
    answers = [rag.ask(exam.labelled.queries[query]) for query in exam.far]
    assert not any(answer.refused for answer in answers)


def test_shuffled_gold_scores_low(exam, rag):
    """Catches: an evaluation that does not look at which passage was found."""
    queries = exam.answerable
    wrong = {query: exam.labelled.qrels[queries[position - 20]] for position, query in enumerate(queries)}
    ranks = [
        reciprocal_rank(ranked_sources(rag.retrieve(exam.labelled.queries[query])), wrong[query]) for query in queries
    ]
    assert sum(ranks) / len(ranks) < 0.2


ANSWERED = {
    "What does a lambda expression yield?": "lambda",
    "What does the assert statement do?": "assert",
    "What does the continue statement do?": "continue",
    "What does the pass statement do?": "pass",
    "Which objects are considered false?": "truth",
    "What does the global statement do?": "global",
    "What does the nonlocal statement do?": "nonlocal",
    "What does yield from do?": "yield",
}
UNANSWERED = [
    "Who painted the Mona Lisa?", "What is the boiling point of water?", "How do I install a package with pip?",
    "How do I read a CSV file with pandas?", "How do I connect to a PostgreSQL database?", "What is a monad?",
    "What is the capital of France?", "How do I sort a DataFrame by two columns?",
]  # fmt: skip


def test_the_default_threshold_on_pythons_manual():
    """Catches: a default that refuses what the default corpus answers, or answers what it does not know."""
    embedding = LabEmbedding("minilm")
    documents = [document for document in python_topics() if document.id_ in set(ANSWERED.values())]
    rag = Rag(build_index(split_documents(documents, embedding, 200, 20), embedding), embedding, RagConfig())
    answers = {question: rag.ask(question) for question in [*ANSWERED, *UNANSWERED]}
    cited = {question: answers[question].citations[0].source for question in ANSWERED if not answers[question].refused}
    assert cited == ANSWERED
    assert [question for question in UNANSWERED if not answers[question].refused] == []


MANUAL = """水壶的容量是两升。水烧开后，水壶会自动断电。

本产品自购买之日起保修三年。人为损坏不在保修范围内。

台灯内置电池，充满电可以使用九小时。长按开关三秒可以打开夜灯。"""


def test_chinese_documents_with_e5():
    """Catches: Chinese cut at no full stop, words that are whole paragraphs, a threshold of another encoder."""
    embedding = LabEmbedding("e5")
    nodes = split_documents([make_document("手册", MANUAL)], embedding, 40, 0)
    rag = Rag(build_index(nodes, embedding), embedding, RagConfig())
    said = {question: rag.ask(question).text.rpartition(" [")[0] for question in ("水烧开后会怎样？", "夜灯怎么打开？")}
    assert said == {"水烧开后会怎样？": "水烧开后，水壶会自动断电。", "夜灯怎么打开？": "长按开关三秒可以打开夜灯。"}
    assert rag.ask("蒙娜丽莎是谁画的？").refused and rag.ask("法国的首都是哪里？").refused
