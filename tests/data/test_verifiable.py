"""Questions with verifiers. Each test names the bug that it catches."""

import pickle
import re

import pytest

import data
from data.verifiable import TASKS, last_list, last_number, last_word, read_answer
from labkit.errors import LabError

pytest.importorskip("reasoning_gym")


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_score_one_and_wrong_ones_nothing(task):
    """Catches: a reader that loses the right answer, settings that reasoning-gym refuses, a verifier that says yes."""
    questions = data.load_verifiable(task, size=20, seed=3)
    assert len({question.prompt for question in questions}) == 20
    for question in questions:
        assert data.verify(question, question.answer) == 1.0
        assert data.verify(question, f"Let me think.\nThe answer is: {question.answer}.") == 1.0
        assert data.verify(question, f"<answer>{question.answer}</answer> and that is all, 77, folks") == 1.0
        assert data.verify(question, "") == data.verify(question, "no idea") == data.verify(question, "99991") == 0.0
        assert data.verify(question, f"{question.answer}\nno, 99991 zzz") == 0.0  # only the last one counts


def test_a_set_is_the_same_every_time_and_survives_a_subprocess():
    """Catches: global random state; questions that cannot be sent to a worker."""
    one, two = data.load_verifiable(size=30, seed=5), data.load_verifiable(size=30, seed=5)
    assert one == two and [question.id for question in one[:2]] == ["chain_sum/5/1", "chain_sum/5/2"]
    copy = pickle.loads(pickle.dumps(one[0]))
    assert data.verify(copy, copy.answer) == 1.0
    assert one == data.load_verifiable(size=60, seed=5)[:30]


def test_neighbouring_seeds_are_different_questions():
    """Catches: reasoning-gym's seeds used as they are; its seeds 1 and 2 share all items but one."""
    one, two = (data.load_verifiable("gsm_symbolic", size=50, seed=seed) for seed in (1, 2))
    assert len({question.prompt for question in one} & {question.prompt for question in two}) == 0


def test_a_test_set_can_be_kept_out_of_training():
    """Catches: 'chain_sum' with small numbers, where any two sets overlap, used for both."""
    held_out = data.load_verifiable(size=200, seed=1)
    train = data.load_verifiable(size=1000, seed=2, exclude=held_out)
    prompts = {question.prompt for question in train}
    assert len(prompts) == 1000 and not prompts & {question.prompt for question in held_out}
    assert {question.prompt for question in data.load_verifiable(size=1000, seed=2)} & {q.prompt for q in held_out}


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("4 - 1 = 3", "3"),
        ("It is -4.", "-4"),
        ("−4", "-4"),
        ("= 3.0", "3"),
        ("2.50", "2.50"),
        ("1,234 apples", "1234"),
        ("８", "8"),
        ("7-3", "3"),
        ("1 2 3 4 5 6 7 8 9", "9"),
        ("three", ""),
        ("", ""),
        ("**Answer: 12**", "12"),
        ("$\\boxed{12}$", "12"),
        ("x=-7", "-7"),
    ],
)
def test_last_number(reply, number):
    """Catches: a minus lost or invented; a list of candidates that wins."""
    assert last_number(reply) == number


def test_last_word_and_last_list():
    """Catches: punctuation or the talk around an answer read as the answer."""
    assert last_word('Backwards it is: "nus".') == "nus" and last_word("12") == ""
    assert last_list("Sure!\nSorted: a, b, c.\n\n") == "a, b, c" and last_list(" \n") == ""
    assert read_answer("chain_sum", "<answer>3</answer><answer>4</answer> 5") == "4"


def test_partial_credit_is_reasoning_gyms():
    """Catches: partial credit where none was asked for: 13 holds a 3."""
    question = next(q for q in data.load_verifiable(size=50, seed=1) if len(q.answer) == 1)
    assert data.verify(question, f"1{question.answer}") == 0.0
    assert data.verify(question, f"1{question.answer}", partial=True) == 0.5


def test_bad_input(monkeypatch):
    """Catches: a traceback for a misspelt task; an endless search for questions that do not exist."""
    with pytest.raises(LabError) as error:
        data.load_verifiable("chainsum")
    assert error.value.try_next == "chain_sum"
    with pytest.raises(LabError, match="0 questions"):
        data.load_verifiable(size=0)
    monkeypatch.setattr("data.verifiable.PATIENCE", 1)
    with pytest.raises(LabError, match=r"chain_sum gave only \d+ different questions of 2000"):
        data.load_verifiable(size=2_000)


def test_repeats_keep_the_mixture():
    """Catches: a large set without its short questions; an excluded question that comes back."""
    test = data.load_verifiable("chain_sum", 100, seed=0)
    once = data.load_verifiable("chain_sum", 600, seed=1, exclude=test)
    again = data.load_verifiable("chain_sum", 600, seed=1, exclude=test, repeats=True)

    def short(questions):
        return sum(not re.search(r"\d\d", question.prompt) for question in questions) / len(questions)

    assert len({question.prompt for question in once}) == 600 > len({question.prompt for question in again})
    assert short(once) < 0.3 < short(again)
    assert not {question.prompt for question in test} & {question.prompt for question in again}
