"""Each test names the bug that it catches."""

from collections import Counter
from importlib.util import find_spec

import pytest

from data import technical
from data.technical import find_evidence, load_technical, read_document, visible_text
from labkit.errors import LabError


@pytest.fixture(scope="module")
def loaded():
    """Everything, as the locked environment has it; stage 1's has not all of the packages."""
    if find_spec("milvus_lite") is None:
        pytest.skip("needs the environment of stage 2: make setup STAGE=2")
    return load_technical()


def test_every_question_has_its_evidence(loaded):
    """Catches: a quotation with a typing error, a package that moved on in the lock."""
    assert not loaded.missing
    assert all(document.pinned for document in loaded.documents.values())
    assert len(loaded.questions) >= 60
    for question in loaded.questions:
        assert find_evidence(visible_text(loaded.documents[question.document]), question.evidence), question.id


def test_questions_are_questions(loaded):
    """Catches: one question asked twice, an answer that stands everywhere, a quotation of half a page."""
    assert len({question.question for question in loaded.questions}) == len(loaded.questions)
    for question in loaded.questions:
        places = find_evidence(visible_text(loaded.documents[question.document]), question.evidence)
        assert len(places) <= 2 and 8 < len(question.evidence) < 300, question.id


def test_documents(loaded):
    """Catches: a kind without a document, an empty text, a document without a licence or without questions."""
    assert Counter(document.kind for document in loaded.documents.values()) == {"markdown": 3, "html": 2, "python": 7}
    asked = {question.document for question in loaded.questions}
    for document in loaded.documents.values():
        assert len(document.text) > 5000 and document.licence and document.id in asked
        assert document.text.lstrip().startswith("<!doctype html>") == (document.kind == "html")


def test_another_version_loses_only_its_own_questions(loaded, monkeypatch):
    """Catches: one changed document that makes the whole set unusable, or questions kept without their evidence."""
    read = read_document

    def changed(name, entry):
        document = read(name, entry)
        if name != "uv-page":
            return document
        return technical.TechnicalDocument(**{**vars(document), "text": document.text.replace("uv self update", "")})

    monkeypatch.setattr(technical, "read_document", changed)
    assert load_technical().missing == ["uv-page/q1"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [({"package": "no-such-package", "source": "README"}, "the package no-such-package is not installed"),
     ({"package": "httpx", "source": "httpx/_none.py"}, "has no httpx/_none.py")],
)  # fmt: skip
def test_a_missing_document_says_what_to_do(entry, message):
    """Catches: a PackageNotFoundError or a FileNotFoundError in the learner's face."""
    with pytest.raises(LabError, match=message) as caught:
        read_document("x", {"kind": "markdown", "licence": "MIT", "sha256": "", **entry})
    assert caught.value.try_next == "make setup STAGE=2"


def test_evidence_ignores_white_space():
    """Catches: a quotation that is lost because a line was broken; a match across other words."""
    assert find_evidence("a  b\nc a b c", "a b c") == [(0, 6), (7, 12)]
    assert find_evidence("a. b", "a b") == [] and find_evidence("a.b", "a.b") == [(0, 3)]
