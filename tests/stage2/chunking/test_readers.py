"""Reading and choosing. Each test names the bug that it catches."""

import pytest
from llama_index.core import Document

from labkit.errors import LabError
from stage2_rag_finetune_deploy.chunking.dispatch import BY_KIND, Dispatch, make_chunker
from stage2_rag_finetune_deploy.chunking.readers import (
    KINDS,
    decode,
    html_to_markdown,
    kind_of,
    make_document,
    read_file,
)
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter

PAGE = """<!DOCTYPE html><html><head><title>T</title><style>p {}</style></head><body>
<h1>Guide &amp; <em>more</em></h1><p>One
two<br>three</p><script>var x = "<h1>no</h1>";</script>
<h3>Code</h3><pre><code>a = 1
  b = 2</code></pre><ul><li>x</li><li>y</li></ul><table><tr><td>1</td><td>2</td></tr></table></body></html>"""


def test_html_by_hand():
    """Catches: scripts in the text, white space of code lost, headings that are none any more, glued words."""
    assert html_to_markdown(PAGE) == (
        "# Guide & more\n\nOne two\nthree\n\n### Code\n\n```\na = 1\n  b = 2\n```\n\n- x\n- y\n\n 1 2\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [("a.md", "", "markdown"), ("a.PY", "", "python"), ("a.rs", "", "code"), ("a.srt", "", "transcript"),
     ("a", "# One\n\n# Two\n", "markdown"), ("a.txt", PAGE, "html"), ("a.txt", "Ada: a\nBo: b\nAda: c\n", "transcript"),
     ("a.txt", "import os\nimport re\ndef f(x):\n    pass\n", "python"), ("a.txt", "Just prose.", "text")],
)  # fmt: skip
def test_kinds(name, text, kind):
    """Catches: a file cut with the wrong knife."""
    assert kind_of(name, text) == kind


def test_every_kind_has_its_chunker(chunker):
    """Catches: a kind that the table forgot; a dispatcher that cuts otherwise than the chunker it names."""
    assert set(BY_KIND) == set(KINDS)
    samples = {"markdown": "# A\n\n## B\n\nx\n", "html": PAGE, "python": "def f():\n    pass\n", "code": "fn a() {}\n",
               "transcript": "Ada: a\nBo: b\nAda: c\n", "text": "One. Two."}  # fmt: skip
    for kind, text in samples.items():
        document = make_document(f"d.{'rs' if kind == 'code' else 'x'}", text, kind)
        nodes = chunker("dispatch").get_nodes_from_documents([document])
        alone = chunker(BY_KIND[kind]).get_nodes_from_documents([document])
        assert [node.text for node in nodes] == [node.text for node in alone] and nodes
        assert {node.metadata["chunker"] for node in nodes} == {BY_KIND[kind]}


def test_the_choice_can_be_changed():
    """Catches: a configuration that is read and not used."""
    parser = Dispatch(by_kind={"text": "fixed"}, counter=TokenCounter())
    assert parser.parser_for(Document(id_="a.txt", text="Prose."))[0] == "fixed"


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: make_chunker("sentense", encoder="random"), "no chunker is called 'sentense'"),
     (lambda: Dispatch(by_kind={"txt": "fixed"}, counter=TokenCounter()), "no kind of document is called 'txt'"),
     (lambda: Dispatch(by_kind={"text": "fix"}, counter=TokenCounter()), "no chunker is called 'fix'"),
     (lambda: make_document("a", "x", "markdwn"), "no kind of document is called 'markdwn'"),
     (lambda: make_document("a.md", " \n\t"), "a.md is empty"),
     (lambda: Dispatch(counter=TokenCounter()).get_nodes_from_documents([Document(text="x", metadata={"kind": "pdf"})]),
      "no kind of document is called 'pdf'")],
)  # fmt: skip
def test_unknown_names(make, message):
    """Catches: a KeyError where the nearest name would have helped."""
    with pytest.raises(LabError) as caught:
        make()
    assert caught.value.message == message and caught.value.try_next


def test_encodings():
    """Catches: a Chinese file from Windows that cannot be read; a byte order mark in the first word."""
    assert decode("你好\r\n".encode("gb18030")) == "你好\n"
    assert decode("\ufeffhello".encode()) == "hello"
    assert decode("un été à la fenêtre".encode("latin-1")) == "un été à la fenêtre"


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [(b"\x00\x01PNG", "a.txt", "is not a text file"), (b"%PDF-1.7", "a.pdf", "is not a text file"),
     (b"  \n", "a.md", "is empty")],
)  # fmt: skip
def test_files_that_cannot_be_cut(tmp_path, content, name, message):
    """Catches: binary rubbish in the index."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LabError, match=message):
        read_file(path)
    with pytest.raises(LabError, match="there is no file"):
        read_file(tmp_path / "none.md")
    with pytest.raises(LabError, match="is a folder"):
        read_file(tmp_path)
