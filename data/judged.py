"""Answers with human scores: what a judge's verdicts are held against.

judged_answers/README.md says how they were written and scored.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("judged_answers")
CRITERIA = ("accuracy", "completeness", "fluency")
KINDS = ("good", "terse", "partial", "wrong", "invented", "padded", "broken", "off_topic", "refusal")


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer to one question.

    Attributes:
        id: the question's id and the answer's kind.
        language: "en" or "zh".
        passage: what the answer had to rest on.
        reference: a full answer.
        text: the answer that was scored.
        kind: what was done to it, one of KINDS.
        scores: criterion -> 1 to 10, by people.
    """

    id: str
    language: str
    question: str
    passage: str
    reference: str
    text: str
    kind: str
    scores: dict[str, int]


def load_judged_answers(language: str | None = None) -> list[JudgedAnswer]:
    """All answers, or those in one language.

    Raises:
        ValueError: an unknown kind, or a score that is no whole number from 1 to 10.
    """
    return [answer for name in ("en", "zh") if language in (None, name) for answer in read(FOLDER / f"{name}.toml")]


def read(path: Path) -> list[JudgedAnswer]:
    """One language's file."""
    answers = []
    for question in tomllib.loads(path.read_text(encoding="utf-8"))["questions"]:
        shared = {name: question[name] for name in ("question", "passage", "reference")}
        for row in question["answers"]:
            scores = {name: row[name] for name in CRITERIA}
            if row["kind"] not in KINDS or not all(type(s) is int and 1 <= s <= 10 for s in scores.values()):
                raise ValueError(f"{path.name}, {question['id']}: {row}")
            id = f"{question['id']}-{row['kind']}"
            answers.append(JudgedAnswer(id, path.stem, **shared, text=row["text"], kind=row["kind"], scores=scores))
    return answers
