"""Meetings written for the course, with their topics and with questions whose evidence is known to the turn.

meetings/README.md says how they were written. Beside each transcript lies a TOML file with its labels; everything in
it is checked when it is read, so a label that a corrected transcript has left behind is found at once.
"""

import datetime
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from data.transcripts import Turn, read_transcript
from labkit.errors import LabError

FOLDER = Path(__file__).with_name("meetings")
LANGUAGES = ("en", "zh")
KINDS = ("fact", "who", "decision", "revised", "multi_turn", "action")
SHIFTS = ("opening", "announced", "drift", "return")


@dataclass(frozen=True)
class Topic:
    """A run of turns about one thing; topics follow each other without gaps.

    Attributes:
        first, last: indexes of turns, both included.
        title: the same as an earlier one's when the talk returns to it.
        shift: how the talk came here: "opening", "announced", "drift" or "return".
    """

    first: int
    last: int
    title: str
    shift: str


@dataclass(frozen=True)
class Evidence:
    """Where an answer stands: turns `first` to `last` (both included), and the words in one of them that carry it."""

    first: int
    last: int
    quote: str


@dataclass(frozen=True)
class MeetingQuestion:
    """A question that its meeting answers.

    Attributes:
        kind: "fact", "who", "decision", "revised" (what was said first does not stand), "multi_turn" (no single turn
            holds the answer) or "action".
        evidence: all the places needed for the answer.
        speaker: whose statement is asked for, where that matters.
        superseded: for "revised", where the overtaken version stands: a tempting hit with a wrong answer.
    """

    id: str
    kind: str
    question: str
    answer: str
    evidence: tuple[Evidence, ...]
    speaker: str | None = None
    superseded: tuple[Evidence, ...] = ()

    @property
    def relevant(self) -> frozenset[int]:
        """The indexes of the turns that a retriever should bring."""
        return frozenset(turn for place in self.evidence for turn in range(place.first, place.last + 1))


@dataclass(frozen=True)
class Meeting:
    """One meeting. `speakers` maps a name, as in the transcript, to what the person does there."""

    id: str
    language: str
    title: str
    date: datetime.date
    setting: str
    path: Path
    speakers: dict[str, str]
    turns: tuple[Turn, ...]
    topics: tuple[Topic, ...]
    questions: tuple[MeetingQuestion, ...]


def load_meetings(language: str | None = None) -> list[Meeting]:
    """All meetings, or those in one language, by id.

    Raises:
        LabError: an unknown language, or a label that does not fit its transcript (with file and line).
    """
    if language not in (None, *LANGUAGES):
        raise LabError(f"there are no meetings in {language!r}", f"one of {', '.join(LANGUAGES)}")
    wanted = LANGUAGES if language is None else (language,)
    return [read_meeting(path) for name in wanted for path in sorted((FOLDER / name).glob("*.toml"))]


def read_meeting(path: Path) -> Meeting:
    """One meeting from its label file; the transcript lies beside it. The id is "language-file name"."""
    labels = LabelFile(path)
    head = labels.head()
    turns = tuple(read_transcript(path.with_name(head["transcript"]), head["speakers"]))
    strangers = {turn.speaker for turn in turns} - set(head["speakers"])
    if strangers:
        raise labels.wrong(1, f"[speakers] lacks {', '.join(sorted(strangers))}")
    return Meeting(
        id=f"{head['language']}-{path.stem}",
        language=head["language"],
        title=head["title"],
        date=head["date"],
        setting=head["setting"],
        path=path.with_name(head["transcript"]),
        speakers=head["speakers"],
        turns=turns,
        topics=tuple(topics(labels, turns)),
        questions=tuple(questions(labels, turns, head["speakers"])),
    )


class LabelFile:
    """A TOML file that knows on which line each of its tables begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8")
        try:
            self.content: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise LabError(f"{path.name}: {error}", f"open {path.name} there and put it right") from None
        self.lines = {
            name: [n for n, line in enumerate(text.splitlines(), 1) if re.match(rf"\[\[{name}\]\]", line)]
            for name in ("topics", "questions")
        }

    def wrong(self, line: int, what: str) -> LabError:
        return LabError(f"{self.path.name}, line {line}: {what}", f"open {self.path.name} at line {line}")

    def head(self) -> dict[str, Any]:
        """The fields above the first table, and the speakers."""
        types = {"title": str, "language": str, "date": datetime.date, "setting": str, "transcript": str,
                 "speakers": dict}  # fmt: skip
        for name, kind in types.items():
            if not isinstance(self.content.get(name), kind):
                raise self.wrong(1, f"{name} is missing or not a {kind.__name__}")
        if self.content["language"] not in LANGUAGES:
            raise self.wrong(1, f"the language is {self.content['language']!r}, not one of {', '.join(LANGUAGES)}")
        return self.content

    def tables(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each table of that name, with its line."""
        rows = self.content.get(name, [])
        if not rows or len(rows) != len(self.lines[name]):
            raise self.wrong(1, f"there are no [[{name}]], or they are not written as [[{name}]]")
        yield from zip(self.lines[name], rows, strict=True)

    def build(self, kind: type, line: int, row: dict[str, Any]) -> Any:
        """A dataclass from a table; a misspelt or missing field is an error."""
        known = {field.name for field in fields(kind)}
        if not isinstance(row, dict) or set(row) - known:
            raise self.wrong(line, f"{kind.__name__} has no field {', '.join(sorted(set(row) - known))}")
        try:
            return kind(**row)
        except TypeError as error:
            raise self.wrong(line, str(error).split("() ")[-1]) from None


def topics(labels: LabelFile, turns: tuple[Turn, ...]) -> Iterator[Topic]:
    """The topics in order, which together cover every turn once."""
    due, titles = 0, set()
    for line, row in labels.tables("topics"):
        topic = labels.build(Topic, line, row)
        if topic.first != due or not topic.first <= topic.last < len(turns):
            raise labels.wrong(line, f"turns {topic.first} to {topic.last}, but {due} is next and {len(turns)} exist")
        if topic.shift not in SHIFTS or (topic.shift == "opening") != (due == 0):
            raise labels.wrong(line, f"the shift {topic.shift!r} is unknown or in the wrong place")
        if (topic.shift == "return") != (topic.title in titles):
            raise labels.wrong(line, "a return has the title of an earlier topic, and nothing else has")
        titles.add(topic.title)
        due = topic.last + 1
        yield topic
    if due != len(turns):
        raise labels.wrong(line, f"the turns {due} to {len(turns) - 1} belong to no topic")


def questions(labels: LabelFile, turns: tuple[Turn, ...], speakers: dict[str, str]) -> Iterator[MeetingQuestion]:
    """The questions, each held against the transcript."""
    ids = set()
    for line, row in labels.tables("questions"):
        places = {
            name: tuple(evidence(labels, line, place, turns) for place in row.get(name, ()))
            for name in ("evidence", "superseded")
        }
        question = labels.build(MeetingQuestion, line, row | places)
        if question.id in ids or not question.question.strip() or not question.answer.strip():
            raise labels.wrong(line, f"{question.id}: the id is taken, or the question or the answer is empty")
        ids.add(question.id)
        if question.kind not in KINDS:
            raise labels.wrong(line, f"the kind {question.kind!r} is not one of {', '.join(KINDS)}")
        if not question.evidence:
            raise labels.wrong(line, "the question has no evidence")
        if (question.kind == "revised") != bool(question.superseded):
            raise labels.wrong(line, "superseded belongs to revised questions, and to all of them")
        if question.speaker is not None:
            check_speaker(labels, line, question, turns, speakers)
        yield question


def evidence(labels: LabelFile, line: int, row: dict[str, Any], turns: tuple[Turn, ...]) -> Evidence:
    """A place of the transcript, whose quote stands verbatim in one of its turns."""
    place = labels.build(Evidence, line, row)
    if not 0 <= place.first <= place.last < len(turns):
        raise labels.wrong(line, f"turns {place.first} to {place.last} of {len(turns)}")
    if not place.quote or not any(place.quote in turn.text for turn in turns[place.first : place.last + 1]):
        raise labels.wrong(line, f"turns {place.first} to {place.last} do not say {place.quote!r}")
    return place


def check_speaker(
    labels: LabelFile, line: int, question: MeetingQuestion, turns: tuple[Turn, ...], speakers: dict[str, str]
) -> None:
    """Whose statement is asked for must have made it."""
    if question.speaker not in speakers:
        raise labels.wrong(line, f"{question.speaker!r} is not in the meeting")
    quoted = {
        turn.speaker for place in question.evidence for turn in turns[place.first : place.last + 1]
        if place.quote in turn.text
    }  # fmt: skip
    if question.speaker not in quoted:
        raise labels.wrong(line, f"the quote is not {question.speaker}'s")
