"""What can be ingested: a labelled set of the course, a JSON Lines file, a folder of files, or one file.

Every document has an id that stays the same from run to run (its path in the folder, the id in the line), because
ingestion decides by id and text what is new.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from llama_index.core import Document

import data
from labkit.errors import LabError
from labkit.progress import error_console, progress
from stage2_rag_finetune_deploy.chunking.readers import ENDINGS, make_document, read_file

TEXT_ENDINGS = {*ENDINGS, ".txt", ".rst"}


def load_documents(docs: str, skip_unreadable: bool = False) -> list[Document]:
    """Documents from the name of a retrieval set (`squad`), a `.jsonl` file, a folder, or a file.

    Args:
        skip_unreadable: leave out files that cannot be read, with a line for each, instead of stopping.

    Raises:
        LabError: there is nothing of that name, nothing to read in it, or a file that cannot be read.
    """
    path = Path(docs)
    if docs in data.retrieval_names() and not path.exists():
        documents = [make_document(id, text, "text") for id, text in data.load_retrieval(docs).corpus.items()]
    elif path.suffix == ".jsonl":
        documents = list(read_lines(path))
    elif path.is_dir():
        documents = read_folder(path, skip_unreadable)
    elif path.is_file():
        documents = read_one(path, path.name)
    else:
        known = ", ".join(data.retrieval_names())
        raise LabError(f"there is no file, folder or set called {docs}", f"--docs with a folder, or one of: {known}")
    if not documents:
        raise LabError(f"{docs} has no document in it", "a folder with Markdown, text, HTML, Python or PDF files")
    return documents


def read_lines(path: Path) -> Iterator[Document]:
    """`{"id": ..., "text": ...}` a line; other fields become metadata.

    Raises:
        LabError: no such file, or a line that is not of that form; the message has its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{path} cannot be read: {error}", "a JSON Lines file in UTF-8") from None
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
            id, text = row["id"], row["text"]
        except (ValueError, KeyError, TypeError):
            raise LabError(f'{place}: not of the form {{"id": ..., "text": ...}}', "one JSON object a line") from None
        if not isinstance(id, str) or not isinstance(text, str) or not id or not text.strip():
            raise LabError(f"{place}: id and text must be text, and not empty", "mend or remove the line")
        if id in seen:
            raise LabError(f"{place}: the id {id!r} was there before", "every document its own id")
        seen.add(id)
        yield make_document(id, text, row.get("kind", "text"))


def read_folder(folder: Path, skip_unreadable: bool) -> list[Document]:
    """Every file with a known ending, in the order of their paths; hidden files and folders are left out."""
    endings = {*TEXT_ENDINGS, ".pdf"}
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in endings)
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    documents: list[Document] = []
    for path in progress(paths, description="read files"):
        try:
            documents += read_one(path, path.relative_to(folder).as_posix())
        except LabError as error:
            if not skip_unreadable:
                raise LabError(error.message, f"{error.try_next}, or --skip-unreadable") from None
            error_console.print(f"skipped: {error.message}", markup=False, soft_wrap=True)
    return documents


def read_one(path: Path, name: str) -> list[Document]:
    """One file: a document; a PDF: one a page."""
    if path.suffix.lower() == ".pdf":
        return read_pdf(path, name)
    document = read_file(path)
    return [make_document(name, document.get_content(), str(document.metadata["kind"]))]


def read_pdf(path: Path, name: str) -> list[Document]:
    """The pages that have text. Raises LabError for a file that is broken, locked, or a scan."""
    import logging

    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # its complaints about broken files; ours follow
    try:
        texts = [page.extract_text().strip() for page in PdfReader(path).pages]
    except (PyPdfError, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise LabError(f"{name} cannot be read: {reason}", "mend or remove it") from None
    if not any(texts):
        raise LabError(f"{name} has no text, perhaps a scan", "a PDF with text, or without the file")
    return [make_document(f"{name}, page {n}", text, "text") for n, text in enumerate(texts, start=1) if text]
