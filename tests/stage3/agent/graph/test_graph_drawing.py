"""The drawing is the graph."""

import pytest

from stage3_agents_llmops.agent import drawing
from stage3_agents_llmops.agent.customer_service_agent import CustomerServiceAgent
from stage3_agents_llmops.agent.graph import AGENT_GRAPHS, WRITERS, build_graph


def test_the_mermaid_shows_every_node_and_the_agents_steps():
    text = CustomerServiceAgent.draw()
    for name in (*AGENT_GRAPHS, "guard", "classify", "supervisor", "confirm", "act", "human_handoff"):
        assert name in text
    assert "graph TD" in text
    for agent, graph in AGENT_GRAPHS.items():
        for step in graph.nodes:
            assert step == "__start__" or f"{agent}\\3a{step}" in text, (agent, step)


def test_the_topology_is_that_of_the_compiled_graph():
    topology = CustomerServiceAgent.topology()
    ids = {node["id"] for node in topology["nodes"]}
    assert set(build_graph().nodes) - {"__start__"} <= ids
    assert all(edge["source"] in ids and edge["target"] in ids for edge in topology["edges"])
    assert {"source": "confirm", "target": "act", "conditional": True} in topology["edges"]
    into_act = {edge["source"] for edge in topology["edges"] if edge["target"] == "act"}
    assert into_act == {"confirm", "classify", *WRITERS}


def test_an_edge_of_the_code_is_an_edge_of_the_drawing():
    """The control: a graph with another agent is drawn otherwise."""
    from langgraph.graph import END, START, StateGraph

    from stage3_agents_llmops.agent.state import ConversationState

    other = StateGraph(ConversationState)
    other.add_sequence([("dance", lambda state: {}), ("bow", lambda state: {})])
    other.add_edge(START, "dance")
    other.add_edge("bow", END)
    drawn = drawing.mermaid_of({"order_agent": other.compile(checkpointer=False)})
    assert "dance" in drawn and "dance" not in CustomerServiceAgent.draw()


def test_the_figure_has_a_place_for_every_node(tmp_path, monkeypatch):
    path = drawing.draw_figure(tmp_path / "graph.png")
    assert path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 20_000
    monkeypatch.setattr(drawing, "PLACES", {"start": (0, 0)})
    with pytest.raises(KeyError):
        drawing.draw_figure(tmp_path / "again.png")
