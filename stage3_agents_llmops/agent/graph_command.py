"""`graph`: the agents' graph, drawn from the code."""

from dataclasses import dataclass
from pathlib import Path

from labkit.cli import Command, option
from labkit.errors import LabError
from labkit.files import atomic_path
from labkit.progress import console
from stage3_agents_llmops.agent.drawing import draw_figure, draw_mermaid


@dataclass(frozen=True)
class GraphConfig:
    """What to draw it as."""

    out: Path | None = option(None, "a .png, .svg or .mmd file; none prints Mermaid")


def run_graph(config: GraphConfig, preset: str) -> int:
    """Print or write the drawing.

    Raises:
        LabError: a file ending that nothing can be drawn as.
    """
    if config.out is None:
        print(draw_mermaid())
        return 0
    if config.out.suffix not in (".png", ".svg", ".mmd"):
        raise LabError(f"nothing is drawn as {config.out.suffix or config.out.name}", "--out graph.png")
    if config.out.suffix == ".mmd":
        with atomic_path(config.out) as temporary:
            temporary.write_text(draw_mermaid(), encoding="utf-8")
    else:
        draw_figure(config.out)
    console.print(f"{config.out}")
    return 0


COMMANDS = [Command("graph", "the agents' graph, drawn from the code", GraphConfig, run_graph)]
