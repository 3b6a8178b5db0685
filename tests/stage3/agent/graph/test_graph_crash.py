"""kill -9 at every node, and right after every write: the conversation goes on, and nothing is written twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stage3_agents_llmops.agent.drawing import graph_topology
from stage3_agents_llmops.agent.graph import AGENT_GRAPHS

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[3]


def run_script(folder, template, *words):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{FOLDER}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "kill_script.py"), str(folder), str(template), *words],
        capture_output=True, text=True, env=environment, cwd=ROOT, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def killed(tmp_path_factory, shop_template):
    return run_script(tmp_path_factory.mktemp("kill"), shop_template)


def wrong(killed, holds):
    """The cases for which something does not hold."""
    return [(each["conversation"], each["case"]) for each in killed["results"] if not holds(each)]


def test_the_conversations_reach_every_node_and_write(killed):
    done = [tool for each in killed["references"].values() for tool in each["writes"]]
    assert done == ["cancel_order", "return_item", "send_invoice", "open_complaint", "request_human"]
    assert len(killed["results"]) >= 20
    inner = [f"{node['parent']}:{node['label']}" for node in graph_topology()["nodes"] if node["parent"]]
    outer = [
        node["id"] for node in graph_topology()["nodes"] if node["parent"] is None and node["id"] not in AGENT_GRAPHS
    ]
    cut = {each["case"][0] for each in killed["results"]}
    assert (set(inner) | set(outer)) - {"start", "end"} <= cut


def test_every_case_was_really_killed(killed):
    assert wrong(killed, lambda each: each["killed"]) == []


def test_a_killed_run_is_finished_and_the_shop_is_as_if_nothing_had_happened(killed):
    assert wrong(killed, lambda each: each["finished"]) == []
    assert wrong(killed, lambda each: each["writes"] == killed["references"][each["conversation"]]["writes"]) == []
    assert wrong(killed, lambda each: each["same_shop"]) == []


def test_the_customer_reads_the_same_answers(killed):
    assert wrong(killed, lambda each: each["answers"] == killed["references"][each["conversation"]]["answers"]) == []


def test_without_the_keys_a_write_is_done_twice(tmp_path, shop_template):
    [case] = run_script(tmp_path, shop_template, "fresh-keys")["results"]
    assert case["killed"] and case["writes"].count("open_complaint") == 2
