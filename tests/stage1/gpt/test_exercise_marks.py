"""Each test names the bug that it catches."""

import ast
import json
import os
import re
from pathlib import Path

import pytest

import stage1_foundations.gpt

PACKAGE = Path(stage1_foundations.gpt.__file__).parent
TESTS = Path(__file__).parent
MARK, END = re.compile(r"^( *)# exercise: (\S+)$"), re.compile(r"^( *)# end exercise$")

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "gpt.explicit_attention": "test_attention.py::test_explicit_attention_equals_a_sum_by_hand",
    "gpt.sample_rows": "test_batches.py::test_targets_are_the_next_tokens",
    "gpt.tied_dropout": "test_block.py::test_dropout_keeps_bfloat16",
    "gpt.block_forward": "test_block.py::test_pre_norm_residual_by_hand",
    "gpt.count_pairs": "test_tokenizers.py::test_count_pairs_by_hand",
    "gpt.merge_pair": "test_tokenizers.py::test_merge_pair_keeps_the_counts_true",
    "gpt.merge_word": "test_tokenizers.py::test_merge_word_takes_the_earliest_merge_not_the_longest",
    "gpt.average_gradients": "test_distributed.py::test_gradients_become_their_mean",
    "gpt.validation_loss": "test_evaluate.py::test_leaves_no_gradients",
    "gpt.activate": "test_feed_forward.py::test_gelu_is_not_the_exact_form",
    "gpt.cache_append": "test_kv_cache.py::test_append_returns_the_past_in_order",
    "gpt.row_product": "test_compiled_decoder.py::test_row_product_accumulates_in_float32",
    "gpt.orthogonalise": "test_muon.py::test_zero_gradient_stays_zero",
    "gpt.rms_norm": "test_normalisation.py::test_rms_norm_of_zeros_is_zero",
    "gpt.adamw_groups": "test_optimizer.py::test_adamw_groups_split_by_dimension",
    "gpt.apply_rope": "test_position_encoding.py::test_position_zero_is_identity",
    "gpt.sinusoidal_table": "test_position_encoding.py::test_sinusoidal_odd_width",
    "gpt.filter_logits": "test_sampling.py::test_top_k_by_hand",
    "gpt.schedule_factor": "test_schedule.py::test_linear_falls_to_the_floor",
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
    assert all(re.fullmatch(r"gpt\.[a-z_]+", name) for name in names)


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
        import stage1_foundations.gpt
        assert stage1_foundations.gpt.__file__.startswith(root)
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
        copy = tmp_path / str(number) / "stage1_foundations" / "gpt"
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
