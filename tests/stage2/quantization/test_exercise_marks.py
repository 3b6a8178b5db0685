"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage2_rag_finetune_deploy.quantization as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "quantization.fit_grid": "test_grid.py::test_levels_by_hand",
    "quantization.add_inputs": "test_hessian.py::test_statistics_are_means",
    "quantization.inverse_factor": "test_hessian.py::test_factor_of_the_inverse",
    "quantization.quantise_columns": "test_gptq.py::test_blocks_change_nothing",
    "quantization.search_scales": "test_awq.py::test_strong_inputs_get_larger_weights",
    "quantization.pack": "test_packing.py::test_four_bits_by_hand",
    "quantization.verdict": "test_measures.py::test_verdicts_by_hand",
}
PRELOAD = [
    "data", "hypothesis", "labkit.cli", "labkit.plots", "labkit.runs", "torch", "transformers",
    "transformers.models.llama.modeling_llama", "stage1_foundations.embeddings.bootstrap",
    "stage2_rag_finetune_deploy.finetune.base_model", "stage2_rag_finetune_deploy.finetune.evaluate_command",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"quantization\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
