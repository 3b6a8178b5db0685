"""A meeting's transcript as turns: who speaks from where to where, and when.

    [00:03:12] Mei Lin: So week forty-two, we did 18,240 orders.

A line that opens no turn goes on with the one before. Subtitle files (WebVTT, SRT) are first written as such lines by
`readers.py`, so that there is one form to know.
"""

import bisect
import re
from dataclasses import dataclass

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


class Script:
    """A transcript without its times: "Name: words" a turn, turns of one speaker in a row joined.

    This is what speaker and topic chunks say; the times go into the metadata. `raw` leads back to the document.

    Attributes:
        text: all turns, a line each.
        turns: (start, end) in `text` of each turn.
    """

    def __init__(self, document: str) -> None:
        self.turns: list[tuple[int, int]] = []
        self._turns: list[Turn] = find_turns(document)
        self._offsets: list[int] = []  # where each turn's words begin in `text`
        self._lengths: list[int] = []
        parts: list[str] = []
        length = 0
        for number, turn in enumerate(self._turns):
            words = document[turn.said : turn.end].rstrip()
            goes_on = number > 0 and turn.speaker and turn.speaker == self._turns[number - 1].speaker
            head = " " if goes_on else f"{turn.speaker}: " if turn.speaker else ""
            if goes_on:
                parts[-1], length = parts[-1].removesuffix("\n"), length - 1
                self.turns[-1] = (self.turns[-1][0], length + len(head) + len(words) + 1)
            else:
                self.turns.append((length, length + len(head) + len(words) + 1))
            self._offsets.append(length + len(head))
            self._lengths.append(len(words))
            parts.append(f"{head}{words}\n")
            length += len(parts[-1])
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
        inside = start - self._offsets[first]
        begin = self._turns[first].start if inside <= 0 else self._turns[first].said + inside
        return begin, self._turns[last].said + max(0, min(self._lengths[last], end - self._offsets[last]))

    def _number(self, offset: int) -> int:
        """The document's turn at a place of `text`; a name belongs to the turn behind it."""
        number = max(0, bisect.bisect_right(self._offsets, offset) - 1)
        ends = self._offsets[number] + self._lengths[number]
        return min(number + (offset > ends), len(self._turns) - 1)
