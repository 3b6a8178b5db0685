"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage2_rag_finetune_deploy.rag as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "rag.window_vectors": "test_token_vectors.py::test_windows_by_hand",
    "rag.max_sim": "test_token_vectors.py::test_max_sim_by_hand",
    "rag.fuse_scores": "test_fusion_and_rerank.py::test_score_fusion_by_hand",
    "rag.expansion_terms": "test_query_rewriting.py::test_expansion_terms_by_hand",
    "rag.mean_log_likelihood": "test_pair_rerankers.py::test_mean_log_likelihood_by_hand",
    "rag.plan_changes": "test_ingestion.py::test_the_plan_leaves_nothing_out",
    "rag.guard": "test_injection_guard.py::test_orders_go_and_the_rest_stays_word_for_word",
    "rag.reciprocal_rank": "test_retrieval_measures.py::test_reciprocal_rank_by_hand",
    "rag.parse_verdict": "test_judge.py::test_verdicts_are_parsed_strictly",
    "rag.choose_number": "test_judge.py::test_ten_takes_its_share_from_one",
}
PRELOAD = [
    "bm25s", "data", "hypothesis", "labkit.cli", "labkit.plots", "labkit.runs", "torch",
    "stage2_rag_finetune_deploy.chunking.dispatch", "stage2_rag_finetune_deploy.vector_db.stores",
    "stage1_foundations.embeddings.encoders", "stage1_foundations.first_rag.llm",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"rag\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
