"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage2_rag_finetune_deploy.alignment as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "alignment.dpo_loss": "test_losses.py::test_dpo_by_hand",
    "alignment.group_advantages": "test_losses.py::test_advantages_by_hand",
    "alignment.kl_to_reference": "test_losses.py::test_kl_estimate_of_one_token",
    "alignment.grpo_loss": "test_losses.py::test_grpo_at_the_first_update",
    "alignment.draw_tokens": "test_rollout.py::test_temperature_zero_takes_the_best",
}
PRELOAD = ["hypothesis.internal.observability", "labkit.progress", "torch", "transformers.cache_utils"]


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"alignment\.[a-z_0-9]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
