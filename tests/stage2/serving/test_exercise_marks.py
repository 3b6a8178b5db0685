"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage2_rag_finetune_deploy.serving as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "serving.poisson_arrivals": "test_latency_and_arrivals.py::test_an_infinite_rate_is_a_burst",
    "serving.inter_token_latencies": "test_latency_and_arrivals.py::test_the_first_token_is_no_gap",
    "serving.goodput": "test_latency_and_arrivals.py::test_goodput_counts_answers_that_kept_both_limits",
    "serving.kv_bytes_per_token": "test_memory.py::test_cache_of_qwen",
    "serving.cache_tokens": "test_memory.py::test_cache_is_vllms",
    "serving.guided_schema": "test_metrics_and_guided.py::test_it_forbids_what_the_task_forbids",
    "serving.chain_hash": "mini_engine/test_blocks_and_scheduler.py::test_chain_hash_knows_everything_before",
    "serving.match_prefix": "mini_engine/test_blocks_and_scheduler.py::test_a_hit_survives_until_its_place_is_needed",
    "serving.schedule": "mini_engine/test_blocks_and_scheduler.py::test_a_shared_beginning_is_computed_once",
    "serving.gathered_attention": "mini_engine/test_attention.py::test_gathered_attention_by_hand",
    "serving.top_k_top_p": "mini_engine/test_sampler_and_text.py::test_top_k_then_top_p_by_hand",
    "serving.held_back": "mini_engine/test_sampler_and_text.py::test_held_back_by_hand",
}
PRELOAD = [
    "data", "fastapi", "httpx", "hypothesis", "jsonschema", "labkit.cli", "labkit.plots", "labkit.runs", "numba",
    "prometheus_client", "scipy.stats", "torch", "transformers", "transformers.models.llama.modeling_llama", "uvicorn",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"serving\.[a-z_0-9]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
