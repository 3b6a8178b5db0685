"""Every writer that must not pass for coherent fails; real text passes. On both corpora."""

import hashlib
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import data
from milestones import month1
from milestones.calibrate import control_writers
from milestones.control_texts import shuffled_text, write_texts
from milestones.criteria import load_criteria
from milestones.grade import FAILED, Context
from milestones.independent_model import IndependentModel
from milestones.ngram_model import NgramModel
from milestones.reference_corpus import ReferenceCorpus, load_reference
from milestones.text_judge import TEXT_CHECKS, TextJudge

pytestmark = pytest.mark.assets
MONTH = load_criteria().month(1)
CORPORA = ("tiny-shakespeare", "sanguo")
SIZE = (MONTH.settings["samples"], MONTH.settings["characters"])

# the checks that must catch each control, whatever else does
CAUGHT_BY = {
    "single characters by frequency": {"real_words"},
    "3-gram sampler": {"real_words"},
    "4-gram sampler": {"real_words"},
    "copies passages": {"longest_copy", "copied_share"},
    "stitches long copies": {"longest_copy", "copied_share"},
    "stitches short copies": {"copied_share"},
    "one good sentence repeated": {"distinct", "longest_copy", "copied_share"},
}

CAUGHT_BY_IN_CHINESE = {
    "single characters by frequency": {"real_words"},
    "4-gram sampler": {"longest_copy", "copied_share"},
    "5-gram sampler": {"longest_copy", "copied_share"},
    "copies passages": {"longest_copy", "copied_share"},
    "stitches long copies": {"copied_share"},
    "stitches short copies": {"copied_share"},
    "one good sentence repeated": {"distinct", "longest_copy", "copied_share"},
}
# what writes real words and copies little is left to the independent model
READ_BY_THE_MODEL = {"tiny-shakespeare": {"5-gram sampler"}, "sanguo": {"3-gram sampler"}}


@cache
def corpus_of(name: str) -> ReferenceCorpus:
    sha256 = hashlib.sha256(data.load_text(name).encode()).hexdigest()
    return load_reference({"name": name, "sha256": sha256}, MONTH.settings)


@cache
def judge_of(name: str) -> TextJudge:
    return TextJudge(corpus_of(name), random.Random(1), *SIZE)


@cache
def reader() -> IndependentModel:
    return IndependentModel()


def outside(name: str, judge: TextJudge, texts: list[str], **options) -> set[str]:
    """The checks that texts fail, of those that were measured."""
    figures = judge.measure(texts, **options)
    values = {id: figures.value(id) for id in TEXT_CHECKS}
    failed = {id for id, value in values.items() if not MONTH.check(id).threshold(name).holds(value)}
    return failed - {id for id, value in values.items() if value is None}


@cache
def controls(name: str) -> dict[str, list[str]]:
    """The texts of every control, by the names of CAUGHT_BY."""
    rng = random.Random(2)
    written = {
        control: write_texts(write, rng, *SIZE) for control, write in control_writers(corpus_of(name)).items()
    }
    run = corpus_of(name).settings["copied_run"]
    for control, size in (("stitches long copies", 2 * run), ("stitches short copies", run)):
        written[control] = written.pop(f"stitches copies of {size} characters")
    return written


@pytest.mark.parametrize("control", CAUGHT_BY)
def test_control_fails_on_shakespeare(control: str) -> None:
    """Catches: a threshold so low that writing without a language model passes for coherent text."""
    texts = controls("tiny-shakespeare")[control]
    assert outside("tiny-shakespeare", judge_of("tiny-shakespeare"), texts) >= CAUGHT_BY[control]


@pytest.mark.parametrize("control", CAUGHT_BY_IN_CHINESE)
def test_control_fails_on_sanguo(control: str) -> None:
    """Catches: the same in Chinese, where a character sampler needs a shorter past to write real pairs."""
    failed = outside("sanguo", judge_of("sanguo"), controls("sanguo")[control])
    assert failed >= CAUGHT_BY_IN_CHINESE[control]


def test_every_control_is_tested() -> None:
    """Catches: a control added to the table that no test holds to its failure."""
    assert set(controls("tiny-shakespeare")) == set(CAUGHT_BY) | READ_BY_THE_MODEL["tiny-shakespeare"]
    assert set(controls("sanguo")) == set(CAUGHT_BY_IN_CHINESE) | READ_BY_THE_MODEL["sanguo"]


@pytest.mark.parametrize("name", ["tiny-shakespeare", pytest.param("sanguo", marks=pytest.mark.slow)])  # a minute
def test_the_model_tells_shuffled_from_real(name: str) -> None:
    """Catches: shuffled text, or a sampler that writes real words, that passes; real text that does not."""
    full, rng = corpus_of(name), random.Random(3)
    corpus = replace(full, settings=full.settings | {"judge_texts": 6})  # a part of the reading time
    judge = TextJudge(corpus, random.Random(1), *SIZE, reader())
    real = [text for _, text in corpus.unseen_passages(rng, *SIZE)]
    assert outside(name, judge, real, copied_from=full.trained_on) == set()
    shuffled = [shuffled_text(text, corpus.units, rng) for text in real]
    assert "likelihood" in outside(name, judge, shuffled)
    for sampler in READ_BY_THE_MODEL[name]:
        assert "likelihood" in outside(name, judge, controls(name)[sampler])


@pytest.mark.parametrize(("name", "n"), [("tiny-shakespeare", 4), ("sanguo", 3)])
def test_ngram_model_does_not_reach_the_bits_of_a_mini_gpt(name: str, n: int) -> None:
    """Catches: a bound that counting characters reaches, smoothing included."""
    corpus = corpus_of(name)
    context = Context(MONTH, Path(), Path(), seed=4)
    passages = month1.draw_passages(context, corpus, tokens=25)
    bits = NgramModel(corpus.train, n).bits_per_character(passages)
    assert month1.bits_result(context, corpus, bits, passages).status == FAILED
