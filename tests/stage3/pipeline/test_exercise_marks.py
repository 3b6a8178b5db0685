"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage3_agents_llmops.pipeline as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "pipeline.next_step": "test_event_log.py::test_next_step_by_hand",
    "pipeline.paired_interval": "test_gates.py::test_paired_interval_by_hand",
    "pipeline.unit_values": "test_canary_analysis.py::test_the_unit_is_the_customer",
    "pipeline.judge_metric": "test_canary_analysis.py::test_judge_metric_by_hand",
    "pipeline.weights_at": "test_canary_analysis.py::test_weights_of_the_canary_steps",
}
PRELOAD = ["hypothesis", "httpx", "labkit.cli", "labkit.runs", "scipy.stats", "stage3_agents_llmops.monitoring"]


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"pipeline\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
