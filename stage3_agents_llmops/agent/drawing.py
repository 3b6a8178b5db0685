"""The graph drawn from the code: Mermaid for the README, nodes and edges for the page, a figure for both."""

from functools import cache
from pathlib import Path
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from stage3_agents_llmops.agent.graph import AGENT_GRAPHS, build_graph

ENDS = {"__start__": "start", "__end__": "end"}


@cache
def graph_topology() -> dict[str, list[dict[str, Any]]]:
    """Nodes {"id", "label", "parent"} and edges {"source", "target", "conditional"}; an agent's inner nodes are
    `order_agent:lookup`, with the agent as their parent."""
    outer = build_graph().get_graph()
    nodes = [{"id": ENDS.get(name, name), "label": ENDS.get(name, name), "parent": None} for name in outer.nodes]
    edges = [edge_of(edge, "") for edge in outer.edges]
    for agent, graph in AGENT_GRAPHS.items():
        inner = graph.get_graph()
        steps = [name for name in inner.nodes if name not in ENDS]
        nodes += [{"id": f"{agent}:{name}", "label": name, "parent": agent} for name in steps]
        edges += [edge_of(edge, f"{agent}:") for edge in inner.edges if not {edge.source, edge.target} & set(ENDS)]
    return {"nodes": nodes, "edges": edges}


def edge_of(edge: Any, prefix: str) -> dict[str, Any]:
    """One edge as data."""
    source, target = (prefix + ENDS.get(name, name) for name in (edge.source, edge.target))
    return {"source": source, "target": target, "conditional": bool(edge.conditional)}


@cache
def draw_mermaid() -> str:
    """The graph with its subgraphs, as Mermaid."""
    return mermaid_of(AGENT_GRAPHS)


def mermaid_of(agents: dict[str, CompiledStateGraph]) -> str:
    """The graph with these agents. LangGraph looks only into subgraphs that may have checkpoints, so they are compiled
    once more for the picture."""
    open_agents = {name: graph.builder.compile(name=name) for name, graph in agents.items()}
    return build_graph(agents=open_agents).get_graph(xray=True).draw_mermaid()


PLACES = {  # column, row of the figure
    "start": (0, 2), "guard": (1, 2), "classify": (2, 2), "supervisor": (3.1, 2), "order_agent": (5.2, 4),
    "complaint_agent": (5.2, 3), "refund_agent": (5.2, 2), "product_agent": (5.2, 1), "retrieve": (5.2, 0),
    "human_handoff": (3.1, -0.2), "act": (3.1, 4), "generate": (2, 0.3), "check": (1, 0.3), "confirm": (2, 4),
    "end": (0, 0.3),
}  # fmt: skip
COLOURS = {"confirm": "#fde9c8", "act": "#fde9c8", "human_handoff": "#f7dce0"}
DPI = 130
AGENT_COLOUR, OTHER_COLOUR = "#e3eefc", "#eef2ee"


def draw_figure(path: Path) -> Path:
    """The same as a picture: every node and edge of the graph, and the steps inside the agents.

    Raises:
        KeyError: the graph has a node that has no place in the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from labkit.files import atomic_path

    topology = graph_topology()
    figure, axes = pyplot.subplots(figsize=(11.5, 5.2), dpi=DPI)
    axes.set_xlim(-0.4, 6.3)
    axes.set_ylim(-0.6, 4.5)
    axes.axis("off")
    outer = [node["id"] for node in topology["nodes"] if node["parent"] is None]
    steps = {name: [each["label"] for each in topology["nodes"] if each["parent"] == name] for name in outer}
    boxes = {name: draw_node(axes, name, steps[name]) for name in outer}
    figure.canvas.draw()  # the boxes get their sizes, at which the arrows end
    ways = {(edge["source"], edge["target"]): edge["conditional"] for edge in topology["edges"]}
    for (source, target), conditional in ways.items():
        both = (target, source) in ways
        if source in boxes and target in boxes and not (both and source > target):
            draw_edge(axes, boxes[source], boxes[target], conditional or ways.get((target, source), False), both)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or "png", dpi=DPI, bbox_inches="tight")
    pyplot.close(figure)
    return path


def draw_node(axes: Any, name: str, steps: list[str]) -> Any:
    """A box with a name, and below it what the agent does in turn."""
    text = f"{name}\n{' → '.join(steps)}".strip().replace("_", " ")
    colour = AGENT_COLOUR if steps else COLOURS.get(name, OTHER_COLOUR)
    look = {"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": "#4a5a6a"}
    return axes.text(*PLACES[name], text, ha="center", va="center", fontsize=8.5, zorder=3, bbox=look)


def draw_edge(axes: Any, source: Any, target: Any, conditional: bool, both: bool) -> None:
    """An arrow from box to box; dashed where the way depends on the state, with two heads where it goes both ways."""
    arrow = {
        "arrowstyle": "<|-|>" if both else "-|>",
        "color": "#7a8896",
        "linestyle": "--" if conditional else "-",
        "patchA": source.get_bbox_patch(),
        "patchB": target.get_bbox_patch(),
        "shrinkA": 1,
        "shrinkB": 1,
    }
    axes.annotate("", xy=target.get_position(), xytext=source.get_position(), arrowprops=arrow, zorder=4)
