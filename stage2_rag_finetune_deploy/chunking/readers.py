"""Files to documents: HTML becomes Markdown, subtitles become a transcript, everything becomes text.

Chunkers then know two forms only, headings as `#` and turns as `[time] Name: words`, and the offsets of a chunk refer
to this text. `kind` goes into the metadata for `dispatch.py`, and stays out of every vector.
"""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from llama_index.core import Document

from labkit.cli import nearest
from labkit.errors import LabError
from stage2_rag_finetune_deploy.chunking.code import LANGUAGES
from stage2_rag_finetune_deploy.chunking.transcript import is_transcript, open_turn, parse_time, show_time

KINDS = ("markdown", "html", "python", "code", "transcript", "text")
ENDINGS = {
    ".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".py": "python", ".pyi": "python",
    ".vtt": "transcript", ".srt": "transcript", **dict.fromkeys(LANGUAGES, "code"),
}  # fmt: skip
BINARY = {".pdf", ".docx", ".xlsx", ".pptx", ".png", ".jpg", ".zip", ".gz"}
HIGH, HIGH_PAIR = re.compile(rb"[\x80-\xff]"), re.compile(rb"[\xa1-\xf7][\xa1-\xfe]")
MARKDOWN_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
PYTHON_LINE = re.compile(r"^(?:from [\w.]+ import |import \w|def \w+\(|class \w+[(:])", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A text and what kind it is."""

    text: str
    kind: str


def kind_of(name: str, text: str) -> str:
    """A document's kind by the ending of its name; where that says nothing (.txt), by a look at the text."""
    if kind := ENDINGS.get(Path(name).suffix.lower()):
        return kind
    head = text[:20_000]
    if re.match(r"\s*<(?:!doctype html|html)\b", head, re.IGNORECASE):
        return "html"
    if head.startswith("WEBVTT") or is_transcript(head):
        return "transcript"
    if len(PYTHON_LINE.findall(head)) > 2:
        return "python"
    return "markdown" if len(MARKDOWN_HEADING.findall(head)) > 1 else "text"


def make_document(name: str, text: str, kind: str | None = None) -> Document:
    """A document as the chunkers want it.

    Args:
        name: its id, for example its path; its ending tells the kind where none is given.
        kind: one of KINDS.

    Raises:
        LabError: no such kind, or nothing but white space in it.
    """
    if kind is not None and kind not in KINDS:
        raise LabError(f"no kind of document is called {kind!r}", f"--kind {nearest(kind, KINDS) or '|'.join(KINDS)}")
    kind = kind or kind_of(name, text)
    if kind == "html":
        text = html_to_markdown(text)
    elif kind == "transcript" and "-->" in text:
        text = subtitles_to_transcript(text)
    if not text.strip():
        raise LabError(f"{name} is empty", "a file with text in it")
    metadata = {"source": name, "kind": kind}
    if kind == "code":
        metadata["language"] = LANGUAGES.get(Path(name).suffix.lower(), "")
    keys = list(metadata)
    return Document(
        id_=name, text=text, metadata=metadata, excluded_embed_metadata_keys=keys, excluded_llm_metadata_keys=keys
    )


def read_file(path: Path, kind: str | None = None) -> Document:
    """One file as a document.

    Raises:
        LabError: no such file, no text file, or an empty one.
    """
    try:
        raw = path.read_bytes()
    except IsADirectoryError:
        raise LabError(f"{path} is a folder", "a file in it") from None
    except FileNotFoundError:
        raise LabError(f"there is no file {path}", "the path of a text file") from None
    if b"\0" in raw[:65_536] or path.suffix.lower() in BINARY:
        raise LabError(f"{path} is not a text file", "its text, saved as UTF-8")
    return make_document(path.name, decode(raw), kind)


def decode(raw: bytes) -> str:
    """Bytes as text with \\n line ends: UTF-8, else GB18030 (Chinese files from Windows), else Latin-1.

    GB18030 reads nearly anything, so it must look like Chinese: two high bytes side by side, where French has one.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pairs, high = len(HIGH_PAIR.findall(raw)), len(HIGH.findall(raw))
        text = raw.decode("gb18030" if 2 * pairs > 0.8 * high else "latin-1", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class MarkdownWriter(HTMLParser):
    """Visible text of a page as Markdown: headings, paragraphs, list items, code; scripts and styles vanish."""

    BLOCKS = frozenset({
        "p", "div", "section", "article", "main", "header", "footer", "nav", "table", "tr", "ul", "ol", "dl", "dt",
        "dd", "blockquote", "figure",
    })  # fmt: skip
    SILENT = frozenset(["script", "style", "noscript", "template", "svg", "head"])

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.silent = self.verbatim = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Open a block."""
        self.silent += tag in self.SILENT
        if re.fullmatch("h[1-6]", tag):
            self.parts.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag == "pre":
            self.verbatim += 1
            self.parts.append("\n\n```\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")
        elif tag in ("li", "br"):
            self.parts.append("\n- " if tag == "li" else "\n")
        elif tag in self.BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        """Close it."""
        self.silent = max(0, self.silent - (tag in self.SILENT))
        if tag == "pre" and self.verbatim:
            self.verbatim -= 1
            self.parts.append("\n```\n\n")
        elif tag in self.BLOCKS or re.fullmatch("h[1-6]", tag):
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        """Text between tags; outside `pre` runs of white space are one space."""
        if not self.silent:
            self.parts.append(data if self.verbatim else re.sub(r"\s+", " ", data))


def html_to_markdown(page: str) -> str:
    """The visible text of a page, its headings as `#`, its `pre` as fenced code."""
    writer = MarkdownWriter()
    writer.feed(page)
    writer.close()
    text = re.sub(r"[ \t]+\n", "\n", "".join(writer.parts))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


CUE = re.compile(r"(?P<start>(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})[ \t]+-->[ \t]+")
VOICE = re.compile(r"<v(?:\.[\w.]+)?[ \t]+([^>]+)>")


def subtitles_to_transcript(text: str) -> str:
    """WebVTT or SRT as `[hh:mm:ss] Name: words`, a line a turn.

    Cues are made to fit the screen, so one turn is several of them: a cue that names nobody, or the same voice as the
    one before, goes on with its turn. Notes, styles, cue numbers and positions are no speech.
    """
    turns: list[tuple[int, str, list[str]]] = []
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").lstrip("\ufeff")):
        lines = block.strip("\n").split("\n")
        place = next((number for number, line in enumerate(lines[:2]) if CUE.match(line)), None)
        if place is None:
            continue
        seconds = parse_time(re.split("[.,]", CUE.match(lines[place])["start"])[0])
        raw = " ".join(lines[place + 1 :])
        voice = VOICE.search(raw)
        words = " ".join(re.sub(r"</?[a-z][^>]*>", "", raw).split())
        speaker = voice[1].strip() if voice else ""
        if not voice and (opened := open_turn(words)):
            speaker, words = opened[0], words[opened[2] :]
        if turns and (not speaker or speaker == turns[-1][1]):
            turns[-1][2].append(words)
        elif words:
            turns.append((seconds, speaker, [words]))
    return "".join(f"[{show_time(seconds)}] {speaker}: {' '.join(words)}\n" if speaker else f"{' '.join(words)}\n"
                   for seconds, speaker, words in turns)  # fmt: skip
