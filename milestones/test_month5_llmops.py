"""Month 5: one test a check of criteria.toml. The work is done by the month's grader (registry.py)."""

import pytest

from milestones.grade import MonthResult


@pytest.mark.month(5)
def test_check(check: str, graded: MonthResult) -> None:
    """The figure lies within the check's threshold."""
    problem = graded.problem(check)
    if problem:
        pytest.fail(problem, pytrace=False)
