"""Labelled sets and vectors as the labs read them. Each test names the bug that it catches."""

import json

import numpy as np
import pytest

import data
from data.retrieval import make_retrieval_set, read_idioms, read_squad
from labkit.errors import LabError


@pytest.fixture(scope="module")
def toy() -> data.RetrievalSet:
    """40 passages, each asked about once."""
    passages = [(f"p{n}", f"Passage {n}.") for n in range(40)]
    return make_retrieval_set("toy", "en", passages, [(f"q{n}", f"What is {n}?", f"p{n}", []) for n in range(40)])


def test_duplicate_passages_become_one():
    """Catches: a gold passage that points to a merged id; a duplicate left in, which halves the hit rate."""
    passages = [("a", "same"), ("b", " same\n"), ("c", "other")]
    merged = make_retrieval_set("toy", "en", passages, [("q", "Which?", "b", ["same", "same"])])
    assert merged.corpus == {"a": "same", "c": "other"}
    assert merged.qrels == {"q": {"a": 1}} and merged.answers == {"q": ["same"]}


def test_equal_questions_share_their_passages():
    """Catches: a right passage counted as wrong because the same question was asked about another one, too."""
    passages = [("a", "red"), ("b", "blue")]
    questions = [("q1", "Which colour?", "a", ["red"]), ("q2", "Which colour? ", "b", ["blue"])]
    both = make_retrieval_set("toy", "en", passages, questions)
    assert both.qrels == {"q1": {"a": 1, "b": 1}, "q2": {"a": 1, "b": 1}}
    both.qrels["q1"].clear()
    assert both.qrels["q2"] == {"a": 1, "b": 1}  # not one dictionary behind two names


def test_sample_keeps_gold_and_is_repeatable(toy):
    """Catches: a gold passage lost; a sample that changes from call to call; distractors not added."""
    small = toy.sample(queries=5, passages=20, seed=3)
    assert len(small.queries) == 5 and len(small.corpus) == 20
    assert all(gold.keys() <= small.corpus.keys() for gold in small.qrels.values())
    assert small.qrels.keys() == small.queries.keys() and small == toy.sample(5, 20, seed=3)
    assert small.queries != toy.sample(5, 20, seed=4).queries
    assert list(small.corpus) == [passage for passage in toy.corpus if passage in small.corpus]  # the set's order
    assert toy.sample(queries=5).corpus == toy.corpus and len(toy.sample(queries=999).queries) == 40


@pytest.mark.parametrize(("queries", "passages"), [(10, 9), (0, None), (3, 0)])
def test_sample_too_small(toy, queries, passages):
    """Catches: gold passages dropped in silence to reach the wanted size."""
    with pytest.raises(LabError):
        toy.sample(queries, passages)


def test_squad_form(tmp_path):
    """Catches: ids that depend on the reading order; answers or the canary mark lost."""
    question = {"id": "q7", "question": "Who? ", "answers": [{"text": "Ada", "answer_start": 0}]}
    article = {"title": "Ada_Lovelace", "paragraphs": [{"context": "Ada wrote.", "qas": [question]}]}
    path = tmp_path / "set.json"
    path.write_text(json.dumps({"data": [article]}), encoding="utf-8")
    loaded = read_squad(path, "toy")
    assert loaded.corpus == {"Ada_Lovelace/0": "Ada wrote."} and loaded.queries == {"q7": "Who?"}
    assert loaded.answers == {"q7": ["Ada"]} and loaded.canary


def test_idiom_explanations(tmp_path):
    """Catches: a query that contains its answer; a shared explanation with only one gold idiom."""
    rows = [("甲甲甲甲", "比喻说话做事都很小心。"), ("乙乙乙乙", "比喻说话做事都很小心。")]
    rows += [("丙丙丙丙", "就是丙丙丙丙这个意思。"), ("丁丁丁丁", "太短了。")]
    path = tmp_path / "idiom.csv"
    path.write_text("word,explanation\n" + "".join(f"{a},{b}\n" for a, b in rows), encoding="utf-8")
    loaded = read_idioms(path, "idioms")
    assert list(loaded.corpus) == [row[0] for row in rows] and len(loaded.queries) == 1
    assert loaded.qrels == {"explains-甲甲甲甲": {"甲甲甲甲": 1, "乙乙乙乙": 1}}


def test_unknown_names_suggest_the_nearest():
    """Catches: a KeyError, or a download, for a misspelt name."""
    for load, name, near in [
        (data.load_retrieval, "sqaud", "squad"),
        (data.load_labelled, "question-type", "question-types"),
        (data.load_similarity, "lea", "lee"),
        (data.load_bitext, "tatoeba-en-fr", "tatoeba-en-es"),
        (data.load_vectors, "glove-50", "glove-50d"),
    ]:
        with pytest.raises(LabError) as error:
            load(name)
        assert near in error.value.try_next


@pytest.mark.assets
@pytest.mark.parametrize(
    ("name", "language", "passages", "queries", "canary"),
    [
        ("squad", "en", 2_067, 10_565, True),
        ("amazon-reviews", "en", 2_050, 9_877, True),
        ("construction-faq", "en", 503, 503, False),
        ("construction-faq-sv", "sv", 503, 503, False),
        ("idioms", "zh", 30_883, 25_401, False),
    ],
)
def test_retrieval_sets(name, language, passages, queries, canary):
    """Catches: another size than the labs' numbers were measured on, empty texts, qrels that point nowhere."""
    loaded = data.load_retrieval(name)
    assert (loaded.language, len(loaded.corpus), len(loaded.queries)) == (language, passages, queries)
    assert loaded.canary == canary and all(loaded.corpus.values()) and all(loaded.queries.values())
    assert len(set(loaded.corpus.values())) == passages and loaded.qrels.keys() == loaded.queries.keys()
    assert all(gold and gold.keys() <= loaded.corpus.keys() for gold in loaded.qrels.values())
    for query, answers in list(loaded.answers.items())[:500]:  # every answer stands in one of the gold passages
        texts = [loaded.corpus[passage] for passage in loaded.qrels[query]]
        assert all(any(answer in text for text in texts) for answer in answers)


@pytest.mark.assets
def test_labelled_sets():
    """Catches: repeated texts (they would sit in train and test), a lost class, bytes read in the wrong encoding."""
    questions, calls = data.load_labelled("question-types"), data.load_labelled("call-intents")
    assert (len(questions.texts), len(set(questions.labels))) == (5_381, 6)
    assert (len(calls.texts), len(set(calls.labels))) == (1_724, 63)
    for loaded in (questions, calls):
        assert len(set(loaded.texts)) == len(loaded.texts) == len(loaded.labels) and all(loaded.texts)
    assert all(text.isascii() for text in questions.texts)
    assert questions.labels[questions.texts.index("Who killed Gandhi ?")] == "human"


@pytest.mark.assets
def test_similarity_sets():
    """Catches: texts paired with the scores of other texts (row and column mixed up), the zero half taken."""
    lee, words = data.load_similarity("lee"), data.load_similarity("wordsim353")
    assert len(lee.scores) == 1_225 == len(lee.first) and min(lee.scores) >= 0.2 and max(lee.scores) <= 1
    assert len(set(lee.first) | set(lee.second)) == 50
    pairs = {(lee.first[i][:22], lee.second[i][:12]): lee.scores[i] for i in range(3)}
    assert pairs["The national executive", "Cash-strappe"] == 0.3
    assert len(words.scores) == 353
    assert dict(zip(zip(words.first, words.second, strict=True), words.scores, strict=True))["tiger", "cat"] == 7.35


@pytest.mark.assets
def test_bitext_and_vectors():
    """Catches: sentences repeated on a side, the attribution read as a translation, vectors shifted by a word."""
    pairs = data.load_bitext("tatoeba-en-es")
    assert len(pairs.first) == len(pairs.second) == 114_024 == len(set(pairs.first)) == len(set(pairs.second))
    assert pairs.second[pairs.first.index("Stop lying.")] == "Dejá de mentir."
    assert not any("CC-BY" in text for text in pairs.second)
    words, vectors = data.load_vectors("glove-50d")
    assert words[:3] == ["the", ",", "."] and len(set(words)) == 400_000
    assert vectors.shape == (400_000, 50) and vectors.dtype == np.float32
    # the first and last numbers of the published file's row for "the"
    assert vectors[0, 0] == np.float32(0.418) and vectors[0, -1] == np.float32(-0.78581)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.argsort(-(unit[:50_000] @ unit[words.index("frog")]))[1:8]
    assert {"toad", "snake"} & {words[i] for i in near}
