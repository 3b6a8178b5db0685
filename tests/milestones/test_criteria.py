"""criteria.toml and its reader."""

from pathlib import Path

import pytest

from labkit.errors import LabError
from milestones.criteria import CRITERIA, Threshold, load_criteria
from milestones.registry import MODULES, grader_of


def test_shipped_criteria_cover_five_months() -> None:
    """Catches: a month lost, or one that names no command to type."""
    criteria = load_criteria()
    assert criteria.numbers == (1, 2, 3, 4, 5)
    assert {month.start for month in criteria.months} == {"make stage1", "make stage2", "make stage3"}
    assert criteria.month(2).check("mrr_at_10").threshold().text == "> 0.7"
    assert all(callable(grader_of(number)) for number in criteria.numbers)
    assert set(MODULES) <= set(criteria.numbers)


def test_no_threshold_is_provisional_in_month_1() -> None:
    """Catches: a number that nobody measured."""
    for check in load_criteria().month(1).checks:
        for variant, threshold in check.thresholds.items():
            assert "PROVISIONAL" not in threshold.why, f"{check.id}, {variant}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("points = 40", "points = 41", "add up to 101"),
        ('needs = ["genuine"]', 'needs = ["genuin"]', "needs genuin"),
        ('needs = ["genuine"]', 'needs = ["likelihood"]', "not listed before it"),
        ("at_least = 1.3\n", "at_least = 13\n", "at_least is above at_most"),
        ("above = 0.7", 'above = "0.7"', "not a number"),
        ('why = "one lucky grading in a hundred"', 'why = " "', "`why` is empty"),
        ("above = 0.7, ", "", "without a bound"),
        ("above = 0.7, ", "abvoe = 0.7, ", "abvoe"),
        ('id = "runs"', 'id = "genuine"', "comes twice"),
        ("number = 4", "number = 6", "months"),
        ('start = "make stage3"\n', "", "start"),
        ("grader_version", "grader version", "not TOML"),
    ],
)
def test_inconsistent_criteria_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Catches: a typo in the file that would pass or fail everybody without a word."""
    text = CRITERIA.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "criteria.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LabError, match="criteria.toml") as error:
        load_criteria(path)
    assert message in error.value.message


def test_bounds_are_met_exactly_where_they_say_so() -> None:
    """Catches: an MRR@10 of exactly 0.7 taken for more; a figure that is missing or NaN taken for a pass."""
    assert not Threshold("", above=0.7).holds(0.7)
    assert Threshold("", at_least=0.7).holds(0.7)
    assert Threshold("", at_most=0.7).holds(0.7)
    assert not Threshold("", below=0.05).holds(0.05)
    assert not Threshold("", at_least=1.3, at_most=2.6).holds(1.2)
    for nothing in (None, float("nan")):
        assert not Threshold("", at_most=2.6).holds(nothing)
