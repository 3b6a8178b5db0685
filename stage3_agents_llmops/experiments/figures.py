"""The lab's pictures: the tree of layers, peeking, independence, ramps, lost units, power, effects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labkit.plots import COLOURS, new_figure, save_figure
from stage3_agents_llmops.experiments.analysis import Analysis
from stage3_agents_llmops.experiments.domains import Domain, layers_of
from stage3_agents_llmops.experiments.effects import ALPHA
from stage3_agents_llmops.experiments.hashing import SEGMENTS
from stage3_agents_llmops.experiments.peeking import Paths, p_values
from stage3_agents_llmops.experiments.power import power_of
from stage3_agents_llmops.experiments.ramping import Step
from stage3_agents_llmops.experiments.sample_ratio import alarm_power

GREY, PALE = "#9a9a9a", "#efefef"


def plot_tree(root: Domain, path: Path) -> Path:
    """A strip a layer: experiments in colour, cut into their arms; nested domains in grey; what is free, white."""
    layers = list(layers_of(root))
    fig, axis = new_figure(width=9.5, height=0.8 + 0.52 * len(layers))
    for place, (_, layer) in enumerate(layers):
        y, colour, grey = len(layers) - place, 0, 0
        axis.broken_barh([(0, 100)], (y - 0.36, 0.72), color=PALE, linewidth=0)
        for occupant in (*layer.domains, *layer.experiments):
            nested, main = isinstance(occupant, Domain), occupant.unit == "user"
            bottom, height = (y - 0.36, 0.72) if main else (y + 0.17, 0.22)  # each kind of unit has segments of its own
            for start, end in occupant.spans:
                left, right = 100 * start / SEGMENTS, 100 * end / SEGMENTS
                shares = [1.0] if nested else [arm.weight / 100 for arm in occupant.arms]
                for number, share in enumerate(shares):
                    width = (right - left) * share
                    begin = left + (right - left) * sum(shares[:number])
                    tint = ("#c4c4c4", "#adadad")[grey % 2] if nested else COLOURS[colour % len(COLOURS)]
                    alpha = 1 if nested else 0.75 - number / (1.8 * len(shares))
                    axis.broken_barh([(begin, width)], (bottom, height), color=tint, alpha=alpha, linewidth=0)
                kind = "domain " if nested else ""
                name = kind + occupant.name if main else f"{occupant.name} (by {occupant.unit})"
                axis.text((left + right) / 2, y - 0.06 if main else y + 0.28, name, ha="center", va="center",
                          fontsize=8 if main else 7)  # fmt: skip
            colour, grey = colour + (not nested), grey + nested
    names = [f"{'   ' * depth}{layer.name}{' (launch)' if layer.launch else ''}" for depth, layer in layers]
    axis.set_yticks(range(len(layers), 0, -1), names)
    axis.set_xlim(0, 100)
    axis.set_xlabel("per cent of the layer's traffic")
    axis.grid(visible=False)
    return save_figure(fig, path)


def plot_peeking(paths: Paths, stopped: Mapping[str, np.ndarray], path: Path, shown: int = 12) -> Path:
    """Left: p-values of some A/A tests over time. Right: how many have raised a false alarm by then, way by way."""
    fig, (left, right) = new_figure(1, 2, width=10.0, height=3.7)
    fixed = p_values(paths)
    for row in fixed[:shown]:
        low = row.min() < ALPHA
        left.plot(paths.units, row, color=COLOURS[1] if low else GREY, linewidth=1.1, alpha=0.9 if low else 0.5)
    left.axhline(ALPHA, color="black", linewidth=0.9, linestyle=":")
    left.set_yscale("log")
    left.set_title(f"p-values of {min(shown, len(fixed))} A/A tests: orange ones were 'significant' once")
    left.set_xlabel("units in each arm")
    for (way, alarms), colour in zip(stopped.items(), COLOURS[1:2] + COLOURS[2:4] + COLOURS[:1], strict=False):
        right.plot(paths.units, 100 * alarms.mean(axis=0), label=f"{way}: {alarms[:, -1].mean():.1%}", color=colour)
    right.axhline(100 * ALPHA, color="black", linewidth=0.9, linestyle=":")
    right.set_title("false alarms so far (%)")
    right.set_xlabel("units in each arm")
    right.legend()
    return save_figure(fig, path)


def plot_independence(tables: Mapping[str, Mapping[tuple[str, str], float]], path: Path) -> Path:
    """A matrix of p-values for each way of salting; white pairs share no unit or are nested in one another."""
    fig, axes = new_figure(1, len(tables), width=5.4 * len(tables), height=4.8, squeeze=False)
    for axis, (title, p_values_) in zip(axes.flat, tables.items(), strict=True):
        names = list(dict.fromkeys(name for pair in p_values_ for name in pair))
        grid = np.full((len(names), len(names)), np.nan)
        for (one, other), p_value in p_values_.items():
            i, j = sorted((names.index(one), names.index(other)))
            grid[j, i] = np.log10(max(p_value, 1e-300))
            shown = f"{p_value:.2f}" if p_value >= 0.01 else f"{p_value:.0e}" if p_value else "0"
            dark = p_value > 0.1 or p_value < 1e-5
            axis.text(i, j, shown, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        axis.imshow(grid, cmap="RdYlBu", vmin=-6, vmax=0, aspect="auto")
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.grid(visible=False)
        axis.set_title(title)
    return save_figure(fig, path)


def plot_ramps(ramps: Mapping[str, Sequence[Step]], path: Path) -> Path:
    """Stacked shares of the arms at every step; above each step the moves that nobody asked for."""
    fig, axes = new_figure(1, len(ramps), width=4.6 * len(ramps), height=3.6, squeeze=False)
    for axis, (title, steps) in zip(axes.flat, ramps.items(), strict=True):
        bottom = np.zeros(len(steps))
        for colour, arm in zip((COLOURS[0], GREY, COLOURS[1]) if len(steps[0].counts) == 3 else COLOURS,
                               steps[0].counts, strict=False):  # fmt: skip
            share = np.array([100 * step.counts[arm] / sum(step.counts.values()) for step in steps])
            axis.bar(range(len(steps)), share, bottom=bottom, color=colour, label=arm, width=0.7)
            bottom += share
        for place, step in enumerate(steps[1:], 1):
            axis.text(place, 102, f"{step.strays:,}", ha="center", fontsize=9,
                      color="black" if step.strays == 0 else "#b00020")  # fmt: skip
        last = list(steps[0].weights)[-1]
        axis.set_xticks(range(len(steps)), [f"{step.weights[last]:g} %" for step in steps])
        axis.set_ylim(0, 112)
        axis.set_xlabel(f"weight of {last}; above: strays")
        axis.set_title(title)
        axis.legend(loc="lower left", frameon=True, framealpha=0.9)
    return save_figure(fig, path)


def plot_sample_ratio(path: Path, simulated: Mapping[float, float], units: int = 20_000) -> Path:
    """The chance of the alarm against the share of units that one arm loses."""
    fig, axis = new_figure(width=6.0, height=3.6)
    loss = np.linspace(0.0005, 0.12, 120)
    for number, colour in zip((units // 4, units, units * 4), COLOURS, strict=False):
        axis.plot(100 * loss, [alarm_power(number, each) for each in loss], color=colour, label=f"{number:,} units")
    axis.plot([100 * each for each in simulated], list(simulated.values()), "o", color="black", markersize=4,
              label=f"simulated, {units:,}")  # fmt: skip
    axis.axhline(0.95, color="black", linewidth=0.9, linestyle=":")
    axis.set_xlabel("units that one of two arms loses (%)")
    axis.set_ylabel("chance of the alarm (p < .001)")
    axis.legend()
    return save_figure(fig, path)


def plot_power(
    rate: float, effects: Sequence[float], path: Path, sequential: Mapping[float, int] | None = None
) -> Path:
    """Power against units an arm for effects on a proportion; crosses: what looking all the time takes."""
    fig, axis = new_figure(width=6.4, height=3.7)
    units = np.unique(np.geomspace(50, 50_000, 160).astype(int))
    for effect, colour in zip(effects, COLOURS, strict=False):
        new = rate + effect
        curve = [power_of(int(n), effect, rate * (1 - rate), new * (1 - new)) for n in units]
        axis.plot(units, curve, color=colour, label=f"{100 * effect:+g} points on {rate:.0%}")
        if sequential and effect in sequential:
            axis.plot(sequential[effect], 0.8, "x", color=colour, markersize=8)
    axis.axhline(0.8, color="black", linewidth=0.9, linestyle=":")
    axis.set_xscale("log")
    axis.set_xlabel("units in each arm (x: when looked at all the time)")
    axis.set_ylabel("chance to find it")
    axis.legend()
    return save_figure(fig, path)


def plot_effects(analysis: Analysis, path: Path, truth: Mapping[tuple[str, str], float] | None = None) -> Path:
    """Each metric's effect as a share of the control's figure: thick for one look, thin for looking all the time.

    Args:
        truth: (arm, metric) -> true effect in the metric's unit, where it is known.
    """
    results = [each for each in analysis.results if each.effect.control]
    fig, axis = new_figure(width=7.4, height=1.1 + 0.5 * max(1, len(results)))
    for place, result in enumerate(reversed(results)):
        scale = 100 / abs(result.effect.control)
        colour = {1: COLOURS[2], 0: COLOURS[0], -1: COLOURS[1]}[result.surely]
        axis.plot([result.low * scale, result.high * scale], [place, place], color=colour, linewidth=1.2)
        axis.plot([result.effect.low * scale, result.effect.high * scale], [place, place], color=colour, linewidth=4)
        axis.plot(result.effect.difference * scale, place, "o", color=colour, markersize=6)
        if truth and (true := truth.get((result.arm, result.metric.name))) is not None:
            axis.plot(true * scale, place, "|", color="black", markersize=16, markeredgewidth=1.8)
    several = len({each.arm for each in results}) > 1
    names: list[Any] = [f"{each.metric.name}{f' ({each.arm})' if several else ''}" for each in reversed(results)]
    axis.set_yticks(range(len(results)), names)
    axis.axvline(0, color="black", linewidth=0.9, linestyle=":")
    axis.set_xlabel("per cent of the control's figure; thick: one look, thin: at any time")
    axis.set_title(f"{analysis.experiment}: treatment against {analysis.control}")
    return save_figure(fig, path)
