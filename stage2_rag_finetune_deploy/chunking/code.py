"""Other programming languages: LlamaIndex's CodeSplitter, where its grammar is installed.

CodeSplitter walks a tree-sitter syntax tree. Its chunks come without their white space and without offsets, and its
grammars are a package of their own (`tree-sitter-language-pack`, below 1.0: the newer one has another interface), so
the course does not depend on it. Without a grammar, code is cut at blank lines, with a message.
"""

import re
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.node_parser import CodeSplitter
from llama_index.core.schema import BaseNode

from labkit.errors import LabError
from labkit.progress import error_console
from stage2_rag_finetune_deploy.chunking.packing import matches
from stage2_rag_finetune_deploy.chunking.sentences import Offsets
from stage2_rag_finetune_deploy.chunking.spans import Span, SpanParser

LANGUAGES = {
    ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".hpp": "cpp", ".cs": "csharp", ".go": "go", ".java": "java",
    ".js": "javascript", ".jsx": "javascript", ".kt": "kotlin", ".lua": "lua", ".php": "php", ".rb": "ruby",
    ".rs": "rust", ".scala": "scala", ".sh": "bash", ".sql": "sql", ".swift": "swift", ".ts": "typescript",
    ".tsx": "tsx",
}  # fmt: skip
PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|$))+\s*|\s+")
GRAMMARS = 'pip install "tree-sitter-language-pack<1.0"'


class CodeParser(SpanParser):
    """Source in a language that tree-sitter knows.

    Args:
        language: tree-sitter's name for it.
        parser: its parser; by default the one of the language pack.
        strict: a missing grammar is an error in place of a message.

    Raises:
        LabError: no grammar, and `strict`.
    """

    language: str
    parser: Any = Field(default=None, exclude=True)
    strict: bool = Field(default=False)

    def spans(self, document: BaseNode) -> list[Span]:
        """See `SpanParser.spans`."""
        text = document.get_content()
        return [Span(*span) for span in self.packed(text, self.pieces(text))]

    def pieces(self, text: str) -> list[Offsets]:
        """What CodeSplitter makes of it, as offsets; blank-line paragraphs where it cannot."""
        try:
            splitter = load_splitter(self.language, self.cap, self.parser, self.counter)
            return locate(text, splitter.split_text(text))
        except (LabError, ValueError) as error:
            if self.strict:
                raise
            message = getattr(error, "message", f"this is not {self.language} that tree-sitter can read")
            error_console.print(f"{message}: cut at blank lines", markup=False, soft_wrap=True)
            return matches(PARAGRAPH, text, 0, len(text))


def load_splitter(language: str, cap: int, parser: Any, counter: Any) -> CodeSplitter:
    """LlamaIndex's splitter for a language.

    Raises:
        LabError: the grammar is not installed, or there is none for the language.
    """
    try:
        return CodeSplitter(
            language, count_mode="token", max_tokens=cap, parser=parser,
            tokenizer=lambda text: range(counter.size(text)),  # all that is asked of it is its length
        )  # fmt: skip
    except ImportError as error:
        raise LabError(f"there is no grammar for {language}", GRAMMARS) from error
    except Exception as error:  # the pack raises LookupError, older ones AttributeError
        raise LabError(f"tree-sitter has no grammar for {language}", "--chunker sentence") from error


def locate(text: str, chunks: list[str]) -> list[Offsets]:
    """Trimmed chunks in their order as offsets that cover the text: each reaches to the next one's beginning."""
    starts, place = [0], 0
    for chunk in chunks:
        found = text.find(chunk, place)
        if chunk and found >= 0:
            place = found + len(chunk)
            starts.append(found)
    borders = sorted({*starts, len(text)})
    return list(zip(borders, borders[1:], strict=False))
