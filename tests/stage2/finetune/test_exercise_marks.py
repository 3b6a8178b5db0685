"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage2_rag_finetune_deploy.finetune as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "finetune.encode": "test_chat_format.py::test_only_the_response_is_learnt",
    "finetune.inject": "test_lora.py::test_what_cannot_be_injected",
    "finetune.lora_forward": "test_lora.py::test_nothing_changes_at_first",
    "finetune.lora_delta": "test_lora.py::test_delta_is_pefts",
    "finetune.response_loss": "test_training.py::test_the_loss_without_a_shared_beginning",
    "finetune.length_sorted_batches": "test_training.py::test_an_epoch_has_every_sample_once",
    "finetune.divergence": "test_training.py::test_the_divergence_is_kl_from_the_base",
    "finetune.parse_reply": "test_understanding.py::test_replies_with_a_label",
    "finetune.score": "test_understanding.py::test_scores_by_hand",
    "finetune.mcnemar": "test_evaluate_command.py::test_mcnemar_by_hand",
    "finetune.quantise_nf4": "test_nf4.py::test_codes_and_absmax_are_bitsandbytes",
    "finetune.quantise_absmax": "test_nf4.py::test_nested_absmax_is_bitsandbytes",
    "finetune.nf4_gradient": "test_qlora.py::test_gradient_of_the_input_by_autograd",
    "finetune.qlora_forward": "test_qlora.py::test_starts_as_its_base",
}
PRELOAD = [
    "data", "labkit.cli", "labkit.plots", "labkit.runs", "peft", "torch", "transformers",
    "transformers.models.llama.modeling_llama",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"finetune\.[a-z_0-9]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
