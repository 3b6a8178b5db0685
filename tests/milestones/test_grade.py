"""Points, statuses, and months that do not touch each other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.errors import LabError
from milestones.criteria import load_criteria
from milestones.grade import ERROR, FAILED, NOT_STARTED, PARTIAL, PASSED, Context, Grading, grade_month, score
from milestones.submission import NotStarted

MONTH = load_criteria().month(1)
GOOD = {
    "genuine": 1, "runs": 1, "bits_per_character": 2.0, "distinct": 1.0, "longest_copy": 20,
    "copied_share": 0.0, "real_words": 0.99, "likelihood": 0.1,
}  # fmt: skip
BAD = {
    "genuine": 0, "runs": 0, "bits_per_character": 6.0, "distinct": 0.1, "longest_copy": 500,
    "copied_share": 1.0, "real_words": 0.1, "likelihood": 3.0,
}  # fmt: skip
UNTRAINED = {"bits_per_character", "real_words", "likelihood"}


def context(number: int = 1) -> Context:
    return Context(load_criteria().month(number), Path("."), Path("runs"), seed=1)


def not_begun(context: Context) -> list:
    """The grader of a month whose artefact is not there."""
    raise NotStarted


def grader(*bad: str, only: set[str] | None = None) -> Callable:
    """A grader whose figures are good but for some."""

    def grade(context: Context) -> list:
        figures = {id: (BAD if id in bad else GOOD)[id] for id in GOOD if only is None or id in only}
        return [context.result(id, value, variant="tiny-shakespeare") for id, value in figures.items()]

    return grade


@pytest.mark.parametrize(
    ("bad", "status", "points"),
    [
        ((), PASSED, 100),
        (("real_words",), PARTIAL, 75),
        (("bits_per_character",), PARTIAL, 60),
        (("copied_share",), PARTIAL, 50),  # what was copied earns nothing for its words
        (("distinct",), PARTIAL, 50),
        (("runs",), FAILED, 0),
        (("genuine",), FAILED, 0),
        (tuple(UNTRAINED), FAILED, 10),  # an untrained model runs, repeats nothing and copies nothing
        (tuple({*UNTRAINED, "longest_copy"}), FAILED, 10),
        (tuple(BAD), FAILED, 0),
    ],
)
def test_points_and_status(bad: tuple[str, ...], status: str, points: int) -> None:
    """Catches: points for conditions alone or for copied samples; `partial` for an untrained model."""
    result = grade_month(grader(*bad), context())
    assert (result.status, result.points, result.max_points) == (status, points, 100)
    assert (result.next == "") == (status == PASSED)


def test_check_that_was_forgotten_does_not_pass() -> None:
    """Catches: a month that passes because its grader left a check out."""
    result = grade_month(grader(only=set(GOOD) - {"likelihood"}), context())
    assert (result.status, result.points) == (PARTIAL, 75)
    assert "not measured" in result.problem("likelihood")


def test_results_come_once_and_belong_to_the_month() -> None:
    """Catches: points counted twice, or taken from another month."""
    one = context().result("runs", 1.0)
    with pytest.raises(ValueError, match="unexpected"):
        score(MONTH, [one, one])
    with pytest.raises(ValueError, match="unexpected"):
        score(MONTH, [context(2).result("answers", 1.0)])


@pytest.mark.parametrize(
    ("trouble", "status", "message", "step"),
    [
        (NotStarted(), NOT_STARTED, "nothing to grade yet", "make stage1"),
        (LabError("no network", "try later"), ERROR, "no network", "try later"),
        (ZeroDivisionError("a\nb"), ERROR, "ZeroDivisionError: a b", "--debug"),
    ],
)
def test_trouble_is_one_line_and_a_command(trouble: Exception, status: str, message: str, step: str) -> None:
    """Catches: a crash in the grader taken for a failed learner, or shown as a traceback."""

    def grade(context: Context) -> list:
        raise trouble

    result = grade_month(grade, context())
    assert (result.status, result.points) == (status, 0)
    assert message in result.message and "\n" not in result.message
    assert step in result.next
    assert all(result.problem(check.id) for check in MONTH.checks)


def test_months_do_not_touch_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: a broken month's module that hides or fails the others; a month graded once for every test."""
    calls = []

    def grader_of(number: int) -> Callable:
        calls.append(number)
        if number == 1:
            raise ImportError("no module named milestones.month1")
        return not_begun

    monkeypatch.setattr("milestones.registry.grader_of", grader_of)
    grading = Grading(load_criteria(), submission=tmp_path)
    assert [result.status for result in grading.results()] == [ERROR] + [NOT_STARTED] * 4
    assert not grading.passed
    grading.month(1)
    assert calls == [1, 2, 3, 4, 5]


def test_required_months_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: red for a month that nobody required, or a required one that is not graded."""
    monkeypatch.setattr("milestones.registry.grader_of", lambda n: grader() if n == 1 else not_begun)
    assert Grading(load_criteria(), required=[1], submission=tmp_path).passed
    assert not Grading(load_criteria(), required=[1, 2], submission=tmp_path).passed
    assert Grading(load_criteria(), [1], required=[2], submission=tmp_path).numbers == (1, 2)


def test_run_that_did_not_finish_is_failed_not_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: "not started" for somebody whose training died."""
    from labkit.runs import start_run

    monkeypatch.setenv("COURSE_LAB_RUNS", str(tmp_path / "runs"))
    with pytest.raises(RuntimeError), start_run("stage1", "gpt", "train", {}):
        raise RuntimeError("loss is NaN")
    result = Grading(load_criteria(), [1], submission=tmp_path).month(1)
    assert result.status == FAILED
    assert "no finished run" in result.message and "failed" in result.message


def test_random_numbers_depend_on_seed_and_purpose_only() -> None:
    """Catches: samples that depend on what was drawn before them; the same passages for every seed."""
    first = context().random("samples").random()
    context().random("passages").random()
    assert context().random("samples").random() == first
    assert context().random("passages").random() != first
    other = Context(MONTH, Path("."), Path("runs"), seed=2)
    assert other.random("samples").random() != first
