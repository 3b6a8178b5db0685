"""Each test names the bug that it catches."""

import ast
import json
import os
import re
from pathlib import Path

import pytest

import stage2_rag_finetune_deploy.vector_db

PACKAGE = Path(stage2_rag_finetune_deploy.vector_db.__file__).parent
TESTS = Path(__file__).parent
MARK, END = re.compile(r"^( *)# exercise: (\S+)$"), re.compile(r"^( *)# end exercise$")

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "vector_db.evaluate": "test_filters.py::test_evaluate_by_hand",
    "vector_db.push_not": "test_filters.py::test_push_not_by_hand",
    "vector_db.to_milvus": "test_filters.py::test_milvus_expressions_by_hand",
    "vector_db.rrf_fuse": "test_parts.py::test_rrf_by_hand",
    "vector_db.exact_neighbours": "test_parts.py::test_exact_neighbours_are_those_of_a_full_sort",
    "vector_db.reconcile": "test_faiss_store.py::test_reconcile_by_hand",
}


def marks() -> list[tuple[Path, str, int, int]]:
    """File, name, and the line numbers (from 0) of the mark and of its end."""
    found = []
    for path in sorted(PACKAGE.glob("*.py")):
        lines, start = path.read_text(encoding="utf-8").splitlines(), None
        for number, line in enumerate(lines):
            if match := MARK.match(line):
                assert start is None, f"{path.name}:{number + 1} begins inside another exercise"
                start = number, match
            elif match := END.match(line):
                assert start is not None, f"{path.name}:{number + 1} ends nothing"
                assert start[1][1] == match[1], (
                    f"{path.name}:{number + 1} is indented otherwise than its mark"
                )
                found.append((path, start[1][2], start[0], number))
                start = None
            else:
                assert "exercise:" not in line, f"{path.name}:{number + 1} is nearly a mark"
        assert start is None, f"{path.name} has an exercise without an end"
    return found


def without_body(source: str, start: int, end: int) -> str:
    """The source with the marked function's body removed; its signature and docstring stay."""
    lines = source.splitlines(keepends=True)
    function = next(
        node for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.lineno == start + 2
    )  # fmt: skip
    docstring = function.body[0] if ast.get_docstring(function) else None
    first = docstring.end_lineno if docstring else function.body[0].lineno - 1
    indent = " " * function.body[0].col_offset
    return "".join([*lines[:first], f"{indent}raise NotImplementedError\n", *lines[end:]])


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    for path, name, start, end in marks():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert re.match(r" *def ", lines[start + 1]), f"{name}: the line below the mark is no def"
        function = ast.parse("\n".join(line[len(lines[start]) - len(lines[start].lstrip()) :]
                                       for line in lines[start + 1 : end])).body  # fmt: skip
        assert len(function) == 1 and isinstance(function[0], ast.FunctionDef), name
        assert ast.get_docstring(function[0]), f"{name}: a learner needs the docstring"


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    names = [name for _, name, _, _ in marks()]
    assert len(names) == len(set(names))
    assert set(names) == set(CAUGHT_BY)
    assert all(re.fullmatch(r"vector_db\.[a-z_]+", name) for name in names)


# Imports what is not stripped once, then runs every stripped package in a child of its own, two at a time.
DRIVER = """
import json, os, sys
import data, hypothesis, labkit.cli, labkit.plots, labkit.runs, pytest, tokenizers, torch
torch.set_num_threads(1)
running, results = {}, {}
def reap():
    pid, status = os.wait()
    results[running.pop(pid)] = os.waitstatus_to_exitcode(status)
for name, root, test in json.loads(sys.argv[1]):
    if len(running) == 2:
        reap()
    child = os.fork()
    if child == 0:
        sys.path.insert(0, root)
        import stage2_rag_finetune_deploy.vector_db as package
        assert package.__file__.startswith(root)
        with open(os.devnull, "w") as sys.stdout:
            code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:langsmith_plugin", test])
        os._exit(int(code))
    running[child] = name
while running:
    reap()
print(json.dumps(results))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path, spawn):
    """Catches: an exercise that a learner can hand in empty."""
    jobs = []
    for number, (path, name, start, end) in enumerate(marks()):
        copy = tmp_path / str(number) / "stage2_rag_finetune_deploy" / "vector_db"
        copy.mkdir(parents=True)
        (copy.parent / "__init__.py").touch()
        for module in PACKAGE.glob("*.py"):
            (copy / module.name).write_bytes(module.read_bytes())
        (copy / path.name).write_text(
            without_body(path.read_text(encoding="utf-8"), start, end), encoding="utf-8"
        )
        jobs.append((name, str(tmp_path / str(number)), str(TESTS / CAUGHT_BY[name])))
    out, error = spawn("-c", DRIVER, json.dumps(jobs)).communicate(timeout=100)
    results = json.loads(out.splitlines()[-1]) if out else error
    assert results == dict.fromkeys(CAUGHT_BY, int(pytest.ExitCode.TESTS_FAILED))
