"""A language model as judge: three criteria from 1 to 10, and which of two answers is better.

The prompt is the course's (accuracy, completeness, fluency), in English and Chinese (Zheng et al. 2023, "Judging
LLM-as-a-judge"). What comes back is parsed strictly: a verdict that cannot be read is counted, never guessed.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

CRITERIA = ("accuracy", "completeness", "fluency")
LOWEST, HIGHEST = 1, 10

SCORE_PROMPT = {
    "en": """You judge an answer to a customer's question. Score three criteria from 1 (worst) to 10 (best):
accuracy: does it agree with the passage?
completeness: does it say all that the reference says?
fluency: is it clear, natural and free of padding?

Passage: {passage}
Question: {question}
Reference: {reference}
Answer: {answer}

Reply with JSON alone, like {{"accuracy": 5, "completeness": 5, "fluency": 5}}""",
    "zh": """请为客服问题的回答打分。三项标准，均为 1（最差）到 10（最好）的整数：
accuracy（准确）：是否与资料一致？
completeness（完整）：是否说全了参考答案的内容？
fluency（流畅）：是否清楚自然、没有套话？

资料：{passage}
问题：{question}
参考答案：{reference}
回答：{answer}

只输出 JSON，例如 {{"accuracy": 5, "completeness": 5, "fluency": 5}}""",
}  # fmt: skip

PREFER_PROMPT = {
    "en": """Passage: {passage}
Question: {question}
Answer A: {first}
Answer B: {second}

Which answer is better: accurate, complete and clear? Reply with the one letter A or B.
""",
    "zh": """资料：{passage}
问题：{question}
回答A：{first}
回答B：{second}

哪个回答更好（准确、完整、清楚）？只回复一个字母：A 或 B。
""",
}


@dataclass(frozen=True)
class Case:
    """What a judge is shown. `language` chooses the prompt."""

    question: str
    passage: str
    reference: str
    language: str = "en"


@dataclass(frozen=True)
class Verdict:
    """Whole numbers from 1 to 10."""

    accuracy: int
    completeness: int
    fluency: int

    @property
    def mean(self) -> float:
        """The three criteria with equal weight."""
        return (self.accuracy + self.completeness + self.fluency) / len(CRITERIA)


class Judge(Protocol):
    """Anything that scores an answer and compares two; None where its reply could not be read."""

    name: str

    def score(self, case: Case, answer: str) -> Verdict | None: ...

    def prefer(self, case: Case, first: str, second: str) -> int | None:
        """0 for the first answer, 1 for the second."""
        ...


# exercise: rag.parse_verdict
def parse_verdict(reply: str) -> Verdict | None:
    """The verdict in a reply, or None.

    The first JSON object with exactly the three criteria counts, wherever it stands: models like to wrap it in words or
    in a code fence. A score that is no whole number from 1 to 10 makes the whole verdict unreadable; numbers in prose
    ("I would say 8 of 10") are not taken.
    """
    for found in re.finditer(r"\{[^{}]*\}", reply):
        try:
            scores = json.loads(found[0])
        except ValueError:
            continue
        if set(scores) == set(CRITERIA):
            whole = all(type(score) is int and LOWEST <= score <= HIGHEST for score in scores.values())
            return Verdict(**scores) if whole else None
    return None


# end exercise


def parse_preference(reply: str) -> int | None:
    """0 for A, 1 for B; None when the reply names neither letter, or both."""
    letters = set(re.findall(r"(?<![A-Za-z])[AB](?![A-Za-z])", reply))
    return "AB".index(letters.pop()) if len(letters) == 1 else None


def score_prompt(case: Case, answer: str) -> str:
    """The course's prompt for one answer."""
    parts = {"passage": case.passage, "question": case.question, "reference": case.reference}
    return SCORE_PROMPT[case.language].format(**parts, answer=answer)


def prefer_prompt(case: Case, first: str, second: str) -> str:
    """The prompt for two answers."""
    parts = {"passage": case.passage, "question": case.question}
    return PREFER_PROMPT[case.language].format(**parts, first=first, second=second)


def judge_all(judge: Judge, cases: Sequence[Case], answers: Sequence[str]) -> tuple[list[Verdict | None], float]:
    """A verdict for every answer, and the share of replies that could not be read."""
    verdicts = [judge.score(case, answer) for case, answer in zip(cases, answers, strict=True)]
    return verdicts, sum(verdict is None for verdict in verdicts) / max(1, len(verdicts))
