"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage2_rag_finetune_deploy.vector_db as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "vector_db.evaluate": "test_filters.py::test_evaluate_by_hand",
    "vector_db.push_not": "test_filters.py::test_push_not_by_hand",
    "vector_db.to_milvus": "test_filters.py::test_milvus_expressions_by_hand",
    "vector_db.rrf_fuse": "test_parts.py::test_rrf_by_hand",
    "vector_db.exact_neighbours": "test_parts.py::test_exact_neighbours_are_those_of_a_full_sort",
    "vector_db.reconcile": "test_faiss_store.py::test_reconcile_by_hand",
}
PRELOAD = [
    "data", "hypothesis", "labkit.cli", "labkit.plots", "labkit.runs", "tokenizers", "torch",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"vector_db\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
