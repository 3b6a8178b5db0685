"""Each test names the bug that it catches."""

import importlib.util
import json.decoder
import textwrap
from pathlib import Path

import pytest
from llama_index.core import Document

from labkit.errors import LabError
from stage2_rag_finetune_deploy.chunking.code import CodeParser, locate
from stage2_rag_finetune_deploy.chunking.function import LineTable, units
from stage2_rag_finetune_deploy.chunking.readers import make_document
from stage2_rag_finetune_deploy.chunking.spans import HEADER_PATH

SOURCE = '''"""Doc."""
import os

# why f is cached
@cache
def f(x):
    return x

LIMIT = 3
class A:
    """Of A."""
    def g(self):
        return 1
    # of h
    async def h(self):
        return 2
'''


def test_units_by_hand():
    """Catches: a decorator or a comment left with the function before; a gap between two units."""
    import ast

    table = LineTable(SOURCE)
    found = units(ast.parse(SOURCE).body, 1, table.count, ("m",), table)
    assert [(unit.path, SOURCE[unit.start : unit.end].strip()[:12]) for unit in found] == [
        (("m",), '"""Doc."""\ni'), (("m", "f"), "# why f is c"), (("m",), "LIMIT = 3"), (("m", "A"), "class A:\n   "),
    ]  # fmt: skip
    assert "".join(SOURCE[unit.start : unit.end] for unit in found) == SOURCE


def test_a_class_that_does_not_fit_becomes_its_head_and_its_methods(chunker):
    """Catches: methods without the name of their class; the class's docstring lost."""
    nodes = chunker("function", 20).get_nodes_from_documents([make_document("pkg/m.py", SOURCE)])
    assert [(node.metadata[HEADER_PATH], node.text.strip()[:9]) for node in nodes][-3:] == [
        ("m.py > A", "class A:\n"), ("m.py > A > g", "def g(sel"), ("m.py > A > h", "# of h\n  "),
    ]  # fmt: skip


@pytest.mark.parametrize("module", [textwrap, json.decoder])
def test_real_modules(chunker, module):
    """Catches: what only real code has: strings over many lines, nested functions, long functions."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    nodes = chunker("function", 120).get_nodes_from_documents([make_document("m.py", text)])
    assert "".join("".join(node.text.split()) for node in nodes) == "".join(text.split())
    whole = [node for node in nodes if node.text.lstrip().startswith(("def ", "class "))]
    assert len(whole) > 5


@pytest.mark.parametrize("text", ["def f(:\n    pass\n", "x = 1\n  y = 2\n", "a\0b", "print 'two'\n" * 50])
def test_what_is_not_python_is_cut_by_lines_with_a_message(chunker, capsys, text):
    """Catches: a SyntaxError in the learner's face, or a silent fall-back."""
    nodes = chunker("function").get_nodes_from_documents([Document(id_="old.py", text=text)])
    assert "".join("".join(node.text.split()) for node in nodes) == "".join(text.split())
    error = capsys.readouterr().err
    assert error.startswith("old.py is not Python (") and "cut by lines" in error


def test_code_without_a_grammar(chunker, capsys):
    """Catches: an ImportError's traceback; code that is not cut at all."""
    if importlib.util.find_spec("tree_sitter_language_pack"):
        pytest.skip("the grammars are installed")
    text = "fn a() {\n    1\n}\n\nfn b() {\n    2\n}\n" * 9
    nodes = chunker("dispatch").get_nodes_from_documents([make_document("main.rs", text)])
    assert len(nodes) > 1 and all(node.text.startswith("fn ") and node.text.endswith("}") for node in nodes)
    assert "there is no grammar for rust: cut at blank lines" in capsys.readouterr().err
    with pytest.raises(LabError, match="no grammar for rust"):
        chunker("code", strict=True).get_nodes_from_documents([Document(text=text)])


def test_code_with_a_grammar(chunker):
    """Catches: offsets that do not survive CodeSplitter's stripping; a function cut where it fits."""
    pytest.importorskip("tree_sitter_language_pack")
    text = "use std::io;\n\nfn first() -> i32 {\n    let x = 1;\n    x\n}\n\n/// Doc.\nfn second() {}\n" * 4
    parser = chunker("code", 40, strict=True)
    assert isinstance(parser, CodeParser)
    nodes = parser.get_nodes_from_documents([Document(text=text)])
    assert len(nodes) > 2 and all(text[n.start_char_idx : n.end_char_idx] == n.text for n in nodes)


def test_locate_covers_the_text():
    """Catches: white space between stripped chunks that belongs to none; equal chunks found at the first place."""
    assert locate("  a;\n\n a;\nb ", ["a;", "a;", "b"]) == [(0, 2), (2, 7), (7, 10), (10, 12)]
