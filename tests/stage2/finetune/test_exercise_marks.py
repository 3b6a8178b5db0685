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

import stage2_rag_finetune_deploy.finetune

PACKAGE = Path(stage2_rag_finetune_deploy.finetune.__file__).parent
TESTS = Path(__file__).parent
MARK, END = re.compile(r"^( *)# exercise: (\S+)$"), re.compile(r"^( *)# end exercise$")

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "finetune.encode": "test_chat_format.py::test_only_the_response_is_learnt",
    "finetune.inject": "test_lora.py::test_what_cannot_be_injected",
    "finetune.lora_forward": "test_lora.py::test_nothing_changes_at_first",
    "finetune.lora_delta": "test_lora.py::test_delta_is_pefts",
    "finetune.response_loss": "test_training.py::test_the_loss_without_a_shared_beginning",
    "finetune.length_sorted_batches": "test_training.py::test_an_epoch_has_every_sample_once",
    "finetune.parse_reply": "test_understanding.py::test_replies_with_a_label",
    "finetune.score": "test_understanding.py::test_scores_by_hand",
    "finetune.mcnemar": "test_evaluate_command.py::test_mcnemar_by_hand",
    "finetune.quantise_nf4": "test_nf4.py::test_codes_and_absmax_are_bitsandbytes",
    "finetune.quantise_absmax": "test_nf4.py::test_nested_absmax_is_bitsandbytes",
    "finetune.nf4_gradient": "test_qlora.py::test_gradient_of_the_input_by_autograd",
    "finetune.qlora_forward": "test_qlora.py::test_starts_as_its_base",
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
    assert all(re.fullmatch(r"finetune\.[a-z_0-9]+", name) for name in names)


# Imports what is not stripped once, then runs every stripped package in a child of its own, two at a time. The stripped
# folder stands before the real one in the stage's path: the stage's other labs stay as they are.
DRIVER = """
import json, os, sys
import data, labkit.cli, labkit.plots, labkit.runs, peft, pytest, torch, transformers
import transformers.models.llama.modeling_llama
assert not [name for name in sys.modules if name.startswith("stage2_rag_finetune_deploy.finetune")]
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
        import stage2_rag_finetune_deploy.finetune as package
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
        copy = tmp_path / str(number) / "finetune"
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
