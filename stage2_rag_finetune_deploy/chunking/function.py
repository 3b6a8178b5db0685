"""By function: Python source cut along its syntax tree, so that a function is never cut in two unless it must be.

A chunk is a function with its decorators and the comment above it, a method, the head of a class, or the statements
between them. Its path (`_auth.py > DigestAuth > auth_flow`) is embedded with it: a method does not say whose it is.
"""

import ast
import bisect
import re
import warnings
from dataclasses import dataclass

from llama_index.core.schema import BaseNode

from labkit.progress import error_console
from stage2_rag_finetune_deploy.chunking.packing import LINE, matches
from stage2_rag_finetune_deploy.chunking.section import PATH_SHARE, shorten_path
from stage2_rag_finetune_deploy.chunking.sentences import Offsets
from stage2_rag_finetune_deploy.chunking.spans import HEADER_PATH, Span, SpanParser

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Unit:
    """A stretch of whole lines: a definition, or what lies between definitions. `path` are the names around it."""

    start: int
    end: int
    path: tuple[str, ...]
    node: ast.stmt | None = None


class LineTable:
    """Line numbers of `ast` (from 1) to offsets in the text."""

    def __init__(self, text: str) -> None:
        # ast counts \n, \r\n and \r as line ends, and a form feed is none: str.splitlines would count it
        self.text = text
        ends = (match.end() for match in re.finditer(r"\r\n|\n|\r", text))
        self.starts = [0, *(end for end in ends if end < len(text)), len(text)]
        self.count = len(self.starts) - 1

    def start(self, line: int) -> int:
        """Where a line begins; behind the last line, the end of the text."""
        return self.starts[min(line - 1, len(self.starts) - 1)]

    def number(self, offset: int) -> int:
        """The line that an offset lies in."""
        return bisect.bisect_right(self.starts, offset, hi=len(self.starts) - 1)

    def line(self, number: int) -> str:
        """A line's text."""
        return self.text[self.start(number) : self.start(number + 1)]


def first_line(node: ast.stmt, table: LineTable, floor: int) -> int:
    """The line where a definition begins: its first decorator, or the comment right above; not above `floor`."""
    line = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    while line > floor and table.line(line - 1).lstrip().startswith("#"):
        line -= 1
    return line


# exercise: chunking.units
def units(body: list[ast.stmt], first: int, last: int, path: tuple[str, ...], table: LineTable) -> list[Unit]:
    """The lines `first` to `last` (both included) as definitions and what lies between them, without a gap.

    Args:
        body: the statements in these lines.
        path: the names of what is around them.
        table: turns line numbers into offsets.
    """
    found, done = [], first  # every line before `done` belongs to a unit
    for node in body:
        if not isinstance(node, DEFINITIONS):
            continue
        start, end = first_line(node, table, done), node.end_lineno + 1
        if start < done:  # `class A: pass; class B: pass` on one line
            continue
        if start > done:
            found.append(Unit(table.start(done), table.start(start), path))
        found.append(Unit(table.start(start), table.start(end), (*path, node.name), node))
        done = end
    if done <= last:
        found.append(Unit(table.start(done), table.start(last + 1), path))
    return found
# end exercise


class FunctionParser(SpanParser):
    """One chunk a function. A class that fits stays whole; a larger one is cut into its head and its methods.

    A function over the cap is cut between its statements. What cannot be parsed is cut at blank lines and lines, with
    a message. The name of the document (metadata `source`, else its id) is the first part of the path.
    """

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        name = str(document.metadata.get("source") or document.node_id).rsplit("/", 1)[-1]
        tree = parse_python(text, name)
        if tree is None:
            return self.cut((name,), text, matches(LINE, text, 0, len(text)))
        table = LineTable(text)
        found = units(tree.body, 1, table.count, (name,), table)
        return [span for unit in found for span in self.unit_spans(text, unit, table)]

    def unit_spans(self, text: str, unit: Unit, table: LineTable) -> list[Span]:
        """A unit whole where it fits, else by its parts."""
        path = self.path(unit.path)
        if self.counter.size(text[unit.start : unit.end]) <= self.room(path):
            return [Span(unit.start, unit.end, {HEADER_PATH: path})]
        if isinstance(unit.node, ast.ClassDef):
            inner = units(unit.node.body, table.number(unit.start), unit.node.end_lineno, unit.path, table)
            return [span for part in inner for span in self.unit_spans(text, part, table)]
        return self.cut(unit.path, text, statement_offsets(text, unit, table))

    def cut(self, names: tuple[str, ...], text: str, pieces: list[Offsets]) -> list[Span]:
        """Pieces packed into chunks that share a path."""
        path = self.path(names)
        return [Span(*span, {HEADER_PATH: path}) for span in self.packed(text, pieces, self.room(path))]

    def path(self, names: tuple[str, ...]) -> str:
        """Names as a path that leaves room for the code."""
        return shorten_path(names, self.cap // PATH_SHARE, self.counter)

    def room(self, path: str) -> int:
        """What the path leaves of the cap."""
        return self.cap - (self.counter.size(path) + 1 if HEADER_PATH in self.embedded and path else 0)


def parse_python(text: str, name: str) -> ast.Module | None:
    """The syntax tree; None, and a line on the terminal, where the text is not Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        line = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        error_console.print(f"{name} is not Python ({reason}{line}): cut by lines", markup=False, soft_wrap=True)
        return None


def statement_offsets(text: str, unit: Unit, table: LineTable) -> list[Offsets]:
    """A function's head and its statements, one after the other; of other units, their lines."""
    body = getattr(unit.node, "body", [])
    cuts = {unit.start, unit.end, *(table.start(first_line(node, table, 1)) for node in body)}
    borders = sorted(cut for cut in cuts if unit.start <= cut <= unit.end)
    if len(borders) == 2:
        return matches(LINE, text, unit.start, unit.end)
    return list(zip(borders, borders[1:], strict=False))
