"""Documents: a folder of files, Python's own manual, or a labelled set.

Files go through `SimpleDirectoryReader`, which picks a reader by the file's ending. Three of its habits are mended
here: it skips what it cannot read and only prints a line, it takes HTML for plain text, and it puts path and dates
into every document, which by default are embedded together with the text (see `make_document`).
"""

import logging
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from llama_index.core import Document, SimpleDirectoryReader
from llama_index.core.readers.base import BaseReader
from pypdf.errors import FileNotDecryptedError
from tenacity import RetryError

from data.retrieval import corpus_sha256
from labkit.errors import LabError
from labkit.progress import error_console, progress
from labkit.runs import Run

ENDINGS = (".md", ".markdown", ".txt", ".rst", ".html", ".htm", ".pdf")
CORPORA = ("python", "squad")
BLOCKS = {"p", "div", "li", "tr", "pre", "br", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "table", "dt"}
SILENT = {"script", "style", "noscript", "template", "svg", "head"}


def make_document(source: str, text: str, **metadata: Any) -> Document:
    """A document whose metadata stays out of its vector and out of the prompt.

    LlamaIndex embeds "key: value" lines in front of every chunk unless told otherwise; a vector would then depend on
    the folder that a file lies in. `source` is what citations show.
    """
    metadata = {"source": source, **metadata}
    keys = list(metadata)
    return Document(
        id_=source, text=text, metadata=metadata, excluded_embed_metadata_keys=keys, excluded_llm_metadata_keys=keys
    )


class HtmlText(HTMLParser):
    """The text of a page: blocks become paragraphs, scripts and styles vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        """Open a block or a silent part."""
        self.silent += tag in SILENT
        self.pieces.append("\n\n" if tag in BLOCKS else "")

    def handle_endtag(self, tag: str) -> None:
        """Close it."""
        self.silent = max(0, self.silent - (tag in SILENT))
        self.pieces.append("\n\n" if tag in BLOCKS else "")

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        if not self.silent:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        """Paragraphs, single-spaced, a blank line between them."""
        paragraphs = (" ".join(part.split()) for part in "".join(self.pieces).split("\n\n"))
        return "\n\n".join(filter(None, paragraphs))


class HtmlReader(BaseReader):
    """A reader for `SimpleDirectoryReader(file_extractor={".html": HtmlReader()})`."""

    def load_data(self, file: Path, extra_info: dict | None = None) -> list[Document]:  # type: ignore[override]
        """One document a page."""
        page = HtmlText()
        page.feed(Path(file).read_text(encoding="utf-8", errors="replace"))
        page.close()
        return [Document(text=page.text, metadata=extra_info or {})]


def read_folder(folder: Path, skip_unreadable: bool = False) -> list[Document]:
    """Every Markdown, text, HTML and PDF file of a folder and its sub-folders; a PDF gives one document a page.

    Args:
        skip_unreadable: leave out files that cannot be read, with a line for each, instead of stopping.

    Raises:
        LabError: no such folder, nothing to read in it, or a file that cannot be read or has no text.
    """
    if not folder.is_dir():
        raise LabError(f"there is no folder {folder}", "--docs DIR, a folder with Markdown, text, HTML or PDF files")
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its complaints about broken files; ours follow
    html = HtmlReader()
    try:
        reader = SimpleDirectoryReader(
            folder, recursive=True, required_exts=None, file_extractor={".html": html, ".htm": html},
            raise_on_error=True, file_metadata=lambda path: {},
        )  # fmt: skip
        paths = [path for path in reader.input_files if path.suffix.lower() in ENDINGS]
    except ValueError:
        paths = []
    if not paths:
        raise LabError(f"{folder} has no file to read", f"put files with these endings into it: {' '.join(ENDINGS)}")
    documents: list[Document] = []
    for path in progress(paths, description="read files"):
        try:
            documents += _read_file(reader, path, path.relative_to(folder).as_posix())
        except LabError as error:
            if not skip_unreadable:
                raise
            error_console.print(f"skipped: {error.message}", markup=False, soft_wrap=True)
    if not documents:
        raise LabError(f"{folder} has no file with text in it", "text files, or PDFs that are not scans")
    return documents


def _read_file(reader: SimpleDirectoryReader, path: Path, source: str) -> list[Document]:
    """The documents of one file, by the reader for its ending; without pages that have no text."""
    advice = "mend or remove it, or --skip-unreadable"
    try:
        parts = reader.load_resource(str(path))
    except Exception as error:  # each format has its own dozen of errors
        raise LabError(f"{source} cannot be read: {_reason(error)}", advice) from error
    pages = [(number, part.text.strip()) for number, part in enumerate(parts, start=1) if part.text.strip()]
    if not pages:
        scanned = ", perhaps a scan" if path.suffix.lower() == ".pdf" else ""
        raise LabError(f"{source} has no text{scanned}", advice)
    if len(parts) == 1:
        return [make_document(source, pages[0][1])]
    return [make_document(f"{source}, page {number}", text, page=number) for number, text in pages]


def _reason(error: BaseException) -> str:
    """What went wrong, below "Error loading file" and the RetryError that LlamaIndex wraps around it."""
    error = error.__cause__ or error
    if isinstance(error, RetryError):
        error = error.last_attempt.exception() or error
    if isinstance(error, FileNotDecryptedError):
        return "it is encrypted and wants a password"
    return " ".join(str(error).split())[:120] or type(error).__name__


def python_topics() -> list[Document]:
    """The 79 or so topics of the language reference that every CPython carries for `help()`."""
    from pydoc_data.topics import topics

    return [make_document(name, text.strip()) for name, text in sorted(topics.items())]


def passages_as_documents(corpus: dict[str, str], keep: Iterable[str] | None = None) -> list[Document]:
    """Passages of a RetrievalSet, one document each, `keep` in its order (None: all)."""
    return [make_document(name, corpus[name]) for name in (corpus if keep is None else keep)]


def load_corpus(name: str) -> list[Document]:
    """A corpus that comes with the course: `python` or `squad`."""
    if name == "python":
        return python_topics()
    import data

    return passages_as_documents(data.load_retrieval(name).corpus)


def record_documents(run: Run, name: str, documents: Sequence[Document]) -> None:
    """Note in the run's report what was indexed: size, and a SHA-256 over ids and texts."""
    texts = {document.id_: document.text for document in documents}
    run.data(name, corpus_sha256(texts), sum(len(text.encode()) for text in texts.values()))
