"""By section: a Markdown document is cut at its headings, and every chunk knows the headings above it.

"Set `timeout` to 30." says little; "HTTP client > Retries: Set `timeout` to 30." can be found. LlamaIndex's
MarkdownNodeParser also keeps the path, but has no cap, and a section of 40 pages stays one chunk of which the encoder
reads the first. Here a long section is cut at its paragraphs, and each part gets the path.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llama_index.core.schema import BaseNode

from stage2_rag_finetune_deploy.chunking.sentences import Offsets
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter
from stage2_rag_finetune_deploy.chunking.spans import HEADER_PATH, Span, SpanParser

ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")  # CommonMark 0.31, section 4.2
SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")  # section 4.3
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")  # section 4.5
NO_PARAGRAPH = re.compile(r" {0,3}(?:[-*+>|#]|\d+[.)]|`{3}|~{3})|\s*$| {4}")  # a line that no setext underline follows
SEPARATOR = " > "
PATH_SHARE = 4  # the path may fill a quarter of the cap


@dataclass(frozen=True)
class Section:
    """A heading and the text up to the next one; `path` are the titles from the outermost to its own."""

    start: int
    end: int
    path: tuple[str, ...]


def lines_outside_code(text: str) -> Iterator[tuple[int, str, bool]]:
    """Every line with its offset, and whether it lies outside fenced code (the fences count as code)."""
    fence, offset = "", 0
    for line in text.splitlines(keepends=True):
        match = FENCE.match(line)
        if not fence and match:
            fence = match[1]
            yield offset, line, False
        elif fence:
            if match and match[1].startswith(fence) and not line[match.end() :].strip():
                fence = ""
            yield offset, line, False
        else:
            yield offset, line, True
        offset += len(line)


def find_headings(text: str) -> list[tuple[int, int, str]]:
    """Offset, level (1 to 6) and title of every heading, `# title` or underlined; a # in a code block is none."""
    headings = []
    before: tuple[int, str] | None = None  # the line before, where it may be the title of an underline
    for offset, line, outside in lines_outside_code(text):
        bare = line.rstrip("\r\n")
        if outside and (match := ATX.match(bare)):
            headings.append((offset, len(match[1]), clean_title(match[2] or "")))
            before = None
        elif outside and before and (match := SETEXT.match(bare)):
            headings.append((before[0], 1 if match[1][0] == "=" else 2, clean_title(before[1])))
            before = None
        else:
            before = (offset, bare) if outside and not NO_PARAGRAPH.match(bare) else None
    return headings


def clean_title(title: str) -> str:
    """A title without Markdown's marks: links become their text."""
    title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return " ".join(re.sub(r"<[^>]+>|[`*]|\\(?=[_*`])", "", title).split())


# exercise: chunking.sections
def sections(text: str) -> list[Section]:
    """The document as sections, one after the other without a gap; what stands before the first heading has no path.

    A heading of level n ends all open sections of level n and deeper. Levels may be skipped (# then ###): the path
    holds only the titles that are there.
    """
    headings = find_headings(text)
    open_titles: list[tuple[int, str]] = []
    borders = [*(offset for offset, _, _ in headings), len(text)]
    found = [Section(0, borders[0], ())]
    for (start, level, title), end in zip(headings, borders[1:], strict=True):
        open_titles = [(other, name) for other, name in open_titles if other < level] + [(level, title)]
        found.append(Section(start, end, tuple(name for _, name in open_titles if name)))
    return [section for section in found if section.end > section.start]
# end exercise


def with_bare_headings(text: str, found: list[Section]) -> list[Section]:
    """The sections, each with the headings right above it that have no text of their own: alone they say nothing."""
    kept: list[Section] = []
    start = None  # of the bare headings that wait for a section below them
    for section, below in zip(found, [*found[1:], None], strict=False):
        first = section.start if start is None else start
        bare = not text[section.start : section.end].strip().partition("\n")[2].strip(" \n=-")
        if below and bare and section.path and below.path[: len(section.path)] == section.path:
            start = first
            continue
        kept.append(Section(first, section.end, section.path))
        start = None
    return kept


def block_offsets(text: str, start: int, end: int) -> list[Offsets]:
    """Paragraphs, lists, tables and code blocks of a part, each with the blank lines behind it."""
    cuts, blank = {start, end}, False
    for offset, line, outside in lines_outside_code(text[start:end]):
        if blank and line.strip():
            cuts.add(start + offset)
        blank = outside and not line.strip()
    borders = sorted(cuts)
    return list(zip(borders, borders[1:], strict=False))


def shorten_path(path: tuple[str, ...], room: int, counter: TokenCounter) -> str:
    """The path as one line of at most `room` tokens: outer titles are left out first, then the last one is cut."""
    for first in range(len(path)):
        line = SEPARATOR.join(path[first:])
        if counter.size(line) <= room:
            return line
    words = path[-1].split() if path else []
    while words and counter.size(" ".join(words)) > room:
        words.pop()
    return " ".join(words)


class SectionParser(SpanParser):
    """One chunk a section, with its header path; a section over the cap is cut at its blocks."""

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text, spans = document.get_content(), []
        for section in with_bare_headings(text, sections(text)):
            path = shorten_path(section.path, self.cap // PATH_SHARE, self.counter)
            room = self.cap - (self.counter.size(path) + 1 if HEADER_PATH in self.embedded and path else 0)
            for start, end in self.packed(text, block_offsets(text, section.start, section.end), room):
                spans.append(Span(start, end, {HEADER_PATH: path}))
        return spans
