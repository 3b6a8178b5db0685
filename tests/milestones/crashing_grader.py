"""A pytest plugin for test_pytest_milestones.py: month 2's grader crashes, month 1's passes."""

from milestones import registry
from milestones.submission import NotStarted

GOOD = {"bits_per_character": 2.0, "longest_copy": 20, "copied_share": 0.0, "likelihood": 0.1}


def passes(context):
    ids = [check.id for check in context.month.checks]
    return [context.result(id, GOOD.get(id, 1.0), variant="tiny-shakespeare") for id in ids]


def crashes(context):
    raise RuntimeError("the disk is on fire")


def begins_nothing(context):
    raise NotStarted


registry.grader_of = lambda number: {1: passes, 2: crashes}.get(number, begins_nothing)
