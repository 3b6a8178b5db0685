"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage1_foundations.gpt as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "gpt.explicit_attention": "test_attention.py::test_explicit_attention_equals_a_sum_by_hand",
    "gpt.sample_rows": "test_batches.py::test_targets_are_the_next_tokens",
    "gpt.tied_dropout": "test_block.py::test_dropout_keeps_bfloat16",
    "gpt.block_forward": "test_block.py::test_pre_norm_residual_by_hand",
    "gpt.count_pairs": "test_tokenizers.py::test_count_pairs_by_hand",
    "gpt.merge_pair": "test_tokenizers.py::test_merge_pair_keeps_the_counts_true",
    "gpt.merge_word": "test_tokenizers.py::test_merge_word_takes_the_earliest_merge_not_the_longest",
    "gpt.average_gradients": "test_distributed.py::test_gradients_become_their_mean",
    "gpt.validation_loss": "test_evaluate.py::test_leaves_no_gradients",
    "gpt.activate": "test_feed_forward.py::test_gelu_is_not_the_exact_form",
    "gpt.cache_append": "test_kv_cache.py::test_append_returns_the_past_in_order",
    "gpt.row_product": "test_compiled_decoder.py::test_row_product_accumulates_in_float32",
    "gpt.orthogonalise": "test_muon.py::test_zero_gradient_stays_zero",
    "gpt.rms_norm": "test_normalisation.py::test_rms_norm_of_zeros_is_zero",
    "gpt.adamw_groups": "test_optimizer.py::test_adamw_groups_split_by_dimension",
    "gpt.apply_rope": "test_position_encoding.py::test_position_zero_is_identity",
    "gpt.sinusoidal_table": "test_position_encoding.py::test_sinusoidal_odd_width",
    "gpt.filter_logits": "test_sampling.py::test_top_k_by_hand",
    "gpt.schedule_factor": "test_schedule.py::test_linear_falls_to_the_floor",
}
PRELOAD = [
    "data", "hypothesis", "labkit.cli", "labkit.plots", "labkit.runs", "tokenizers", "torch",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"gpt\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
