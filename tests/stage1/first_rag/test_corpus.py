"""Each test names the bug that it catches."""

import pytest
from llama_index.core.schema import MetadataMode
from pypdf import PdfReader, PdfWriter

from labkit.errors import LabError
from stage1_foundations.first_rag.corpus import load_corpus, python_topics, read_folder


def texts(folder, **options) -> dict[str, str]:
    return {document.metadata["source"]: document.text for document in read_folder(folder, **options)}


def test_reads_markdown_text_html_and_pdf(tmp_path, pdf):
    """Catches: a format that is skipped in silence, tags or scripts in the text, pages without their number."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.md").write_text("# Notes\n\nThe lamp is **red**.", encoding="utf-8")
    (tmp_path / "plain.txt").write_text("水壶是蓝色的。", encoding="utf-8")
    page = "<html><head><title>t</title><style>p{}</style></head><body><h1>Fan</h1><p>It has\n three&nbsp;speeds.</p>"
    (tmp_path / "page.html").write_text(page + "<script>let evil = 1</script></body></html>", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    pdf(tmp_path / "one.pdf", ["The clock is slow."])
    pdf(tmp_path / "report.pdf", ["First page.", "", "Third page."])
    found = texts(tmp_path)
    assert found == {
        "sub/notes.md": found["sub/notes.md"], "plain.txt": "水壶是蓝色的。",
        "page.html": "Fan\n\nIt has three speeds.",
        "one.pdf": "The clock is slow.", "report.pdf, page 1": "First page.", "report.pdf, page 3": "Third page.",
    }  # fmt: skip
    assert "The lamp is **red**." in found["sub/notes.md"]


def test_a_text_that_is_not_utf8_is_still_read(tmp_path):
    """Catches: one old file that stops the whole folder."""
    (tmp_path / "old.txt").write_bytes("The café is open.".encode("latin-1"))
    assert "is open." in texts(tmp_path)["old.txt"]


def test_metadata_stay_out_of_vector_and_prompt(docs):
    """Catches: vectors that change when the folder is moved; paths in the prompt."""
    for document in read_folder(docs):
        assert document.metadata["source"]
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert document.get_content(metadata_mode=mode) == document.text


def test_no_folder_and_nothing_in_it(tmp_path):
    """Catches: an index of nothing."""
    with pytest.raises(LabError, match="there is no folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(LabError, match="no file to read"):
        read_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(LabError, match="no file to read"):
        read_folder(tmp_path)


def encrypted(path):
    writer = PdfWriter(clone_from=PdfReader(path))
    writer.encrypt(user_password="secret", algorithm="RC4-128")
    writer.write(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"%PDF-1.4 and then nothing"), "broken.pdf cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:150]), "broken.pdf"),
        (encrypted, "broken.pdf cannot be read: it is encrypted"),
    ],
)
def test_an_unreadable_pdf_is_named(docs, pdf, damage, message):
    """Catches: SimpleDirectoryReader's habit of skipping what it cannot read, and tracebacks of the PDF library."""
    damage(pdf(docs / "broken.pdf", ["Text."]))
    with pytest.raises(LabError, match=message) as caught:
        read_folder(docs)
    assert "--skip-unreadable" in caught.value.try_next
    assert set(texts(docs, skip_unreadable=True)) == {path.name for path in docs.glob("*.md")}


def test_a_pdf_without_text_is_named(docs, pdf):
    """Catches: a scan that is indexed as nothing, and then "no evidence" for everything in it."""
    pdf(docs / "scan.pdf", ["", ""])
    with pytest.raises(LabError, match="scan.pdf has no text, perhaps a scan"):
        read_folder(docs)


def test_only_empty_files(tmp_path):
    """Catches: an index of nothing after everything was skipped."""
    (tmp_path / "empty.md").write_text(" \n")
    with pytest.raises(LabError, match="empty.md has no text"):
        read_folder(tmp_path)
    with pytest.raises(LabError, match="no file with text"):
        read_folder(tmp_path, skip_unreadable=True)


def test_pythons_own_manual():
    """Catches: a corpus that needs a network, an empty topic, two documents of one name."""
    topics = python_topics()
    assert len(topics) > 70 and all(document.text for document in topics)
    assert len({document.id_ for document in topics}) == len(topics)
    assert [document.text for document in load_corpus("python")] == [document.text for document in topics]
