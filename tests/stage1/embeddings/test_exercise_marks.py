"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage1_foundations.embeddings as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "embeddings.mean_cosine": "test_explanations.py::test_mean_cosine_is_the_mean_over_all_pairs",
    "embeddings.paired_bootstrap": "test_bootstrap.py::test_paired_bootstrap_agrees_with_a_permutation_test",
    "embeddings.in_batch_loss": "test_contrastive.py::test_two_pairs_by_hand",
    "embeddings.split_pairs": "test_fine_tuning.py::test_questions_with_the_same_text_stay_on_one_side",
    "embeddings.mean_pool": "test_pooling.py::test_mean_does_not_see_padding",
    "embeddings.word_overlap": "test_explanations.py::test_word_overlap_by_hand",
}
PRELOAD = [
    "data", "hypothesis", "labkit.cli", "labkit.plots", "labkit.runs", "tokenizers", "torch",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"embeddings\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
