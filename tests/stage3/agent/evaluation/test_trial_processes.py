"""Trials in several processes; each test names the bug that it catches."""

import os

import pytest

from stage3_agents_llmops.agent.evaluation.suite import SuiteResult, together
from stage3_agents_llmops.agent.evaluation.trial_processes import in_processes, shares


def play(part, done):
    """Where it was played, and what."""
    for _ in part:
        done()
    if 9 in part:
        raise ValueError("nine")
    return os.getpid(), list(part)


@pytest.mark.parametrize(("trials", "processes", "sizes"), [(4, 2, [2, 2]), (5, 2, [2, 3]), (1, 2, [1]), (4, 1, [4])])
def test_every_trial_is_played_once(trials, processes, sizes):
    """Catches: a trial that two processes play, one that none does, and a process with nothing to do."""
    parts = shares(trials, processes)
    assert [number for part in parts for number in part] == list(range(trials))
    assert sorted(map(len, parts)) == sizes


def test_parts_are_played_elsewhere_and_told():
    """Catches: everything in one process, results in the order of their ends, a bar that does not move."""
    ticks = []
    (first, some), (second, others) = in_processes(play, shares(5, 2), lambda: ticks.append(1))
    assert some + others == [0, 1, 2, 3, 4] and len({first, second, os.getpid()}) == 3 and len(ticks) == 5


def test_a_part_that_fails_ends_it():
    """Catches: a failure that is lost, and a listener that waits for ever afterwards."""
    with pytest.raises(ValueError, match="nine"):
        in_processes(play, [range(8, 10), range(2)], lambda: None)


def test_results_are_put_together():
    """Catches: changes elsewhere that only the first process saw."""
    parts = [SuiteResult(("a",), ("x",)), SuiteResult(("b", "c"), ("y",))]
    assert together(parts) == SuiteResult(("a", "b", "c"), ("x", "y"))
