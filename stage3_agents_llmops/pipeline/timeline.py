"""A deployment as a picture: the weights over time, and what every look said."""

from datetime import datetime
from pathlib import Path

from labkit.plots import COLOURS, new_figure, save_figure
from stage3_agents_llmops.pipeline.event_log import Deployment

ARM_COLOURS = {"stable": COLOURS[0], "baseline": COLOURS[5], "canary": COLOURS[1]}
NAMES = {"stable": "stable: old", "baseline": "baseline: old", "canary": "new"}
MARKS = {"continue": ("o", COLOURS[2]), "pause": ("s", COLOURS[4]), "abort": ("X", COLOURS[1])}


def draw_timeline(deployment: Deployment, path: Path) -> Path:
    """Two rows: weights of the arms as areas, verdicts as marks below; steps are named on top."""
    zero = datetime.fromisoformat(deployment.started)

    def at(time: str) -> float:
        return (datetime.fromisoformat(time) - zero).total_seconds()

    figure, (above, below) = new_figure(2, 1, width=9, height=5, sharex=True, height_ratios=[4, 1])
    end = max([at(event.time) for event in deployment.events], default=1.0)
    promoted = next((at(event.time) for event in deployment.events
                     if event.kind == "finished" and event.data["step"] == "promote"), end)  # fmt: skip
    changes = [(at(event.time), event.data["weights"]) for event in deployment.events if event.kind == "weights"]
    changes = [(time, {"canary": 100.0} if time > promoted else weights) for time, weights in changes]
    draw_weights(above, changes, end)
    named = -end
    for event in deployment.events:
        if event.kind == "verdict":
            mark, colour = MARKS[event.data["verdict"]]
            below.plot(at(event.time), 0, mark, color=colour, markersize=6)
        if event.kind == "begun":
            for axes in (above, below):
                axes.axvline(at(event.time), color="#999999", linewidth=0.6)
            if at(event.time) - named > end / 40:  # names that would lie on each other are left out
                named = at(event.time)
                above.text(named, 102, event.data["step"], rotation=50, fontsize=7, ha="left", va="bottom")
    for name, (mark, colour) in MARKS.items():
        below.plot([], [], mark, color=colour, label=name)
    below.set(yticks=[], ylim=(-1, 1), xlabel="seconds since the order", ylabel="looks", xlim=(0, end))
    below.grid(False)
    below.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    text = f"{deployment.id}: {deployment.ending or 'running'}"
    text += f", {deployment.end['reason'][:100]}" if deployment.ending == "rolled back" else ""
    figure.suptitle(text, fontsize=10, x=0.02, ha="left")
    return save_figure(figure, path)


def draw_weights(axes: object, changes: list[tuple[float, dict[str, float]]], end: float) -> None:
    """Stacked steps: who had how many per cent of the customers, from when to when."""
    times = [0.0, *(time for time, _ in changes), end]
    rows = [{"stable": 100.0}, *(weights for _, weights in changes)]
    rows.append(rows[-1])
    stacks = [[row.get(arm, 0.0) for row in rows] for arm in ARM_COLOURS]
    axes.stackplot(times, stacks, step="post", colors=list(ARM_COLOURS.values()), labels=list(NAMES.values()),
                   alpha=0.85)
    axes.set(ylim=(0, 100), ylabel="% of the customers")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
