"""Training, on a set whose secret is known (conftest.py). Each test names the bug that it catches."""

import random
from dataclasses import replace

import numpy as np
import pytest

import data
from stage1_foundations.embeddings.bm25 import Bm25
from stage1_foundations.embeddings.bootstrap import over_repetitions, paired_bootstrap
from stage1_foundations.embeddings.evaluation import score_task
from stage1_foundations.embeddings.fine_tuning import freeze, held_out_pairs, split_pairs, train_pairs
from stage1_foundations.embeddings.tasks import HeldOut
from stage1_foundations.embeddings.train_command import PRESETS, TrainConfig, leak
from stage1_foundations.embeddings.transformer_encoder import TransformerEncoder

SETTINGS = TrainConfig(model="tiny", data="secret", pairs=160, test=60, passages=0, batch=32, epochs=12, lr=3e-3,
                       temperature=0.05, layers=0, max_tokens=16)  # fmt: skip


@pytest.fixture(scope="module")
def split(secret_set):
    """160 pairs to train on, 60 questions held out among all 240 passages."""
    return split_pairs(secret_set, SETTINGS.pairs, SETTINGS.test, None, seed=1)


def scores(encoder, held_out) -> np.ndarray:
    """nDCG@10 of every query."""
    return score_task(encoder, HeldOut(held_out)).items.values


@pytest.fixture(scope="module")
def trained(tiny_folder, split):
    """An encoder after training, and its losses."""
    encoder = TransformerEncoder(tiny_folder, name="tiny")
    return encoder, train_pairs(encoder, split.train, SETTINGS, seed=1)


def test_what_was_learnt_carries_over_to_unseen_queries(trained, split, tiny):
    """Catches: pairs that do not belong together, a frozen model, a test that cannot see a large gain."""
    encoder, losses = trained
    gain = paired_bootstrap(scores(tiny, split.held_out), scores(encoder, split.held_out))
    assert gain.significant and gain.difference > 0.3 and gain.p < 0.001
    assert losses[0] == pytest.approx(np.log(32), abs=0.5) and np.mean(losses[-5:]) < 0.5 * losses[0]
    assert len(losses) == 12 * 5
    assert score_task(Bm25(), HeldOut(split.held_out)).score < 0.1  # no word is shared


def test_learning_rate_zero_shows_no_gain(tiny, split):
    """Negative control. Catches: a gain from measuring twice, from dropout left on, from a shorter window."""
    before = scores(tiny, split.held_out)
    weights = [weight.clone() for weight in tiny.model.parameters()]
    train_pairs(tiny, split.train[:64], replace(SETTINGS, lr=0.0, epochs=1), seed=1)
    assert all((old == new).all() for old, new in zip(weights, tiny.model.parameters(), strict=True))
    nothing = paired_bootstrap(before, scores(tiny, split.held_out))
    assert nothing.difference == pytest.approx(0, abs=1e-6) and not nothing.significant and nothing.p > 0.5
    assert not tiny.model.training and tiny.model.max_seq_length == 32


def test_shuffled_pairs_teach_nothing(tiny, split):
    """Negative control. Catches: a gain that does not come from the pairs."""
    before = scores(tiny, split.held_out)
    wrong = [(query, passage) for (query, _), (_, passage) in zip(split.train, split.train[1:] + split.train[:1],
                                                                  strict=True)]  # fmt: skip
    train_pairs(tiny, wrong, replace(SETTINGS, epochs=4), seed=1)
    assert scores(tiny, split.held_out).mean() < before.mean() + 0.1


def test_training_on_the_test_shows(secret_set, tiny_folder, monkeypatch):
    """Catches: a leak that changes nothing. Passages and questions are paired at random: there is nothing to learn, so
    the honest model stays at chance, and the other one knows by heart what it has seen, and only that.
    """
    monkeypatch.setattr("stage1_foundations.embeddings.train_command.trainable",
                        lambda name: TransformerEncoder(tiny_folder, name=name))  # fmt: skip
    names = list(secret_set.corpus)
    random.Random(2).shuffle(names)
    qrels = {query: {name: 1} for query, name in zip(secret_set.qrels, names, strict=True)}
    nonsense = replace(secret_set, qrels=qrels)
    config = replace(SETTINGS, pairs=40, test=40, batch=20, epochs=20)
    split = split_pairs(nonsense, config.pairs, config.test, None, config.seed)
    honest = TransformerEncoder(tiny_folder, name="tiny")
    train_pairs(honest, split.train, config, config.seed)
    leaked = leak(config, split, nonsense)
    on_test = paired_bootstrap(scores(honest, split.held_out), leaked["on the leaked queries"])
    assert on_test.significant and on_test.difference > 0.4
    assert leaked["on fresh queries, after"].mean() < 0.2 > scores(honest, split.held_out).mean()


def test_split_shares_neither_query_nor_passage(secret_set):
    """Catches: the held-out passages among the training pairs: half of the answer given away."""
    split = split_pairs(secret_set, 500, 60, None, seed=2)
    held_out = held_out_pairs(split.held_out)
    assert len(split.train) == 180 and len(held_out) == 60
    assert not {query for query, _ in split.train} & {query for query, _ in held_out}
    assert not {passage for _, passage in split.train} & {passage for _, passage in held_out}
    assert split_pairs(secret_set, 500, 60, None, seed=2) == split != split_pairs(secret_set, 500, 60, None, seed=3)
    assert all(query.split()[0][3:] in [word[3:] for word in passage.split()] for query, passage in split.train)


def test_questions_with_the_same_text_stay_on_one_side():
    """Catches: a question asked of two passages that is in both parts."""
    twice = data.RetrievalSet("twice", "en", {f"p{n}": f"passage {n}" for n in range(40)},
                              {f"q{n}": f"question {n // 2}" for n in range(40)},
                              {f"q{n}": {f"p{n}": 1} for n in range(40)})  # fmt: skip
    split = split_pairs(twice, 40, 10, None, seed=1)
    assert not {query for query, _ in split.train} & set(split.held_out.queries.values())


@pytest.mark.assets
@pytest.mark.parametrize("name", ["squad", "amazon-reviews"])
def test_canary_sets_are_refused(name, cli):
    """Catches: training on an evaluation set."""
    code, _, err = cli("train", "--preset", "smoke", "--data", name)
    assert code == 2 and "carries a canary" in err and "idioms" in err


def test_frozen_layers_do_not_move(tiny, split):
    """Catches: a freeze that freezes nothing, or everything."""
    total = sum(weight.numel() for weight in tiny.model.parameters())
    assert 0 < freeze(tiny.model, 1) < total / 2
    lower, upper = tiny.model[0].model.encoder.layer
    before = [lower.output.dense.weight.clone(), upper.output.dense.weight.clone()]
    train_pairs(tiny, split.train[:64], replace(SETTINGS, epochs=1, layers=1), seed=1)
    assert (lower.output.dense.weight == before[0]).all() and (upper.output.dense.weight != before[1]).any()


def test_same_seed_same_model(tiny_folder, split, trained):
    """Catches: an order of the pairs, or dropout, that the seed does not decide."""
    losses = [train_pairs(TransformerEncoder(tiny_folder), split.train, replace(SETTINGS, epochs=1), seed=seed)
              for seed in (1, 1, 2)]  # fmt: skip
    assert losses[0] == losses[1] != losses[2]


def test_mean_interval_is_students():
    """Catches: the normal quantile for three values, which is half as wide: t(0.975, 2) = 4.303."""
    found = over_repetitions([9.0, 10.0, 11.0])
    low, high = found.low, found.high
    assert [low, high] == pytest.approx([10 - 4.303 / 3**0.5, 10 + 4.303 / 3**0.5], abs=1e-3)
    alike = over_repetitions([2.0, 2.0])
    assert (alike.low, alike.high) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", 0], "--pairs 0 is no positive number"),
        (["--max-tokens", -1], "--max-tokens -1"),
        (["--batch", 1], "batch of 2 pairs"),
        (["--pairs", 10, "--batch", 20], "a full batch"),
        (["--lr", -1], "learning rate"),
        (["--lr", "nan"], "learning rate"),
        (["--temperature", 0], "temperature"),
    ],
)
def test_settings_that_cannot_train(cli, runs, words, message):
    """Catches: an error from deep inside the trainer, and a run's folder left behind for it."""
    code, _, err = cli("train", *words)
    assert code == 2 and message in err and not runs.exists()


@pytest.mark.assets
def test_sets_too_small_and_models_without_weights(cli):
    """Catches: a held-out part larger than the set, a gradient for word counts."""
    code, _, err = cli("train", "--preset", "smoke", "--test", 500, "--passages", 0)
    assert code == 2 and "too few to hold out 500" in err
    code, _, err = cli("train", "--preset", "smoke", "--model", "random")
    assert code == 2 and "random cannot be fine-tuned" in err


def test_presets_are_of_one_kind():
    """Catches: a preset that trains on a set with a canary."""
    assert all(config.data in ("idioms", "construction-faq") for config in PRESETS.values())
    assert PRESETS["study"].seeds == 3 and PRESETS["study"].leak
