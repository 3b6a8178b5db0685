"""Which module grades which month.

A month's module has one function, `grade(context) -> list[CheckResult]`: it finds the artefact with
`context.newest_run()`, measures, and returns `context.result(check_id, value, message)` for the checks of
criteria.toml. It is imported when its month is graded, so that a broken module costs its own month only.
"""

from importlib import import_module

from milestones.grade import Grader

MODULES = {number: f"milestones.month{number}" for number in (1, 2, 3, 4, 5)}


def grader_of(number: int) -> Grader:
    """The function that grades a month."""
    return import_module(MODULES[number]).grade
