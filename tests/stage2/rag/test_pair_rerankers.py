"""Each test names the bug that it catches."""

import json
import random

import numpy as np
import pytest
import torch

import data
from labkit.errors import LabError
from labkit.runs import latest_run, read_report
from stage2_rag_finetune_deploy.rag import train_reranker_command
from stage2_rag_finetune_deploy.rag.cross_encoder import CrossEncoderReranker
from stage2_rag_finetune_deploy.rag.llm_reranker import QueryLikelihood, mean_log_likelihood
from stage2_rag_finetune_deploy.rag.reranker_training import CERTAIN, TrainingList, distilled, hard_lists, softmax
from stage2_rag_finetune_deploy.rag.retriever import Hit
from stage2_rag_finetune_deploy.rag.synthetic_questions import (
    SHIPPED,
    Pair,
    detokenise,
    excerpt,
    read_pairs,
    round_trip,
    well_formed,
    write_questions,
)
from stage2_rag_finetune_deploy.rag.train_reranker_command import PRESETS, TrainConfig, split

WRITTEN = pytest.mark.skipif(not SHIPPED.exists(), reason="no questions written yet: rag make-questions")
PASSAGES = {
    "10": "Honey bees tell each other where food is by dancing. Karl von Frisch decoded the dance.",
    "20": "Because tin was cheap and did not rust, it was used to line cans of food.",
    "30": "The bridge was opened in 1932 after six years of work. It carries eight lanes of traffic.",
    "40": "Bees of many kinds live alone. They dance for nobody and share no food.",
}


def test_mean_log_likelihood_by_hand():
    """Catches: a sum in place of the mean, padding that counts, bfloat16 sums."""
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], [[0.25, 0.5, 0.25], [0.9, 0.05, 0.05]]]))
    targets, mask = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[True, True], [True, False]])
    got = mean_log_likelihood(logits.bfloat16(), targets, mask)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, [(np.log(0.5) + np.log(0.8)) / 2, np.log(0.5)], atol=0.01)  # bfloat16 logits


@pytest.mark.parametrize(
    ("question", "good"),
    [
        ("Who decoded the dance of honey bees?", True),
        ("Who decoded the dance of honey bees", False),
        ("Who danced? What is food?", False),
        ("Who decoded it?", False),
        ("What does the passage say about bees?", False),
        ("When did he decode the dance of bees?", False),
        ("What is the capital city of France?", False),
        ("Is it that honey bees tell each other where food is by dancing?", False),
    ],
)
def test_well_formed(question, good):
    """Catches: questions that nobody could ask without the passage, or that copy it."""
    assert well_formed(question, PASSAGES["10"]) is good


def test_detokenise():
    """Catches: WikiText's spaces, which would teach the model another language than it will read."""
    assert detokenise('About 1 @,@ 300 people ( in 1943 ) saw the " big @-@ top " ; it \'s old .') == (
        'About 1,300 people (in 1943) saw the "big-top"; it\'s old.'
    )


def test_excerpts_are_two_sentences():
    """Catches: an excerpt past the end, or the same one always."""
    drawn = {excerpt("One is. Two is. Three is.", random.Random(seed)) for seed in range(20)}
    assert drawn == {"One is. Two is.", "Two is. Three is."}
    assert excerpt("Only one.", random.Random(0)) == "Only one."


class Scribe:
    """A writer that asks about the last word."""

    def write(self, sources, starts):
        return [f"What does anyone know of {source.split()[-1].strip('.')} here?" for source in sources]


def test_writing_skips_what_has_its_question():
    """Catches: a second call that begins again from the start."""
    first = [pair for batch in write_questions(Scribe(), PASSAGES, 2, seed=1) for pair in batch]
    assert {pair.passage for pair in first} == set(PASSAGES)
    rest = [pair for batch in write_questions(Scribe(), PASSAGES, 3, seed=1, skip={"10", "20"}) for pair in batch]
    assert {pair.passage for pair in rest} == {"30", "40"}


def test_round_trip_drops_what_cannot_be_found():
    """Catches: questions about something else that teach the wrong thing."""

    class Finder:
        def retrieve(self, query, k, filter=None):
            return [Hit("10", 1.0)]

    kept = round_trip([Pair("10", "who dances?"), Pair("20", "who dances?")], Finder())
    assert [pair.passage for pair in kept] == ["10"]


@pytest.mark.parametrize("text", [None, "", "not json\n", '{"passage": "1"}\n'])
def test_broken_question_files_are_refused(text, tmp_path):
    """Catches: a traceback, or training on nothing."""
    path = tmp_path / "questions.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LabError, match="questions"):
        read_pairs(path)


@WRITTEN
def test_the_shipped_questions_are_about_known_passages():
    """Catches: a file of questions made from another text, or with a line that the filter refuses."""
    pairs = read_pairs()
    assert len(pairs) > 500 and len({pair.passage for pair in pairs}) == len(pairs)
    assert all(pair.question.endswith("?") for pair in pairs)


def test_hard_lists_put_the_right_one_first():
    """Catches: the right passage among its own negatives; negatives that share no word with the question."""
    (only,) = hard_lists([Pair("10", "who decoded the dance of bees?")], PASSAGES, negatives=2, seed=1)
    assert only.passages[0] == PASSAGES["10"] and only.passages.count(PASSAGES["10"]) == 1
    assert only.passages[1] == PASSAGES["40"] and only.labels == [CERTAIN, 0.0]


def test_distillation_mixes_label_and_opinion():
    """Catches: a teacher that overrules the label, or is not heard."""

    class Teacher:
        name = "teacher"

        def score_pairs(self, pairs):
            return np.array([-3.0, -1.0, -5.0])

    (soft,) = distilled([TrainingList("q", ["a", "b", "c"], [CERTAIN, 0.0, 0.0])], Teacher())
    shares = softmax(np.array(soft.labels))
    assert shares[0] > shares[1] > shares[2] and shares[1] > 0.2


def test_held_out_questions_are_held_out():
    """Catches: a passage in both halves; a random split that puts neighbours of one article on both sides."""
    pairs = [Pair(str(number), f"what is number {number}?") for number in range(100)]
    passages = {str(number): "text" for number in range(100)}
    train, test = split(pairs, TrainConfig(train=30, test=20), passages)
    assert len(train) == 30 and len(test) == 20
    assert max(int(pair.passage) for pair in train) < min(int(pair.passage) for pair in test)
    with pytest.raises(LabError):
        split(pairs[:20], TrainConfig(test=20), passages)


@pytest.mark.parametrize("field", ["test", "negatives", "batch", "epochs", "max_tokens", "train", "lr"])
def test_impossible_settings_are_refused(field):
    """Catches: a run that dies after minutes, or learns nothing in silence."""
    with pytest.raises(LabError):
        train_reranker_command.check(TrainConfig(**{field: -1}))


def test_no_trained_model_is_one_line(monkeypatch, tmp_path):
    """Catches: a traceback where the advice is to train first."""
    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path))
    with pytest.raises(LabError, match="trained"):
        CrossEncoderReranker.of_latest_run()
    with pytest.raises(LabError, match="cross-encoder"):
        CrossEncoderReranker(tmp_path)


@pytest.mark.assets
@WRITTEN
def test_training_leaves_a_model_that_reranks():
    """Catches: a trainer that changes nothing, a folder that cannot be loaded, a weight that is not kept."""
    train_reranker_command.run_train_reranker(PRESETS["smoke"], "smoke")
    folder = latest_run("stage2", "rag", "train-reranker")
    report = read_report(folder)
    assert report["status"] == "finished" and report["artefacts"][0]["kind"] == "model"
    reranker = CrossEncoderReranker.of_latest_run()
    assert reranker.weight == json.loads((folder / "model" / "reranker.json").read_text())["weight"]
    assert reranker.weight == report["metrics"]["weight"]["value"]
    assert "WikiText-2" in (folder / "model" / "README.md").read_text()
    pairs = [("who dances?", text) for text in PASSAGES.values()]
    scores = reranker.score_pairs(pairs)
    assert scores.shape == (4,) and np.isfinite(scores).all() and np.ptp(scores) > 0
    np.testing.assert_allclose(reranker.score_pairs(pairs[::-1]), scores[::-1], atol=0.05)  # bfloat16, other padding


@pytest.mark.assets
def test_query_likelihood_prefers_the_passage_that_answers():
    """Catches: scores that are one token off, or those of the passage instead of the question."""
    llm = QueryLikelihood(data.fetch("smollm2-135m-instruct"))
    question = "Who decoded the dance of honey bees?"
    scores = llm.score_pairs([(question, text) for text in PASSAGES.values()])
    assert scores.argmax() == 0 and (scores < 0).all()
    alone = llm.score_pairs([(question, PASSAGES["20"])])
    assert alone[0] == pytest.approx(scores[1], abs=0.1)  # bfloat16; padding must not matter beyond it
