"""What every lab's exercise marks are held to; a lab's test_exercise_marks.py names its package and its tests.

    # exercise: rag.max_sim         <- on the line above `def`
    def max_sim(...): ...
    # end exercise

`caught_by` says for every exercise which quick test fails once its body is gone.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

MARK, END = re.compile(r"^( *)# exercise: (\S+)$"), re.compile(r"^( *)# end exercise$")
CONTROL = "nothing removed"
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.md", "*.png")
REPOSITORY = Path(__file__).parents[2]


def folder_of(package: ModuleType) -> Path:
    """Where a package lies."""
    return Path(package.__file__).parent


def marks(package: ModuleType) -> list[tuple[Path, str, int, int]]:
    """File, name, and the line numbers (from 0) of the mark and of its end."""
    found = []
    for path in sorted(folder_of(package).rglob("*.py")):
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


def without_body(source: str, start: int) -> str:
    """The source with the marked function's body removed; its signature and docstring stay."""
    lines = source.splitlines(keepends=True)
    function = next(
        node for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.lineno == start + 2
    )  # fmt: skip
    docstring = function.body[0] if ast.get_docstring(function) else None
    first = docstring.end_lineno if docstring else function.body[0].lineno - 1
    indent = " " * function.body[0].col_offset
    return "".join([*lines[:first], f"{indent}raise NotImplementedError\n", *lines[function.end_lineno :]])


def check_enclosed(package: ModuleType) -> None:
    """Every mark encloses one function with a docstring, and nothing else."""
    for path, name, start, end in marks(package):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert re.match(r" *def ", lines[start + 1]), f"{name}: the line below the mark is no def"
        function = ast.parse("\n".join(line[len(lines[start]) - len(lines[start].lstrip()) :]
                                       for line in lines[start + 1 : end])).body  # fmt: skip
        assert len(function) == 1 and isinstance(function[0], ast.FunctionDef), name
        assert ast.get_docstring(function[0]), f"{name}: a learner needs the docstring"


def check_names(package: ModuleType, caught_by: Mapping[str, str], pattern: str) -> None:
    """Names are unique, are those of `caught_by`, and match the pattern."""
    names = [name for _, name, _, _ in marks(package)]
    assert len(names) == len(set(names))
    assert set(names) == set(caught_by)
    assert all(re.fullmatch(pattern, name) for name in names)


# Imports what is not stripped once, then runs every stripped package in a child of its own, two at a time. The stripped
# folder stands before the real one in the stage's path: the stage's other labs stay as they are. A child that breaks
# before pytest answers ends with 70: Python's own 1 would read as pytest's "tests failed".
DRIVER = """
import contextlib, importlib, json, os, sys, traceback
import pytest
lab, preload, jobs = json.loads(sys.argv[1])
for name in preload:
    importlib.import_module(name)
assert not [name for name in sys.modules if name.startswith(lab)]
stage = importlib.import_module(lab.rpartition(".")[0])
def run(root, test):
    stage.__path__.insert(0, root)
    assert importlib.import_module(lab).__file__.startswith(root)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:langsmith_plugin", test]))
running, results = {}, {}
def reap():
    pid, status = os.wait()
    results[running.pop(pid)] = os.waitstatus_to_exitcode(status)
for name, root, test in jobs:
    if len(running) == 2:
        reap()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = run(root, test)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    running[child] = name
while running:
    reap()
print(json.dumps(results))
"""


def check_removal(
    package: ModuleType, caught_by: Mapping[str, str], tests: Path, tmp_path: Path, preload: list[str]
) -> None:
    """With any one body removed its test fails; with nothing removed the first of these tests passes.

    Args:
        tests: the folder that the tests in `caught_by` are in.
        preload: modules that are imported once for all children; none of this lab.
    """
    folder, jobs = folder_of(package), []

    def copy(number: int) -> Path:
        made = tmp_path / str(number) / folder.name
        shutil.copytree(folder, made, ignore=NOT_COPIED)
        return made

    for number, (path, name, start, _) in enumerate(marks(package), 1):
        made = copy(number)
        stripped = without_body(path.read_text(encoding="utf-8"), start)
        (made / path.relative_to(folder)).write_text(stripped, encoding="utf-8")
        jobs.append((name, str(made.parent), str(tests / caught_by[name])))
    jobs.append((CONTROL, str(copy(0).parent), jobs[0][2]))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([package.__name__, preload, jobs])], cwd=REPOSITORY,
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=800,
    )  # fmt: skip
    results = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    wanted = dict.fromkeys(caught_by, int(pytest.ExitCode.TESTS_FAILED)) | {CONTROL: int(pytest.ExitCode.OK)}
    assert results == wanted, done.stderr
