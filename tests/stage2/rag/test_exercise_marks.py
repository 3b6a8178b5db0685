"""Each test names the bug that it catches."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stage2_rag_finetune_deploy.rag

PACKAGE = Path(stage2_rag_finetune_deploy.rag.__file__).parent
TESTS = Path(__file__).parent
MARK, END = re.compile(r"^( *)# exercise: (\S+)$"), re.compile(r"^( *)# end exercise$")

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "rag.window_vectors": "test_token_vectors.py::test_windows_by_hand",
    "rag.max_sim": "test_token_vectors.py::test_max_sim_by_hand",
    "rag.fuse_scores": "test_fusion_and_rerank.py::test_score_fusion_by_hand",
    "rag.expansion_terms": "test_query_rewriting.py::test_expansion_terms_by_hand",
    "rag.mean_log_likelihood": "test_pair_rerankers.py::test_mean_log_likelihood_by_hand",
    "rag.plan_changes": "test_ingestion.py::test_the_plan_leaves_nothing_out",
    "rag.guard": "test_injection_guard.py::test_orders_go_and_the_rest_stays_word_for_word",
    "rag.reciprocal_rank": "test_retrieval_measures.py::test_reciprocal_rank_by_hand",
    "rag.parse_verdict": "test_judge.py::test_verdicts_are_parsed_strictly",
    "rag.choose_number": "test_judge.py::test_ten_takes_its_share_from_one",
}


def marks() -> list[tuple[Path, str, int, int]]:
    """File, name, and the line numbers (from 0) of the mark and of its end."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
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
    assert all(re.fullmatch(r"rag\.[a-z_]+", name) for name in names)


# Imports what is not stripped once, then runs every stripped package in a child of its own, two at a time. The stripped
# folder stands before the real one in the stage's path: the stage's other labs stay as they are.
DRIVER = """
import json, os, sys
import bm25s, data, hypothesis, labkit.cli, labkit.plots, labkit.runs, pytest, torch
import stage2_rag_finetune_deploy.chunking.dispatch, stage2_rag_finetune_deploy.vector_db.stores
import stage1_foundations.embeddings.encoders, stage1_foundations.first_rag.llm
assert not [name for name in sys.modules if name.startswith("stage2_rag_finetune_deploy.rag")]
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
        stage2_rag_finetune_deploy.__path__.insert(0, root)
        import stage2_rag_finetune_deploy.rag as package
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
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    jobs = []
    for number, (path, name, start, _) in enumerate(marks()):
        copy = tmp_path / str(number) / "rag"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.md", "*.png"))
        stripped = without_body(path.read_text(encoding="utf-8"), start)
        (copy / path.relative_to(PACKAGE)).write_text(stripped, encoding="utf-8")
        jobs.append((name, str(copy.parent), str(TESTS / CAUGHT_BY[name])))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(jobs)], cwd=PACKAGE.parents[1], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200,
    )  # fmt: skip
    results = json.loads(done.stdout.splitlines()[-1]) if done.stdout else done.stderr
    assert results == dict.fromkeys(CAUGHT_BY, int(pytest.ExitCode.TESTS_FAILED))
