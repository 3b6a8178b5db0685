"""The evaluation in one figure: how pass^k falls with k, and which themes are hard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labkit.plots import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from stage3_agents_llmops.agent.evaluation.suite import SuiteResult


def draw_pass_power(path: Path, results: dict[str, SuiteResult], trials: int) -> Path:
    """pass^k of every agent on the left, pass^1 by theme on the right."""
    figure, (left, right) = new_figure(1, 2, width=10.0, height=4.2)
    ks = range(1, trials + 1)
    for name, result in results.items():
        points = [(k, power) for k in ks if (power := result.pass_power(k)) is not None]
        left.plot(*zip(*points, strict=True), marker="o", label=name)
    left.set(title="pass^k: solved every time in k trials", xlabel="k", ylabel="share of tasks", ylim=(-0.03, 1.03))
    left.set_xticks(list(ks))
    left.legend()
    agent = results["agent"]
    themes = sorted({outcome.verdict.theme for outcome in agent.judged})
    powers = [agent.pass_power(1, theme=theme) for theme in themes]
    right.barh(range(len(themes)), powers, color=COLOURS[0])
    right.set_yticks(range(len(themes)), [theme.replace("_", " ") for theme in themes])
    right.set(title="the agents' pass^1 by theme", xlim=(0, 1.03))
    right.invert_yaxis()
    return save_figure(figure, path)
