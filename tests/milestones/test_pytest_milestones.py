"""`pytest milestones/` and `python -m milestones`, run as a user runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from milestones.criteria import load_criteria

ROOT = Path(__file__).parents[2]
Answer = tuple[int, str, dict]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Answer]:
    """Runs a command in the checkout with runs/ elsewhere: exit code, output, the report."""

    def run(*words: str, **variables: str) -> Answer:
        dropped = ("GITHUB_STEP_SUMMARY", "PYTEST_ADDOPTS", "COURSE_LAB_DEBUG")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        env = kept | {"COURSE_LAB_RUNS": str(tmp_path), "COLUMNS": "120"} | variables
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
        path = tmp_path / "milestones" / "milestones.json"
        report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return done.returncode, done.stdout + done.stderr, report

    return run


PYTEST = ("pytest", "-p", "no:cacheprovider", "milestones")
CRASHING = {"PYTHONPATH": str(Path(__file__).parent)}


def checks_of(*months: int) -> int:
    """How many checks these months have together."""
    return sum(len(load_criteria().month(month).checks) for month in months)


def test_nothing_started_is_red_in_one_line_a_check(run: Callable[..., Answer]) -> None:
    """Catches: green because nothing was there to grade; tracebacks for learners who have not begun."""
    code, output, report = run(*PYTEST)
    assert code == 1
    assert [month["status"] for month in report["months"]] == ["not started"] * 5
    assert "month 1, likelihood: not started: nothing to grade yet; next: make stage1" in output
    assert "Traceback" not in output and "def test_check" not in output
    assert f"{checks_of(1, 2, 3, 4, 5)} failed" in output


def test_picked_months_only(run: Callable[..., Answer]) -> None:
    """Catches: --months that is ignored, or that leaves the others in the report as failures."""
    code, output, report = run(*PYTEST, "--months", "2,3")
    assert code == 1 and f"{checks_of(2, 3)} failed, {checks_of(1, 4, 5)} deselected" in output
    assert [month["month"] for month in report["months"]] == [2, 3]


def test_no_test_collected_is_red_and_reported(run: Callable[..., Answer]) -> None:
    """Catches: a green build because a filter matched nothing."""
    code, output, report = run(*PYTEST, "-k", "no_such_test")
    assert code != 0
    assert report["problem"] == "no test was collected" and report["ok"] is False
    assert {month["status"] for month in report["months"]} == {"error"}


def test_crash_in_a_grader_is_red_and_reported(run: Callable[..., Answer]) -> None:
    """Catches: a crash that hides the other months, or that leaves no report."""
    code, output, report = run(*PYTEST, "-p", "crashing_grader", "--months", "1,2,3", **CRASHING)
    assert code == 1
    assert [month["status"] for month in report["months"]] == ["passed", "error", "not started"]
    assert "RuntimeError: the disk is on fire" in report["months"][1]["message"]
    assert f"{checks_of(1)} passed" in output and f"{checks_of(2, 3)} failed" in output and "Traceback" not in output


def test_passed_month_is_green(run: Callable[..., Answer]) -> None:
    """Catches: red although everything that was picked passed."""
    code, output, report = run(
        *PYTEST, "-p", "crashing_grader", "--months", "1", "--grade-seed", "5", **CRASHING
    )
    assert code == 0, output
    assert report["ok"] is True and report["seed"] == 5


def test_first_failure_does_not_leave_the_rest_without_a_report(run: Callable[..., Answer]) -> None:
    """Catches: a report that is missing, or that claims months were graded, after `pytest -x`."""
    code, _, report = run(*PYTEST, "-x", "-p", "crashing_grader", "--months", "2,3", **CRASHING)
    assert code == 1
    assert [month["message"] for month in report["months"]][1] == "not graded"


def test_bad_usage_is_one_line(run: Callable[..., Answer]) -> None:
    """Catches: a traceback, or all months graded, for a month that does not exist."""
    code, output, report = run(*PYTEST, "--months", "7")
    assert code == 4 and "there is no month 7" in output and not report


def test_command_needs_only_what_is_required(run: Callable[..., Answer], tmp_path: Path) -> None:
    """Catches: exit code 0 with a required month missing, exit code 1 for one that nobody asked for."""
    code, output, report = run("milestones", "--months", "1,2")
    assert code == 1 and "next: make stage1" in output and report["required"] == [1, 2]
    start = (
        "-c",
        "import crashing_grader, sys; from milestones.__main__ import main; sys.exit(main(sys.argv[1:]))",
    )
    env = os.environ | {"COURSE_LAB_RUNS": str(tmp_path), "PYTHONPATH": CRASHING["PYTHONPATH"]}
    words = [sys.executable, *start, "--require", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"milestones.json", "junit.xml", "milestones.md", "milestones.html", "badge.svg"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--months", "one"), "months are numbers"),
        (("--require", "9"), "there is no month 9"),
        (("--submission", "no/such/folder"), "no folder no/such/folder"),
        (("--submission", "milestones"), "is not a hand-in"),
        (("--seed", "-1"), ""),
        (("--month", "1"), "unknown option --month"),
    ],
)
def test_bad_command_line_is_two_lines(
    words: tuple[str, ...], message: str, capfd: pytest.CaptureFixture
) -> None:
    """Catches: a traceback, or a grading of something else, for a mistyped command."""
    from labkit.errors import guarded
    from milestones.__main__ import main

    assert guarded(main)(list(words)) == 2
    error = capfd.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 2
