"""Judges and what they are worth. Each test names the bug that it catches."""

import math
from dataclasses import dataclass

import pytest

import data
from stage2_rag_finetune_deploy.rag.evaluation.judge import (
    Case,
    Verdict,
    judge_all,
    parse_preference,
    parse_verdict,
    prefer_prompt,
    score_prompt,
)
from stage2_rag_finetune_deploy.rag.evaluation.judge_checks import agreement, case_of, position_bias, verbosity_bias
from stage2_rag_finetune_deploy.rag.evaluation.judges import EndpointJudge, LocalJudge, RuleJudge, choose_number

ANSWERS = data.load_judged_answers()


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"accuracy": 7, "completeness": 10, "fluency": 1}', Verdict(7, 10, 1)),
        ('Sure!\n```json\n{"fluency": 3, "accuracy": 2, "completeness": 9}\n```', Verdict(2, 9, 3)),
        ('{"note": 1} then {"accuracy": 7, "completeness": 7, "fluency": 7}', Verdict(7, 7, 7)),
        ('{"accuracy": 11, "completeness": 5, "fluency": 5}', None),
        ('{"accuracy": "7", "completeness": 5, "fluency": 5}', None),
        ('{"accuracy": 7.5, "completeness": 5, "fluency": 5}', None),
        ('{"accuracy": true, "completeness": 5, "fluency": 5}', None),
        ('{"accuracy": 7, "completeness": 5}', None),
        ("I would say 8 of 10 for all three.", None),
        ('{"accuracy": 7, "completeness": 5, "fluency": ', None),
        ("", None),
    ],
)
def test_verdicts_are_parsed_strictly(reply, verdict):
    """Catches: a number picked out of prose, a score off the scale let through, a good reply in a fence refused."""
    assert parse_verdict(reply) == verdict


@pytest.mark.parametrize(
    ("reply", "winner"), [("A", 0), ("Answer B.", 1), ("**B**", 1), ("A or B", None), ("Both", None), ("", None)]
)
def test_preferences_are_parsed_strictly(reply, winner):
    """Catches: "Both" read as B, "A or B" read as A."""
    assert parse_preference(reply) == winner


def test_the_prompt_shows_everything_once_and_in_the_language():
    """Catches: answers swapped in the comparison, a part left out, the English prompt around Chinese text."""
    case = Case("Wie?", "PASSAGE", "REFERENCE", "zh")
    prompt = score_prompt(case, "ANSWER")
    assert all(prompt.count(part) == 1 for part in ("Wie?", "PASSAGE", "REFERENCE", "ANSWER")) and "准确" in prompt
    pair = prefer_prompt(Case("Why?", "P", "R"), "ONE", "TWO")
    assert pair.index("Answer A: ONE") < pair.index("Answer B: TWO") and "R" not in pair.split("Answer A")[1][:20]


def test_ten_takes_its_share_from_one():
    """Catches: 10 never chosen because its first digit is counted for 1, or 1 never chosen because of 10."""

    def model(first: dict[str, float], zero: float):
        after = {str(n): math.log(first.get(str(n), 1e-6)) for n in range(10)}
        return lambda text: {"0": math.log(zero)} if text.endswith("1") else after

    assert choose_number(model({"1": 0.6, "7": 0.4}, zero=0.9), "score: ") == 10
    assert choose_number(model({"1": 0.6, "7": 0.4}, zero=0.5), "score: ") == 7  # 0.3, 0.3 and 0.4
    assert choose_number(model({"1": 0.9, "7": 0.1}, zero=0.1), "score: ") == 1


@dataclass
class Fixed:
    """A judge with a fault of our choosing."""

    value: int = 7
    always: int | None = None
    by_length: bool = False
    name: str = "fixed"

    def score(self, case, answer):
        points = min(10, 1 + len(answer) // 40) if self.by_length else self.value
        return Verdict(points, points, points)

    def prefer(self, case, first, second):
        return self.always if self.always is not None else int(len(second) > len(first))


def test_agreement_tells_people_from_a_constant_and_from_noise():
    """Catches: a judge that says 7 to everything passing for a good one; a shifted judge called perfect."""
    people = [Verdict(**answer.scores) for answer in ANSWERS]
    assert all(row.kappa == 1 and row.difference == 0 for row in agreement(ANSWERS, people).values())
    constant = agreement(ANSWERS, [Verdict(7, 7, 7)] * len(ANSWERS))
    assert all(abs(row.kappa) < 0.05 and row.spearman == 0 for row in constant.values())
    backwards = agreement(ANSWERS, [Verdict(*(11 - s for s in answer.scores.values())) for answer in ANSWERS])
    assert all(row.kappa < 0 for row in backwards.values())
    lenient = [Verdict(*(min(10, s + 2) for s in answer.scores.values())) for answer in ANSWERS]
    assert all(row.difference > 0 and row.kappa < 1 for row in agreement(ANSWERS, lenient).values())
    with pytest.raises(ValueError, match="readable"):
        agreement(ANSWERS, [None] * len(ANSWERS))


def test_position_bias_is_seen():
    """Catches: both orders averaged away. A judge that always takes the first flips every pair."""
    first = position_bias(Fixed(always=0), ANSWERS)
    assert (first.flips, first.first, first.right) == (1.0, 1.0, 0.5)
    honest = position_bias(RuleJudge(), ANSWERS)
    assert honest.flips < 0.1 and abs(honest.first - 0.5) < 0.1 and honest.right > 0.8


def test_a_bribe_by_length_is_seen():
    """Catches: a verbosity measure that is 0 for a judge who counts characters."""
    assert verbosity_bias(Fixed(by_length=True), ANSWERS) > 1
    assert verbosity_bias(Fixed(), ANSWERS) == 0
    assert verbosity_bias(RuleJudge(), ANSWERS) < 0


def test_the_rules_agree_with_people_better_than_chance():
    """Catches: a rule that points the wrong way. Without reading meaning they reach kappa 0.5 to 0.75."""
    verdicts, unreadable = judge_all(RuleJudge(), [case_of(a) for a in ANSWERS], [a.text for a in ANSWERS])
    assert unreadable == 0
    assert all(row.kappa > 0.4 for row in agreement(ANSWERS, verdicts).values())
    shuffled = verdicts[1:] + verdicts[:1]
    assert any(row.kappa < 0.3 for row in agreement(ANSWERS, shuffled).values())


def test_unreadable_replies_are_counted():
    """Catches: a failed parse scored as 0 or dropped without a trace."""

    class Mumbling(EndpointJudge):
        def __init__(self):
            self.replies = iter(['{"accuracy": 5, "completeness": 5, "fluency": 5}', "eight?"])

        def ask(self, prompt):
            return next(self.replies)

    case = case_of(ANSWERS[0])
    verdicts, unreadable = judge_all(Mumbling(), [case, case], ["one", "two"])
    assert verdicts == [Verdict(5, 5, 5), None] and unreadable == 0.5


@pytest.mark.assets
def test_the_local_model_answers_in_the_form_and_reuses_its_prefix():
    """Catches: keys and values of another text left in the cache; a verdict off the scale."""
    from stage1_foundations.first_rag.llm import load_llm

    judge = LocalJudge(load_llm("smollm2"))
    short = [answer for answer in ANSWERS if answer.kind in ("good", "refusal")][:3]
    reused = [judge.score(case_of(answer), answer.text) for answer in short]
    fresh = [LocalJudge(judge.llm).score(case_of(answer), answer.text) for answer in short]
    assert reused == fresh
    assert judge.prefer(case_of(short[0]), short[0].text, short[1].text) in (0, 1)
