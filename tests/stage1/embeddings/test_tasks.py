"""The packaged data as mteb tasks. Each test names the bug that it catches."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

import data
from labkit.assets import cache_root
from stage1_foundations.embeddings.bm25 import Bm25
from stage1_foundations.embeddings.encoders import RandomEncoder, load_encoder
from stage1_foundations.embeddings.evaluation import run_task, score_task
from stage1_foundations.embeddings.item_scores import item_count
from stage1_foundations.embeddings.tasks import (
    TASKS,
    CallIntents,
    ConstructionFAQ,
    HeldOut,
    Lee,
    QuestionTypes,
    Size,
    Squad,
    SquadArticles,
    Tatoeba,
    WordSim,
    labelled_halves,
    retrieval_sample,
)

pytestmark = pytest.mark.assets
SMALL = Size(queries=60, passages=100, texts=80, experiments=2)
CHANCE = sum(1 / np.log2(rank + 1) for rank in range(1, 11))  # of nDCG@10, times the number of passages


def test_a_sample_has_a_name_of_its_own():
    """Catches: the score of a sample in mteb's cache taken for the score of the whole, or of fewer repetitions."""
    assert Squad().metadata.name == "Squad" == Squad(SMALL).short_name
    sizes = (Size(), SMALL, replace(SMALL, queries=50), replace(SMALL, passages=90))
    names = {Squad(size).metadata.name for size in sizes}
    names |= {QuestionTypes(size).metadata.name for size in (SMALL, replace(SMALL, experiments=3))}
    assert len(names) == 6
    assert Squad.metadata.name == "Squad"  # the class's own is untouched


def test_names_and_types_cover_what_the_lab_promises():
    """Catches: a task that was left out of the list."""
    kinds = [task.metadata.type for task in TASKS]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "Retrieval": 4, "STS": 2, "Classification": 2, "Clustering": 1, "BitextMining": 1,
    }  # fmt: skip


def test_halves_share_no_text():
    """Catches: a classifier that is tested on what it was trained on; classes that have no example."""
    train, test = labelled_halves("call-intents", 200)
    assert not {text for text, _ in train} & {text for text, _ in test}
    assert {label for _, label in test} <= {label for _, label in train} and len(test) == 200
    assert labelled_halves("call-intents", 200) == (train, test)


@pytest.fixture(scope="module")
def random_cells():
    """A random encoder on one task of each kind."""
    tasks = [ConstructionFAQ(SMALL), Lee(), WordSim(), QuestionTypes(SMALL), SquadArticles(SMALL), Tatoeba(SMALL)]
    return {task.short_name: (task, run_task(RandomEncoder(), task)) for task in tasks}


@pytest.mark.parametrize("name", ["ConstructionFAQ", "QuestionTypes", "SquadArticles", "Tatoeba"])
def test_mean_of_the_items_is_mtebs_score(random_cells, name):
    """Catches: items in another measure, of another split or another order. mteb rounds to five digits."""
    task, cell = random_cells[name]
    assert cell.items.values.mean() == pytest.approx(cell.score, abs=1e-5)
    if name != "SquadArticles":  # there the items are resamples
        assert len(cell.items.values) == item_count(task)


@pytest.mark.parametrize("name", ["Lee", "WordSim"])
def test_correlation_of_the_items_is_mtebs_score(random_cells, name):
    """Catches: cosines and ratings that are not of the same pair."""
    from scipy.stats import spearmanr

    _, cell = random_cells[name]
    assert spearmanr(cell.items.values, cell.items.gold)[0] == pytest.approx(cell.score, abs=1e-5)
    assert len(cell.items.sides) == len(cell.items.values)


def test_random_vectors_are_at_chance(random_cells):
    """Negative control. Catches: a leak of the labels into the ranking, or a gold passage that always comes first.

    60 questions of 100 passages: chance is 4.5 %, the standard error of the mean about 2 %.
    """
    scores = {name: cell.score for name, (_, cell) in random_cells.items()}
    assert scores["ConstructionFAQ"] == pytest.approx(CHANCE / 100, abs=0.06)
    assert scores["Tatoeba"] <= 0.06  # 1 of 80
    assert abs(scores["Lee"]) < 0.2 and abs(scores["WordSim"]) < 0.2
    assert scores["QuestionTypes"] < 0.35  # six classes


def test_real_encoders_are_far_above_random(random_cells):
    """Catches: a table in which everything is chance. GloVe knows words, MiniLM knows sentences."""
    random_score = random_cells["ConstructionFAQ"][1].score
    minilm = run_task(load_encoder("minilm"), ConstructionFAQ(SMALL)).score
    assert minilm > 0.7 > random_score + 0.4
    assert run_task(load_encoder("glove"), WordSim()).score > 0.4


def test_shuffled_labels_take_the_score_away():
    """Negative control. Catches: a score that does not come from the labels."""
    chosen = retrieval_sample("squad", 60, 100)
    golds = list(chosen.qrels.values())
    random.Random(0).shuffle(golds)
    shuffled = replace(chosen, qrels=dict(zip(chosen.qrels, golds, strict=True)))
    assert score_task(Bm25(), HeldOut(chosen)).score > 0.85
    assert score_task(Bm25(), HeldOut(shuffled)).score < 0.2


def test_second_time_comes_from_the_cache_unless_the_predictions_are_gone():
    """Catches: a result without its interval, a result of damaged predictions, a cache that is never used."""
    encoder = RandomEncoder(dimensions=24, seed=5)
    first = run_task(encoder, ConstructionFAQ(SMALL))
    again = run_task(encoder, ConstructionFAQ(SMALL))
    assert (first.cached, again.cached) == (False, True) and first.score == again.score
    np.testing.assert_array_equal(first.items.values, again.items.values)
    stored = [path for path in (cache_root() / "mteb" / "predictions").rglob("ConstructionFAQ*_predictions.json")
              if "seed-5" in str(path)]  # fmt: skip
    assert len(stored) == 1
    stored[0].write_text(json.dumps({"default": {"test": {}}}))
    healed = run_task(encoder, ConstructionFAQ(SMALL))
    assert not healed.cached and healed.score == first.score
    assert not run_task(encoder, ConstructionFAQ(SMALL), fresh=True).cached


def test_models_are_compared_on_the_same_resamples():
    """Catches: clustering whose random state moves on, so that two equal models differ."""
    from stage1_foundations.embeddings.evaluate_command import fresh_copy

    task, encoder = SquadArticles(SMALL), RandomEncoder(dimensions=12)
    scores = [score_task(encoder, fresh_copy(task)).items.values for _ in range(2)]
    np.testing.assert_array_equal(*scores)
    assert len(scores[0]) == 2 * SMALL.experiments


def test_sets_that_carry_a_canary_say_so():
    """Catches: an evaluation set that could be trained on."""
    assert data.load_retrieval("squad").canary and data.load_retrieval("amazon-reviews").canary
    assert not data.load_retrieval("idioms").canary


def test_both_halves_number_the_classes_alike():
    """Catches: class 3 of training being class 4 of testing, because a class is absent from the smaller half."""
    loaded = data.load_labelled("call-intents")
    label_of = dict(zip(loaded.texts, loaded.labels, strict=True))
    split = CallIntents(Size(texts=40)).read()
    names = {number: label_of[text] for text, number in zip(*split["train"].to_dict().values(), strict=True)}
    assert len(set(names.values())) == len(names) > 50
    assert all(names[row["label"]] == label_of[row["text"]] for row in split["test"])
