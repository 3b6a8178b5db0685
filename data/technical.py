"""Technical documents with labelled questions: Markdown, HTML and Python that come with the installed packages.

The documents are read out of the environment (requirements/main.txt pins them), so nothing is copied into the course.
The questions were written for it (technical_docs/questions.toml), each with the words that answer it, verbatim. With
another version of a package, the questions whose evidence is gone are left out, and `missing` names them.
"""

import hashlib
import html
import importlib.metadata
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError

FOLDER = Path(__file__).with_name("technical_docs")
KINDS = ("markdown", "html", "python")


@dataclass(frozen=True)
class TechnicalDocument:
    """A document of an installed package.

    Attributes:
        id: its name in documents.toml.
        kind: "markdown", "html" or "python".
        text: a README in Markdown or as the HTML that markdown-it makes of it, or the source of a module.
        source: "README", or the path of the module.
        pinned: whether the text is the one that the questions were written for.
    """

    id: str
    kind: str
    text: str
    package: str
    version: str
    source: str
    licence: str
    pinned: bool


@dataclass(frozen=True)
class TechnicalQuestion:
    """A question and the words of its document that answer it; they may stand there more than once."""

    id: str
    document: str
    question: str
    evidence: str


@dataclass(frozen=True)
class TechnicalSet:
    """The documents by id, the questions, and the ids of questions whose evidence is in no document."""

    documents: dict[str, TechnicalDocument]
    questions: list[TechnicalQuestion]
    missing: list[str]


def load_technical() -> TechnicalSet:
    """All documents and questions.

    Raises:
        LabError: a package is not installed.
    """
    entries = tomllib.loads((FOLDER / "documents.toml").read_text(encoding="utf-8"))
    labels = tomllib.loads((FOLDER / "questions.toml").read_text(encoding="utf-8"))
    documents = {name: read_document(name, entry) for name, entry in entries.items()}
    questions, missing = [], []
    for name, rows in labels.items():
        shown = visible_text(documents[name])
        for number, (question, evidence) in rows.items():
            label = TechnicalQuestion(f"{name}/{number}", name, question, evidence)
            if find_evidence(shown, evidence):
                questions.append(label)
            else:
                missing.append(label.id)
    return TechnicalSet(documents, questions, missing)


def read_document(name: str, entry: dict[str, str]) -> TechnicalDocument:
    """One document out of its package.

    Raises:
        LabError: the package is not installed, or has no such file.
    """
    try:
        package = importlib.metadata.distribution(entry["package"])
    except importlib.metadata.PackageNotFoundError:
        raise LabError(f"the package {entry['package']} is not installed", "make setup STAGE=2") from None
    if entry["source"] == "README":
        text = package.metadata.get_payload() or package.metadata["Description"] or ""
    else:
        path = Path(str(package.locate_file(entry["source"])))
        if not path.is_file():
            raise LabError(f"{entry['package']} {package.version} has no {entry['source']}", "make setup STAGE=2")
        text = path.read_text(encoding="utf-8")
    text = text.replace("\r\n", "\n")
    pinned = hashlib.sha256(text.encode()).hexdigest() == entry["sha256"]
    if entry["kind"] == "html":
        text = render(text, name)
    return TechnicalDocument(
        name, entry["kind"], text, entry["package"], package.version, entry["source"], entry["licence"], pinned
    )


def render(markdown: str, title: str) -> str:
    """A README as the page that a project's web site shows."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark").enable("table").render(markdown)
    return f"<!doctype html>\n<html><head><title>{title}</title></head>\n<body>\n{body}</body></html>\n"


def visible_text(document: TechnicalDocument) -> str:
    """What a reader sees: HTML without its tags."""
    if document.kind != "html":
        return document.text
    return html.unescape(re.sub(r"<[^>]+>", "", document.text))


def find_evidence(text: str, evidence: str) -> list[tuple[int, int]]:
    """Offsets of every place where the words stand, whatever white space is between them."""
    pattern = r"\s+".join(map(re.escape, evidence.split()))
    return [match.span() for match in re.finditer(pattern, text)]
