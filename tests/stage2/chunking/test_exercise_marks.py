"""Each test names the bug that it catches."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stage2_rag_finetune_deploy.chunking

PACKAGE = Path(stage2_rag_finetune_deploy.chunking.__file__).parent
TESTS = Path(__file__).parent
MARK, END = re.compile(r"^( *)# exercise: (\S+)$"), re.compile(r"^( *)# end exercise$")

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "chunking.pack": "test_packing.py::test_pack_by_hand",
    "chunking.sections": "test_sections.py::test_paths_by_hand",
    "chunking.units": "test_functions.py::test_units_by_hand",
    "chunking.join_turns": "test_meetings.py::test_join_turns_by_hand",
    "chunking.valley_depths": "test_meaning.py::test_valleys_by_hand",
    "chunking.places_held": "test_evaluation.py::test_places_by_hand",
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
                assert start[1][1] == match[1], f"{path.name}:{number + 1} is indented otherwise than its mark"
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
    assert all(re.fullmatch(r"chunking\.[a-z_]+", name) for name in names)


# Imports the libraries once, then runs every stripped package in a child of its own, two at a time.
DRIVER = """
import json, os, sys
import hypothesis, ir_measures, llama_index.core, pytest, tokenizers
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
        import stage2_rag_finetune_deploy.chunking
        assert stage2_rag_finetune_deploy.chunking.__file__.startswith(root)
        with open(os.devnull, "w") as sys.stdout:
            code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", test])
        os._exit(int(code))
    running[child] = name
while running:
    reap()
print(json.dumps(results))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    jobs = []
    for number, (path, name, start, end) in enumerate(marks()):
        copy = tmp_path / str(number) / "stage2_rag_finetune_deploy" / "chunking"
        copy.mkdir(parents=True)
        (copy.parent / "__init__.py").touch()
        for module in PACKAGE.glob("*.py"):
            (copy / module.name).write_bytes(module.read_bytes())
        stripped = without_body(path.read_text(encoding="utf-8"), start, end)
        (copy / path.name).write_text(stripped, encoding="utf-8")
        jobs.append((name, str(tmp_path / str(number)), str(TESTS / CAUGHT_BY[name])))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(jobs)], cwd=PACKAGE.parents[1], text=True, capture_output=True,
        timeout=100, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    results = json.loads(done.stdout.splitlines()[-1]) if done.stdout else done.stderr
    assert results == dict.fromkeys(CAUGHT_BY, int(pytest.ExitCode.TESTS_FAILED))
