"""Conditions: an experiment may want only some events, for example those in Chinese.

    when = { language = "zh" }                     equal
    when = { language = ["zh", "en"] }             one of
    when = { orders = { min = 3 } }                at least, at most (min, max)
    when = { channel = { not = "phone" } }         not equal, none of

They are asked after the diversion, never before: otherwise the segments would hold different people in different
experiments, and switching a condition on would reshuffle everybody. An attribute that is not known fulfils nothing.
"""

from collections.abc import Mapping
from typing import Any

OPERATORS = ("min", "max", "not")


def matches(condition: Any, value: Any) -> bool:
    """Whether one attribute's value fulfils its condition."""
    if value is None:
        return False
    if isinstance(condition, Mapping):
        number = isinstance(value, int | float)  # a text where a number should be fulfils no bound
        checks = {
            "min": lambda bound: number and value >= bound,
            "max": lambda bound: number and value <= bound,
            "not": lambda other: not matches(other, value),
        }
        return all(checks[operator](operand) for operator, operand in condition.items())
    return value in condition if isinstance(condition, list | tuple) else value == condition


def fulfilled(when: Mapping[str, Any], attributes: Mapping[str, Any]) -> bool:
    """Whether every condition is fulfilled; none is always."""
    return all(matches(condition, attributes.get(name)) for name, condition in when.items())
