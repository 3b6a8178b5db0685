"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage3_agents_llmops.monitoring as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "monitoring.exact_quantile": "test_quantiles.py::test_exact_is_the_nearest_rank",
    "monitoring.bucket_quantile": "test_quantiles.py::test_buckets_by_hand",
    "monitoring.population_stability": "test_drift.py::test_psi_by_hand",
    "monitoring.next_state": "test_alerting.py::test_pending_then_firing",
    "monitoring.judge_probe": "test_probes.py::test_what_an_answer_is_worth",
    "monitoring.tell": "test_tracing.py::test_a_run_becomes_a_tree",
}
PRELOAD = ["hypothesis", "httpx", "jsonschema", "labkit.cli", "labkit.plots", "labkit.runs", "scipy.stats",
           "opentelemetry.sdk.trace.export", "prometheus_client"]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"monitoring\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
