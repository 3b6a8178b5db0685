"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage2_rag_finetune_deploy.chunking as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "chunking.pack": "test_packing.py::test_pack_by_hand",
    "chunking.sections": "test_sections.py::test_paths_by_hand",
    "chunking.units": "test_functions.py::test_units_by_hand",
    "chunking.join_turns": "test_meetings.py::test_join_turns_by_hand",
    "chunking.valley_depths": "test_meaning.py::test_valleys_by_hand",
    "chunking.places_held": "test_evaluation.py::test_places_by_hand",
}
PRELOAD = [
    "hypothesis", "ir_measures", "llama_index.core", "tokenizers",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"chunking\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
