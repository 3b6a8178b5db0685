"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage3_agents_llmops.registry as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "registry.manifest_sha256": "test_parts.py::test_manifest_sha256_by_hand",
    "registry.rollback_target": "test_parts.py::test_rollback_target_by_hand",
    "registry.first_broken": "test_parts.py::test_first_broken_by_hand",
    "registry.reachable": "test_parts.py::test_reachable_by_hand",
}
PRELOAD = ["hypothesis", "filelock", "labkit.cli", "labkit.runs", "labkit.progress"]


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"registry\.[a-z0-9_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
