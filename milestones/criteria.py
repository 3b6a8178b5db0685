"""criteria.toml as objects, checked when it is read: a typo in it must not quietly pass or fail anyone."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from labkit.errors import LabError

CRITERIA = Path(__file__).with_name("criteria.toml")
POINTS = 100  # of every month
BOUNDS = {"at_least": ">=", "at_most": "<=", "above": ">", "below": "<"}


@dataclass(frozen=True)
class Threshold:
    """One or two bounds of a figure, and how they were chosen."""

    why: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    unit: str | None = None  # where it differs from the check's

    def holds(self, value: float | None) -> bool:
        """Whether a figure lies within the bounds; None and NaN never do."""
        return (
            value is not None
            and value == value
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    @property
    def text(self) -> str:
        """`1.3 to 2.5`, `>= 0.75`, `> 0.7`."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        bounds = ((sign, getattr(self, name)) for name, sign in BOUNDS.items())
        return ", ".join(f"{sign} {number:g}" for sign, number in bounds if number is not None)


@dataclass(frozen=True)
class Check:
    """One thing that is looked at. `thresholds` maps a variant to its bounds; "" is for every variant."""

    id: str
    title: Mapping[str, str]
    points: int
    unit: str
    thresholds: Mapping[str, Threshold]
    needs: tuple[str, ...] = ()
    judged: bool = True

    def threshold(self, variant: str = "") -> Threshold:
        """The bounds for a variant, or those for `other`, or those for every variant."""
        return self.thresholds.get(variant) or self.thresholds.get("other") or self.thresholds[""]


@dataclass(frozen=True)
class Month:
    """A milestone: the criterion, where its artefact is, what to type, and the checks."""

    number: int
    title: Mapping[str, str]
    criterion: Mapping[str, str]
    run: tuple[str, ...]
    start: str
    improve: str
    checks: tuple[Check, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def check(self, id: str) -> Check:
        """A check by its id."""
        return next(check for check in self.checks if check.id == id)


@dataclass(frozen=True)
class Criteria:
    """All months, in order."""

    grader_version: int
    months: tuple[Month, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """1, 2, ..."""
        return tuple(month.number for month in self.months)

    def month(self, number: int) -> Month:
        """A month by its number.

        Raises:
            LabError: there is no such month.
        """
        for month in self.months:
            if month.number == number:
                return month
        known = ",".join(map(str, self.numbers))
        raise LabError(f"there is no month {number}", f"--months {known}, or fewer of them")


@cache
def load_criteria(path: Path = CRITERIA) -> Criteria:
    """Read and check criteria.toml.

    Raises:
        LabError: absent, not TOML, or inconsistent; the message names the place.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LabError(f"no criteria at {path}", "git checkout milestones/criteria.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path.name} is not TOML: {error}", f"correct {path.name}") from None
    try:
        months = tuple(_month(entry) for entry in content["months"])
        criteria = Criteria(int(content["grader_version"]), months)
        _require([month.number for month in months] == sorted({month.number for month in months}), "months")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = "lacks" if isinstance(error, KeyError) else "is wrong:"
        raise LabError(f"{path.name} {kind} {error}", f"correct {path.name}") from None
    return criteria


def _month(entry: dict[str, Any]) -> Month:
    checks = tuple(_check(check) for check in entry["checks"])
    month = Month(**entry | {"checks": checks, "run": tuple(entry["run"])})
    place = f"month {month.number}"
    ids = [check.id for check in checks]
    _require(len(set(ids)) == len(ids), f"{place}: a check's id comes twice")
    total = sum(check.points for check in checks)
    _require(total == POINTS, f"{place}: points add up to {total}, not {POINTS}")
    for index, check in enumerate(checks):
        unknown = sorted(set(check.needs) - set(ids[:index]))
        _require(not unknown, f"{place}: {check.id} needs {', '.join(unknown)}, not listed before it")
    for texts in (month.title, month.criterion, *(check.title for check in checks)):
        _require(set(texts) == {"en", "zh"} and all(texts.values()), f"{place}: a text lacks en or zh")
    return month


def _check(entry: dict[str, Any]) -> Check:
    bounds = entry.pop("threshold")
    variants = bounds if all(isinstance(value, dict) for value in bounds.values()) else {"": bounds}
    thresholds = {name: _threshold(entry["id"], values) for name, values in variants.items()}
    _require("" in thresholds or "other" in thresholds, f"{entry['id']}: no threshold for `other`")
    _require(entry["points"] >= 0, f"{entry['id']}: negative points")
    return Check(**entry | {"thresholds": thresholds, "needs": tuple(entry.get("needs", ()))})


def _threshold(check: str, values: dict[str, Any]) -> Threshold:
    threshold = Threshold(**values)
    numbers = [getattr(threshold, name) for name in BOUNDS]
    _require(any(number is not None for number in numbers), f"{check}: a threshold without a bound")
    _require(all(isinstance(n, int | float | None) for n in numbers), f"{check}: a bound is not a number")
    _require(bool(threshold.why.strip()), f"{check}: `why` is empty")
    low, high = threshold.at_least, threshold.at_most
    _require(low is None or high is None or low <= high, f"{check}: at_least is above at_most")
    return threshold


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
