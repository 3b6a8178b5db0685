"""Each test names the bug that it catches."""

import os
from pathlib import Path

import pytest
from exercise_marks import check_enclosed, check_names, check_removal

import stage3_agents_llmops.agent as lab

# What fails when the body of a marked function is removed: one quick test for each.
CAUGHT_BY = {
    "agent.choose_order": "graph/test_graph_dialogue.py::test_choose_order_lists_what_there_is_to_choose_from",
    "agent.route": "graph/test_graph_dialogue.py::test_route",
    "agent.may_handoff": "graph/test_graph_limits.py::test_may_handoff_counts_and_never_goes_in_a_circle_of_one",
    "agent.split_requests": "understanding/test_requests.py::test_the_example_of_the_module",
    "agent.reply_kind": "understanding/test_replies.py::test_a_yes_with_something_after_it_is_no_yes",
    "agent.return_ruling": "shop/test_shop_policy.py::test_return_ruling",
    "agent.idempotent_write": "shop/test_shop_writes.py::test_a_write_is_done_once",
    "agent.luhn": "guardrails/test_pii.py::test_luhn_by_hand",
    "agent.check_grounding": "guardrails/test_grounding.py::test_a_full_width_comma_parts_two_numbers",
    "agent.sse_frame": "service/test_event_log.py::test_a_frame_is_fields_and_an_empty_line",
    "agent.events_after": "service/test_event_log.py::test_what_a_cursor_has_missed",
    "agent.pass_power": "evaluation/test_pass_power.py::test_the_plain_power_of_the_share_is_too_high",
}
PRELOAD = [
    "hypothesis", "jsonschema", "httpx", "langgraph.graph", "langgraph.types", "prometheus_client", "fastapi", "h11",
    "uvicorn.protocols.http.h11_impl", "data.shop", "data.customer_service.values", "labkit.cli", "labkit.runs",
    "starlette.testclient", "data.hostile_set", "data.pii_set", "stage2_rag_finetune_deploy.serving.server_process",
]  # fmt: skip


def test_every_mark_encloses_one_function():
    """Catches: a mark without an end, two functions in one exercise, code that would be cut off."""
    check_enclosed(lab)


def test_names_are_unique_and_listed():
    """Catches: two exercises of one name; a new exercise whose removal no test notices."""
    check_names(lab, CAUGHT_BY, r"agent\.[a-z_]+")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_removing_any_marked_body_fails_its_test(tmp_path):
    """Catches: an exercise that a learner can hand in empty."""
    check_removal(lab, CAUGHT_BY, Path(__file__).parent, tmp_path, PRELOAD)
