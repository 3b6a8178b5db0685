"""Transcripts of meetings: plain text, WebVTT and SubRip, read into the same turns.

    [00:03:12] Mei Lin: ...        one line a turn (.txt); the colon may be a Chinese one
    <v Mei Lin>...</v>             a cue of WebVTT (.vtt), W3C, https://www.w3.org/TR/webvtt1/
    Mei Lin: ...                   a cue of SubRip (.srt), which has no speakers of its own: the label opens the text

A long turn fills several cues, so neighbouring cues of one speaker are put together again.
"""

import html
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.errors import LabError

LINE = re.compile(r"\[(\d+):(\d\d):(\d\d)\]\s*([^:：]+?)\s*[:：]\s*(.+)")
STAMP = r"(?:(\d+):)?(\d\d):(\d\d)[.,](\d{3})"
TIMING = re.compile(rf"{STAMP}\s+-->\s+{STAMP}(?:\s.*)?")
VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
LABEL = re.compile(r"([^\W\d_][^:：<>\n]{0,39}?)\s*[:：]\s*(?=\S)")
FORMATS = (".txt", ".vtt", ".srt")


@dataclass(frozen=True)
class Turn:
    """What one person says until another speaks.

    Attributes:
        index: 0 for the first turn.
        start, end: seconds from the start of the recording; `end` is None where the format does not tell.
    """

    index: int
    speaker: str
    text: str
    start: float
    end: float | None = None


@dataclass(frozen=True)
class Cue:
    """A block of a subtitle file, or a part of one that a single person speaks. `speaker` is None when unnamed."""

    line: int
    start: float
    end: float
    speaker: str | None
    text: str


def read_transcript(path: str | Path, speakers: Collection[str] | None = None) -> list[Turn]:
    """The turns of a transcript, by the file's suffix.

    Args:
        speakers: the names that may open a SubRip cue. Without them a label counts when it occurs at least twice.

    Raises:
        LabError: the file is missing, empty, not UTF-8 or of another format; a line is malformed; times do not rise.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise LabError(f"{path.name} is no transcript that can be read", f"a file that ends in {', '.join(FORMATS)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise LabError(f"the transcript {path} was not found", "check the path") from None
    except UnicodeDecodeError as error:
        raise LabError(f"{path.name} is not UTF-8 (byte {error.start})", "save it again as UTF-8") from None
    if path.suffix.lower() == ".txt":
        turns = plain_turns(text, path.name)
    elif path.suffix.lower() == ".vtt":
        turns = merged(webvtt_cues(text, path.name), path.name)
    else:
        turns = merged(subrip_cues(text, path.name, speakers), path.name)
    if not turns:
        raise LabError(f"{path.name} has no turns", "an export that contains the words, not only the audio")
    return turns


def wrong_line(name: str, line: int, what: str) -> LabError:
    return LabError(f"{name}, line {line}: {what}", f"open {name} at line {line} and put it right")


def plain_turns(text: str, name: str) -> list[Turn]:
    """One turn a line; blank lines are skipped."""
    turns: list[Turn] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line.strip())
        if not match:
            raise wrong_line(name, number, "expected [hh:mm:ss] Speaker: text")
        hours, minutes, seconds, speaker, said = match.groups()
        start = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        if turns and start <= turns[-1].start:
            raise wrong_line(name, number, "the time does not rise")
        turns.append(Turn(len(turns), speaker, said, start))
    return turns


def blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines without a blank one, each with the number of its first line."""
    block: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            block.append(line.strip())
        elif block:
            yield number - len(block), block
            block = []


def timed_blocks(text: str, name: str) -> Iterator[Cue]:
    """Every block as a cue without a speaker; its lines stay apart. An identifier above the times is dropped."""
    for number, block in blocks(text):
        at = next((i for i, line in enumerate(block[:2]) if "-->" in line), None)
        match = TIMING.fullmatch(block[at]) if at is not None else None
        if not match:
            raise wrong_line(name, number, "expected a cue with start --> end")
        stamps = match.groups(default="0")
        start, end = (int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms in (stamps[:4], stamps[4:]))
        if end < start:
            raise wrong_line(name, number + at, "the cue ends before it starts")
        yield Cue(number, start, end, None, "\n".join(block[at + 1 :]))


def webvtt_cues(text: str, name: str) -> Iterator[Cue]:
    """Cues with the speaker of their voice span; a cue of several voices becomes several cues."""
    if not re.match(r"WEBVTT(?:[ \t\n]|$)", text):
        raise wrong_line(name, 1, "a WebVTT file begins with WEBVTT")
    lines = text.splitlines()
    for number, block in blocks(text):  # blank out what is no cue, so that line numbers stay
        if number == 1 or (re.match(r"(NOTE|STYLE|REGION)\b", block[0]) and "-->" not in block[0]):
            lines[number - 1 : number - 1 + len(block)] = [""] * len(block)
    for cue in timed_blocks("\n".join(lines), name):
        unnamed, *voices = VOICE.split(cue.text)
        for speaker, said in [(None, unnamed), *zip(voices[::2], voices[1::2], strict=True)]:
            said = html.unescape(re.sub(r"<[^>]*>", "", said)).replace("\n", " ").strip()
            if said:
                yield replace(cue, speaker=html.unescape(speaker) if speaker else None, text=said)


def subrip_cues(text: str, name: str, speakers: Collection[str] | None) -> Iterator[Cue]:
    """Cues with the speaker of the label that opens their text."""
    cues = list(timed_blocks(text, name))
    if speakers is None:
        labels = Counter(match[1] for cue in cues if (match := LABEL.match(cue.text)))
        speakers = {label for label, count in labels.items() if count > 1}
    for cue in cues:
        match = LABEL.match(cue.text)
        speaker = match[1] if match and match[1] in speakers else None
        said = cue.text[match.end() :] if speaker else cue.text
        yield replace(cue, speaker=speaker, text=re.sub(r"</?[a-z][^>]*>", "", said).replace("\n", " ").strip())


def merged(cues: Iterator[Cue], name: str) -> list[Turn]:
    """Cues to turns: an unnamed cue goes on with the speaker before it."""
    turns: list[Turn] = []
    last = -1.0
    for cue in cues:
        if cue.start < last:
            raise wrong_line(name, cue.line, "the time does not rise")
        last = cue.start
        speaker = cue.speaker or (turns[-1].speaker if turns else None)
        if speaker is None:
            raise wrong_line(name, cue.line, "nobody is named as the speaker")
        if turns and turns[-1].speaker == speaker:
            turns[-1] = replace(turns[-1], text=joined(turns[-1].text, cue.text), end=cue.end)
        else:
            turns.append(Turn(len(turns), speaker, cue.text, cue.start, cue.end))
    return turns


def joined(first: str, second: str) -> str:
    """Two pieces of one turn; between Chinese characters there is no space."""
    chinese = first[-1:] > "\u2e80" and second[:1] > "\u2e80"
    return first + second if chinese else f"{first} {second}".strip()
