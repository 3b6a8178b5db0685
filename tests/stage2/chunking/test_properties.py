"""What must hold for every chunker, whatever the text. Each test names the bug that it catches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import Document
from llama_index.core.node_parser import get_leaf_nodes
from llama_index.core.schema import MetadataMode, NodeRelationship

from stage2_rag_finetune_deploy.chunking.dispatch import CHUNKERS
from stage2_rag_finetune_deploy.chunking.spans import HEADER_PATH
from stage2_rag_finetune_deploy.chunking.transcript import is_transcript
from tests.stage2.chunking.texts import anything, markdown, prose, python, transcript

ALL = [*CHUNKERS, "dispatch"]
BY_OFFSETS = [name for name in CHUNKERS if name not in ("speaker", "topic")]  # a chunk is the text between its offsets
CAPS = st.integers(16, 80)


def cut(chunker, text, **metadata):
    """The leaves of one document."""
    return get_leaf_nodes(chunker.get_nodes_from_documents([Document(id_="d", text=text, metadata=metadata)]))


def blank(text):
    """Only white space in it, as str.isspace knows it."""
    return not text.strip()


@pytest.mark.parametrize("name", ALL)
@given(text=anything, cap=CAPS)
def test_no_text_is_lost_and_order_is_kept(chunker, name, text, cap):
    """Catches: a paragraph dropped at a border, a tail forgotten, chunks out of order."""
    nodes, done, last = cut(chunker(name, cap), text), 0, (-1, -1)
    for node in nodes:
        start, end = node.start_char_idx, node.end_char_idx
        assert 0 <= start < end <= len(text)
        assert start > last[0] and end > last[1]
        assert blank(text[done:start])
        done, last = end, (start, end)
    assert blank(text[done:])


@pytest.mark.parametrize("name", BY_OFFSETS)
@given(text=anything)
def test_a_chunk_is_the_text_between_its_offsets(chunker, name, text):
    """Catches: offsets that were searched for and found at an earlier, equal text; text changed on the way."""
    for node in cut(chunker(name), text):
        assert node.text == text[node.start_char_idx : node.end_char_idx]


@pytest.mark.parametrize("name", ["speaker", "topic"])
@given(text=transcript, cap=CAPS)
def test_every_word_of_a_meeting_is_said_by_its_speaker(chunker, name, text, cap):
    """Catches: words lost or doubled when turns are joined or cut; a part of a turn without its speaker's name."""
    spoken = [line.split(": ", 1)[1].split() for line in text.splitlines()]
    lines = [line for node in cut(chunker(name, cap), text) for line in node.text.splitlines()]
    if not is_transcript(text) and name == "topic":
        return
    said = [line.partition(":")[2] for line in lines]
    assert "".join("".join(words) for words in spoken) == "".join("".join(words.split()) for words in said)
    speakers = {line.split("] ", 1)[1].split(": ", 1)[0] for line in text.splitlines()}
    assert {line.partition(":")[0] for line in lines} <= speakers


@pytest.mark.parametrize("name", ALL)
@given(text=anything, cap=CAPS, overlap=st.integers(0, 8))
def test_the_cap_holds_with_what_is_embedded_in_front(chunker, name, text, cap, overlap):
    """Catches: a long section, sentence, turn or word that becomes one huge chunk; a header path not counted."""
    parser = chunker(name, cap, overlap)
    for node in parser.get_nodes_from_documents([Document(id_="d" * 100, text=text)]):
        assert parser.counter.size(node.get_content(MetadataMode.EMBED)) <= cap or len(node.text) == 1


@pytest.mark.parametrize("name", ["fixed", "sentence", "speaker"])
@given(text=anything, overlap=st.integers(0, 20))
def test_neighbours_share_what_was_asked_for_and_no_more(chunker, name, text, overlap):
    """Catches: an overlap ignored, counted in characters, or larger than asked."""
    parser = chunker(name, 40, overlap, **({"join_below": 20} if name == "speaker" else {}))
    nodes = cut(parser, text)
    for before, after in zip(nodes, nodes[1:], strict=False):
        shared = text[after.start_char_idx : before.end_char_idx]  # nothing, where they do not overlap
        assert overlap or not shared
        if name != "speaker":  # its offsets span the times, which its chunks do not say
            assert parser.counter.size(shared) <= overlap


@given(words=st.lists(st.sampled_from(["one", "two", "four", "fifteen", "word"]), min_size=80, max_size=200))
def test_the_overlap_is_used_up(chunker, words):
    """Catches: windows that share nothing, or one word where ten would fit."""
    text = " ".join(words)
    parser = chunker("fixed", 40, 20)
    nodes = cut(parser, text)
    for before, after in zip(nodes, nodes[1:], strict=False):
        shared = text[after.start_char_idx : before.end_char_idx]
        assert 20 - 3 <= parser.counter.size(shared) <= 20  # no word is larger than three


@pytest.mark.parametrize("name", ALL)
@given(text=anything)
def test_ids_are_the_same_again_and_no_two_are_equal(chunker, name, text):
    """Catches: random ids, which store everything twice; ids from the text alone, which collide for equal chunks."""
    text = text + text
    documents = [Document(id_=name, text=text) for name in ("a", "b")]
    once = chunker(name).get_nodes_from_documents(documents)
    again = chunker(name).get_nodes_from_documents(documents)
    assert [node.node_id for node in once] == [node.node_id for node in again]
    assert len({node.node_id for node in once}) == len(once)


@pytest.mark.parametrize("name", ALL)
@given(text=anything)
def test_metadata_is_kept_and_not_embedded(chunker, name, text):
    """Catches: a path or a date in front of every chunk's vector; metadata that get lost on the way to the store."""
    for node in cut(chunker(name), text, file_path="/home/me/SECRET.md", source="s"):
        assert node.metadata["file_path"] == "/home/me/SECRET.md"
        path = node.metadata.get(HEADER_PATH)
        assert node.get_content(MetadataMode.EMBED) == (f"{path}\n\n{node.text}" if path else node.text)
        assert "SECRET" not in node.get_content(MetadataMode.EMBED)


@pytest.mark.parametrize("name", ALL)
@given(text=prose)
def test_neighbours_know_each_other(chunker, name, text):
    """Catches: chunks without a source, or a chain that is broken or leads into another document."""
    documents = [Document(id_="a", text=text), Document(id_="b", text=text)]
    nodes = get_leaf_nodes(chunker(name).get_nodes_from_documents(documents))
    for before, after in zip(nodes, nodes[1:], strict=False):
        same = before.ref_doc_id == after.ref_doc_id
        assert (before.next_node.node_id == after.node_id if same else before.next_node is None)
        assert (after.prev_node.node_id == before.node_id if same else after.prev_node is None)
    assert all(NodeRelationship.SOURCE in node.relationships for node in nodes)


@given(text=markdown)
def test_a_chunk_never_reaches_over_a_heading(chunker, text):
    """Catches: the end of one section in the chunk, and under the path, of the next."""
    from stage2_rag_finetune_deploy.chunking.section import sections, with_bare_headings

    borders = {section.start for section in with_bare_headings(text, sections(text))}
    for node in cut(chunker("section"), text):
        assert not [border for border in borders if node.start_char_idx < border < node.end_char_idx]


@given(text=python)
def test_a_function_that_fits_is_never_cut(chunker, text):
    """Catches: a border inside a function, decorator or comment that belongs to it; a method under another class."""
    import ast

    parser = chunker("function", 60)
    nodes = cut(parser, text, source="m.py")
    lines = text.splitlines(keepends=True)
    for function in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)):
        first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        above = first
        while above > 1 and lines[above - 2].lstrip().startswith("#"):
            above -= 1
        source = "".join(lines[first - 1 : function.end_lineno])
        if parser.counter.size("".join(lines[above - 1 : function.end_lineno])) > 60 - 60 // 4 - 1:  # a path's share
            continue
        start = sum(map(len, lines[: first - 1]))
        holders = [n for n in nodes if n.start_char_idx <= start and n.end_char_idx >= start + len(source.rstrip())]
        assert holders, source
