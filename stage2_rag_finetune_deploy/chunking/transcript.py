"""A meeting's transcript as turns: who speaks from where to where, and when.

    [00:03:12] Mei Lin: So week forty-two, we did 18,240 orders.

A line that opens no turn goes on with the one before. Subtitle files (WebVTT, SRT) are first written as such lines by
`readers.py`, so that there is one form to know.
"""

import bisect
import re
from dataclasses import dataclass, replace

NAME = r"(?:[A-Z\u00c0-\u024f][\w.'’-]*(?:[ ][\w.'’()-]+){0,3}|[\u3400-\u9fff·]{1,10})"
TIMED = re.compile(
    rf"[\[(]?(?P<time>(?:\d+:)?\d{{1,2}}:\d{{2}})(?:[.,]\d+)?[\])]?[ \t]+(?P<name>{NAME})[ ]?[:：][ \t]*"
)
UNTIMED = re.compile(rf"(?P<name>{NAME})[ ]?[:：][ \t]+|(?P<chinese>[\u3400-\u9fff·]{{1,10}})：")
MOSTLY = 0.6  # share of lines that must open a turn in a transcript


@dataclass(frozen=True)
class Turn:
    """What one speaker says in one go.

    Attributes:
        start, end: offsets of the whole turn in the text, time and name included.
        said: offset where the words begin.
        speaker: "" for what stands before the first turn.
        seconds: since the beginning of the meeting; None where the transcript has no times.
    """

    start: int
    end: int
    said: int
    speaker: str
    seconds: int | None


def open_turn(line: str) -> tuple[str, int | None, int] | None:
    """Speaker, time and the offset of the words, where the line opens a turn."""
    if match := TIMED.match(line):
        return match["name"], parse_time(match["time"]), match.end()
    if match := UNTIMED.match(line):
        return match["name"] or match["chinese"], None, match.end()
    return None


def find_turns(text: str) -> list[Turn]:
    """The turns of a transcript, one after the other without a gap: the first starts at 0, the last ends the text.

    Lines before the first turn are a turn of nobody; a line that opens no turn belongs to the turn before.
    """
    openings: list[tuple[int, tuple[str, int | None, int]]] = []
    offset = 0
    for line in text.splitlines(keepends=True):
        if opened := open_turn(line):
            openings.append((offset, opened))
        offset += len(line)
    if not openings or openings[0][0] > 0:
        openings.insert(0, (0, ("", None, 0)))
    ends = [start for start, _ in openings[1:]] + [len(text)]
    return [
        Turn(start, end, start + words, speaker, seconds)
        for (start, (speaker, seconds, words)), end in zip(openings, ends, strict=True)
        if end > start
    ]


def is_transcript(text: str) -> bool:
    """Whether most lines open a turn, and two people speak."""
    lines = [line for line in text[:20_000].splitlines() if line.strip()]
    opened = [opening for line in lines if (opening := open_turn(line))]
    return len(opened) >= max(3, MOSTLY * len(lines)) and len({speaker for speaker, _, _ in opened}) > 1


def parse_time(text: str) -> int:
    """`1:02:03` or `2:03` in seconds."""
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds


def show_time(seconds: int) -> str:
    """Seconds as hh:mm:ss."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


@dataclass(frozen=True)
class Place:
    """Where a turn stands in a `Script`: from its name on, its words from `said` to `end`; `joined` to another."""

    start: int
    said: int
    end: int
    joined: bool


class Script:
    """A transcript without its times: "Name: words" a turn, turns of one speaker in a row joined.

    This is what speaker and topic chunks say; the times go into the metadata. `raw` leads back to the document.

    Attributes:
        text: all turns, a line each.
        turns: (start, end) in `text` of each turn.
    """

    def __init__(self, document: str) -> None:
        self.turns: list[tuple[int, int]] = []
        self._turns: list[Turn] = []
        self._places: list[Place] = []  # of each turn of the document, in their order
        parts: list[str] = []
        length = 0
        for turn in find_turns(document):
            words = document[turn.said : turn.end].rstrip()
            if not words and self._turns:  # who says nothing has no turn: it belongs to the one before
                self._turns[-1] = replace(self._turns[-1], end=turn.end)
                continue
            joined = bool(self._turns) and turn.speaker != "" and turn.speaker == self._turns[-1].speaker
            self._turns.append(turn)
            if joined:
                parts[-1], length = parts[-1].removesuffix("\n"), length - 1
            head = " " if joined else f"{turn.speaker}: " if turn.speaker else ""
            self._places.append(Place(length, length + len(head), length + len(head) + len(words), joined))
            parts.append(f"{head}{words}\n")
            start = self.turns.pop()[0] if joined else length
            length += len(parts[-1])
            self.turns.append((start, length))
        self.text = "".join(parts)
        self.speakers = {turn.speaker for turn in self._turns}

    def spoken(self, start: int, end: int) -> list[Turn]:
        """The turns of the document that a part of `text` touches; never none."""
        return self._turns[self._number(start) : self._number(max(start, end - 1)) + 1]

    def begins_turn(self, start: int) -> bool:
        """Whether a name stands at this place of `text`."""
        place = bisect.bisect_left(self.turns, (start, 0))
        return place < len(self.turns) and self.turns[place][0] == start

    def raw(self, start: int, end: int) -> tuple[int, int]:
        """A part of `text` as offsets in the document; a part that begins a turn takes its time and name along."""
        first, last = self._number(start), self._number(max(start, end - 1))
        place, turn = self._places[first], self._turns[first]
        begins = start <= (place.said if place.joined else place.start)
        begin = turn.start if begins else turn.said + max(0, start - place.said)
        place, turn = self._places[last], self._turns[last]
        if end >= place.end:
            return begin, turn.end
        if end <= place.said:
            return begin, turn.start if place.joined else turn.said
        return begin, turn.said + end - place.said

    def _number(self, offset: int) -> int:
        """The document's turn at a place of `text`."""
        return max(0, bisect.bisect_right(self._places, offset, key=lambda place: place.start) - 1)
