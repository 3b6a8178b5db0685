"""From figures to marks: what a month's checks gave, what they earn, and the month's status.

passed        every check holds
partial       not every check, but one that is judged (criteria.toml) earned its points
failed        the artefact is there, and no judged check earned its points
not started   the artefact is not there
error         the grader itself could not do its work; no verdict on the learner
"""

import math
import random
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labkit.errors import LabError, debugging
from milestones.criteria import Check, Criteria, Month, Threshold
from milestones.submission import NotStarted, newest_run, runs_of

PASSED, PARTIAL, FAILED, NOT_STARTED, ERROR = STATUSES = (
    "passed",
    "partial",
    "failed",
    "not started",
    "error",
)
NOT_MEASURED = "not measured"  # of a check
YES_NO = "yes/no"
Grader = Callable[["Context"], "list[CheckResult]"]


@dataclass(frozen=True)
class CheckResult:
    """One check's figure and verdict.

    `status` is passed, failed or not measured; `score` sets `earned`, because points may depend on others.
    """

    check: Check
    threshold: Threshold
    status: str
    value: float | None = None
    message: str = ""  # one line: what was found
    advice: str = ""  # what to type, where it differs from the month's
    earned: int = 0

    @property
    def unit(self) -> str:
        """Of the value and of the bounds."""
        return self.check.unit if self.threshold.unit is None else self.threshold.unit

    @property
    def figure(self) -> str:
        """The figure with its unit, as people read it."""
        if self.value is None:
            return ""
        if self.unit == YES_NO:
            return "yes" if self.value else "no"
        return f"{number(self.value)} {self.unit}".strip()

    @property
    def wanted(self) -> str:
        """The bounds, as people read them; empty where they are not known before measuring."""
        return "yes" if self.unit == YES_NO else self.threshold.text

    @property
    def line(self) -> str:
        """The check in one line, for a test's message or a log."""
        if self.status == NOT_MEASURED:
            return f"{self.check.title['en']}: not measured" + (f" ({self.message})" if self.message else "")
        wanted = f"{self.figure or 'no figure'}, wanted {self.wanted}"
        return f"{self.check.title['en']}: {wanted}" + (f"; {self.message}" if self.message else "")


@dataclass
class Context:
    """What a month's grader gets, and what it may leave for the report.

    Args:
        submission: the folder with the learner's code.
        runs: the learner's runs.
        seed: fresh for every grading unless the user asked for one.
        say: shows in a few words what is going on.
        details: facts for the report, JSON values only; `samples` are shown on the page.
    """

    month: Month
    submission: Path
    runs: Path
    seed: int
    say: Callable[[str], None] = lambda text: None
    details: dict[str, Any] = field(default_factory=dict)

    def newest_run(self) -> tuple[Path, dict[str, Any]]:
        """The month's artefact: folder and report. Raises NotStarted or LabError (see submission.py)."""
        return newest_run(self.runs, *self.month.run)

    def random(self, purpose: str) -> random.Random:
        """Random numbers that depend on the seed and the purpose alone, not on what was drawn before."""
        return random.Random(f"{self.seed} {self.month.number} {purpose}")

    def result(
        self, id: str, value: float | None, message: str = "", *, variant: str = "", advice: str = ""
    ) -> CheckResult:
        """A figure, held against the check's threshold."""
        check = self.month.check(id)
        threshold = check.threshold(variant)
        status = PASSED if threshold.holds(value) else FAILED
        return CheckResult(check, threshold, status, value, message, advice if status == FAILED else "")


@dataclass(frozen=True)
class MonthResult:
    """The verdict on one month."""

    month: Month
    status: str
    checks: tuple[CheckResult, ...] = ()
    message: str = ""
    next: str = ""
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """Earned points."""
        return sum(result.earned for result in self.checks)

    @property
    def max_points(self) -> int:
        """Points of all checks."""
        return sum(check.points for check in self.month.checks)

    def problem(self, id: str) -> str:
        """Why a check is red and what to type, in one line; empty for a check that passed."""
        result = next(result for result in self.checks if result.check.id == id)
        if result.status == PASSED:
            return ""
        reason = f"{self.status}: {self.message}" if self.status in (NOT_STARTED, ERROR) else result.line
        step = f"; next: {self.next}" if self.next else ""
        return f"month {self.month.number}, {id}: {reason}{step}"


def score(month: Month, results: Iterable[CheckResult]) -> tuple[CheckResult, ...]:
    """Results in the order of criteria.toml with the points they earn; missing ones stand as not measured.

    Raises:
        ValueError: a result comes twice, or belongs to another month.
    """
    by_id: dict[str, CheckResult] = {}
    for result in results:
        if result.check not in month.checks or result.check.id in by_id:
            raise ValueError(f"unexpected result for {result.check.id!r} in month {month.number}")
        by_id[result.check.id] = result
    complete = [by_id.get(check.id) or not_measured(check) for check in month.checks]
    passed = {result.check.id for result in complete if result.status == PASSED}
    return tuple(
        replace(
            result,
            earned=result.check.points if passed.issuperset((result.check.id, *result.check.needs)) else 0,
        )
        for result in complete
    )


def not_measured(check: Check, message: str = "") -> CheckResult:
    """A check that the grader did not come to."""
    threshold = check.threshold() if "" in check.thresholds else Threshold("depends on the corpus")
    return CheckResult(check, threshold, NOT_MEASURED, message=message)


def status_of(results: Sequence[CheckResult]) -> str:
    """The month's status from its scored checks."""
    if all(result.status == PASSED for result in results):
        return PASSED
    return PARTIAL if any(result.check.judged and result.earned for result in results) else FAILED


def grade_month(grader: Grader, context: Context) -> MonthResult:
    """Run one month's grader. Nothing that goes wrong in it reaches the other months."""
    month, start = context.month, time.perf_counter()

    def verdict(status: str, **facts: Any) -> MonthResult:
        seconds = round(time.perf_counter() - start, 1)
        if not facts.get("checks"):
            facts["checks"] = tuple(not_measured(check, status) for check in month.checks)
        return MonthResult(month, status, seconds=seconds, details=context.details, **facts)

    try:
        checks = score(month, grader(context))
    except NotStarted:
        return verdict(NOT_STARTED, message="nothing to grade yet", next=month.start)
    except LabError as error:
        return verdict(ERROR, message=error.message, next=error.try_next)
    except Exception as error:
        if debugging():
            raise
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return verdict(ERROR, message=f"the grader failed: {line}", next=f"{command(month.number)} --debug")
    status = status_of(checks)
    if status == PASSED:
        return verdict(PASSED, checks=checks)
    missed = [result for result in checks if result.status != PASSED]
    advice = next((result.advice for result in missed if result.advice), month.improve)
    return verdict(status, checks=checks, message=missed[0].line, next=advice)


class Grading:
    """One grading of one hand-in: each month is graded at most once, when somebody asks.

    Args:
        numbers: months that were picked; `required`, those that must pass (default: the same).
        submission: a hand-in folder; None is this checkout.
        seed: None draws a fresh one, which the report keeps.
    """

    def __init__(
        self,
        criteria: Criteria,
        numbers: Sequence[int] | None = None,
        *,
        submission: Path | None = None,
        seed: int | None = None,
        required: Sequence[int] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.criteria = criteria
        self.numbers = tuple(dict.fromkeys(criteria.month(n).number for n in numbers or criteria.numbers))
        self.required = tuple(dict.fromkeys(criteria.month(n).number for n in required or self.numbers))
        self.numbers = tuple(sorted({*self.numbers, *self.required}))
        self.submission = submission
        self.seed = secrets.randbits(32) if seed is None else seed
        self.say = say or (lambda text: None)
        self._results: dict[int, MonthResult] = {}

    def month(self, number: int) -> MonthResult:
        """The verdict on a month."""
        if number not in self._results:
            from milestones.registry import grader_of  # here: a month's module may import this one

            month = self.criteria.month(number)
            folder = self.submission or Path.cwd()
            say = lambda text: self.say(f"month {number}: {text}")  # noqa: E731
            context = Context(month, folder, runs_of(self.submission), self.seed, say)
            self._results[number] = grade_month(lambda context: grader_of(number)(context), context)
        return self._results[number]

    def results(self, without: str = "") -> list[MonthResult]:
        """The verdicts on all picked months, graded now where that is still to do.

        Args:
            without: a reason; if given, months not graded yet are not graded but marked `error` with it.
        """
        return [
            self._results.get(number) or self._ungraded(number, without) if without else self.month(number)
            for number in self.numbers
        ]

    def _ungraded(self, number: int, reason: str) -> MonthResult:
        month = self.criteria.month(number)
        checks = tuple(not_measured(check, reason) for check in month.checks)
        return MonthResult(month, ERROR, checks, message=reason, next=command(number))

    @property
    def passed(self) -> bool:
        """Whether every required month passed."""
        return all(self.month(number).status == PASSED for number in self.required)


def command(*numbers: int) -> str:
    """What to type to grade these months."""
    return f"python -m milestones --months {','.join(map(str, numbers))}"


def number(value: float) -> str:
    """A figure as people read it: three digits, more only in whole numbers."""
    whole = math.isfinite(value) and (abs(value) >= 1000 or value == int(value))
    return f"{value:.0f}" if whole else f"{value:.3g}"
