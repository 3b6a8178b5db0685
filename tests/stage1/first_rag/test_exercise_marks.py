"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage1_foundations.first_rag as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "first_rag.best_sentence": "test_words.py::test_best_sentence_leaves_headings_aside",
    "first_rag.calibrate": "test_evidence.py::test_threshold_lies_between_the_values",
    "first_rag.coverage": "test_words.py::test_coverage_by_hand",
    "first_rag.fuse": "test_retriever.py::test_fuse_by_hand",
    "first_rag.reciprocal_rank": "test_evaluation.py::test_reciprocal_rank_by_hand",
    "first_rag.span_tree": "test_trace.py::test_span_tree_by_hand",
}
PRELOAD = [
    "hypothesis", "torch", "llama_index.core", "bm25s", "sklearn.metrics", "pytrec_eval",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"first_rag\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
