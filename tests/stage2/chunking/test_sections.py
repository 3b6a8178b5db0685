"""Each test names the bug that it catches."""

import re

import pytest
from hypothesis import given
from llama_index.core import Document
from llama_index.core.node_parser import MarkdownNodeParser

from stage2_rag_finetune_deploy.chunking.section import find_headings, sections, shorten_path
from stage2_rag_finetune_deploy.chunking.sizes import TokenCounter
from stage2_rag_finetune_deploy.chunking.spans import HEADER_PATH
from tests.stage2.chunking.texts import markdown

TEXT = """before

# Guide

intro

## Install ##

text
```sh
# a comment, no heading
```

### On [Linux](x.html)

apt

Retries
-------

- a list
---

#hashtag

#### Deep
end
"""


def test_headings_by_hand():
    """Catches: a comment in code, a rule under a list, or a hashtag taken for a heading; a missed underline."""
    assert [(level, title) for _, level, title in find_headings(TEXT)] == [
        (1, "Guide"), (2, "Install"), (3, "On Linux"), (2, "Retries"), (4, "Deep"),
    ]  # fmt: skip


def test_paths_by_hand():
    """Catches: a path that keeps a closed sibling, forgets its parents, or invents skipped levels."""
    assert [section.path for section in sections(TEXT)] == [
        (), ("Guide",), ("Guide", "Install"), ("Guide", "Install", "On Linux"), ("Guide", "Retries"),
        ("Guide", "Retries", "Deep"),
    ]  # fmt: skip
    assert "".join(TEXT[section.start : section.end] for section in sections(TEXT)) == TEXT
    assert sections("") == []


HEADING = re.compile("#{1,6} ")  # `#5` is none


@given(text=markdown)
def test_paths_are_those_of_llamaindex(text):
    """Catches: a path that MarkdownNodeParser, on the headings that both know, would see otherwise."""
    text = text.replace("Title\n=====\n", "").replace("\u2028", " ").replace("\r", " ")  # it knows ATX and \n only
    text = "\n".join(line for line in text.split("\n") if not line.startswith("#") or len(line.split()) > 1)
    nodes = MarkdownNodeParser().get_nodes_from_documents([Document(text=text)])
    theirs = [node.metadata["header_path"].strip("/").split("/") for node in nodes if HEADING.match(node.text)]
    ours = [section.path[:-1] for section in sections(text) if section.path]
    assert len(theirs) == len(ours)
    for path, other in zip(ours, theirs, strict=True):
        assert len(path) == len([title for title in other if title])


def test_a_heading_without_text_goes_with_the_section_below_it(chunker):
    """Catches: chunks that are a bare heading; a bare heading pushed into a section that is not below it."""
    text = "# A\n\n## B\n\n### C\n\ntext\n\n## D\n\n## E\n\nmore\n"
    nodes = chunker("section", 60).get_nodes_from_documents([Document(id_="d", text=text)])
    assert [(node.metadata[HEADER_PATH], node.text.split()) for node in nodes] == [
        ("A > B > C", ["#", "A", "##", "B", "###", "C", "text"]), ("A > D", ["##", "D"]),
        ("A > E", ["##", "E", "more"]),
    ]  # fmt: skip


def test_a_long_section_is_cut_at_paragraphs_and_keeps_its_path(chunker):
    """Catches: a section without a cap (LlamaIndex's own parser); a code block cut where it would have fitted."""
    code = "```python\n" + "x = 1\n\ny = 2\n" * 4 + "```\n"
    text = "# A\n\n## B\n\n" + "\n\n".join(f"Paragraph {n} has several words in it." for n in range(12)) + "\n\n" + code
    nodes = chunker("section", 60).get_nodes_from_documents([Document(id_="d", text=text)])
    assert len(nodes) >= 3 and {node.metadata[HEADER_PATH] for node in nodes} == {"A > B"}
    assert all(node.text.startswith(("#", "Paragraph", "```")) for node in nodes)
    assert any(code.strip() in node.text for node in nodes)


@pytest.mark.parametrize(
    ("path", "room", "line"),
    [(("A", "B"), 9, "A > B"), (("A long outer title", "Inner"), 3, "Inner"), ((), 5, ""), (("x" * 99,), 3, ""),
     (("one two three four five",), 3, "one two")],
)  # fmt: skip
def test_a_path_is_shortened_from_outside(path, room, line):
    """Catches: a path that fills the chunk; the nearest title dropped before the farthest."""
    assert shorten_path(path, room, TokenCounter()) == line
