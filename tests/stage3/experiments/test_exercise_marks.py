"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage3_agents_llmops.experiments as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "experiments.hashed": "test_hashing.py::test_hashed_is_planouts",
    "experiments.choose_arm": "test_assignment.py::test_choose_arm_by_hand",
    "experiments.cuped_adjust": "test_statistics.py::test_cuped_by_hand",
    "experiments.ratio_variance": "test_statistics.py::test_ratio_variance_by_hand_and_by_bootstrap",
    "experiments.sample_ratio": "test_statistics.py::test_sample_ratio_follows_the_weights",
    "experiments.msprt": "test_statistics.py::test_msprt_is_the_mixture_of_likelihood_ratios",
}
PRELOAD = ["hypothesis", "jsonschema", "labkit.cli", "labkit.plots", "labkit.runs", "scipy.integrate", "scipy.stats"]


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"experiments\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
