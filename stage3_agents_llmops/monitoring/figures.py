"""The lab's pictures: percentiles four ways, drift then and now, alerts over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labkit.plots import COLOURS, new_figure, save_figure
from stage3_agents_llmops.monitoring.alerting import Alert
from stage3_agents_llmops.monitoring.drift import SHIFTED, Drift
from stage3_agents_llmops.monitoring.metrics import DURATION_OBJECTIVE, EDGES
from stage3_agents_llmops.monitoring.run_record import ERRORS, RunRecord, ended

EXPORTED = {"objective": EDGES["duration_s"], "doubling": tuple(0.01 * 2**power for power in range(14))}
GREY = "#9a9a9a"


@dataclass(frozen=True)
class Percentile:
    """One percentile of the same values: exact, from the exported buckets, from doubling buckets, averaged."""

    q: float
    exact: float
    buckets: float
    doubling: float
    averaged: float


def plot_percentiles(seconds: Sequence[float], percentiles: Sequence[Percentile], path: Path) -> Path:
    """Left: the answers' distribution and the buckets' edges. Right: each percentile, four ways."""
    fig, (left, right) = new_figure(1, 2, width=10.5, height=3.9)
    values = np.sort(seconds)
    left.plot(values, 100 * np.arange(1, len(values) + 1) / len(values), color=COLOURS[0])
    for edge in EDGES["duration_s"]:
        left.axvline(edge, color=GREY, linewidth=0.6, alpha=0.7)
    left.axvline(DURATION_OBJECTIVE, color=COLOURS[1], linewidth=1.4)
    left.set_xlim(values[0] * 0.8, max(values[-1], DURATION_OBJECTIVE) * 1.1)
    left.set_xscale("log")
    left.set_xlabel("seconds of an answer; lines: the buckets' edges, orange: the objective")
    left.set_ylabel("answers that took at most so long (%)")
    ways = {"exact": "exact", "buckets": "exported buckets", "doubling": "doubling buckets",
            "averaged": "mean of the arms' percentiles"}  # fmt: skip
    for place, ((name, label), colour) in enumerate(zip(ways.items(), (0, 2, 4, 1), strict=True)):
        heights = [getattr(each, name) for each in percentiles]
        spots = np.arange(len(percentiles)) + 0.2 * (place - 1.5)
        right.bar(spots, heights, width=0.19, color=COLOURS[colour], label=label)
        for x, height in zip(spots, heights, strict=True):
            right.text(x, height, f"{height:.2f}", ha="center", va="bottom", fontsize=7)
    right.set_xticks(range(len(percentiles)), [f"P{100 * each.q:g}" for each in percentiles])
    right.set_ylabel("seconds")
    right.legend(loc="upper left")
    return save_figure(fig, path)


def plot_drift(drifts: Sequence[Drift], path: Path) -> Path:
    """Shares of the bins then and now, one panel a thing that is watched."""
    fig, axes = new_figure(1, len(drifts), width=4.4 * len(drifts), height=3.8, squeeze=False)
    for axis, drift in zip(axes.flat, drifts, strict=True):
        bins = list(drift.bins)
        spots = np.arange(len(bins))
        for shift, counts, label, colour in (
            (-0.2, drift.then, "then", COLOURS[0]),
            (0.2, drift.now, "now", COLOURS[1]),
        ):
            total = max(1, sum(counts))
            axis.bar(spots + shift, [100 * count / total for count in counts], width=0.38, color=colour,
                     label=f"{label} (n = {sum(counts)})")  # fmt: skip
        numeric = bins[0].isdigit()
        names = [f"{int(name) + 1}" for name in bins] if numeric else [name.replace("_", " ") for name in bins]
        axis.set_xticks(spots, names, rotation=0 if numeric else 55, ha="center" if numeric else "right")
        said = (
            "too few samples"
            if drift.psi is None
            else f"PSI {drift.psi:.3f} ({'shifted' if drift.shifted else 'no alarm'})"
        )
        axis.set_title(f"{drift.what.replace('_', ' ')}: {said}")
        axis.set_ylabel("per cent")
        axis.set_xlabel("tenths of then" if numeric else "")
        axis.set_ylim(0, 1.3 * axis.get_ylim()[1])
        axis.legend(loc="upper right")
    fig.suptitle(f"an alarm is a PSI above {SHIFTED:g} with a chi-square p below 0.001", fontsize=9, x=0.01, ha="left")
    return save_figure(fig, path)


def plot_alerts(
    rows: Sequence[RunRecord], alerts: Sequence[tuple[float, Alert]], span: tuple[float, float],
    releases: Mapping[str, str], marks: Mapping[str, float], path: Path,
) -> Path:  # fmt: skip
    """Above: the share of errors over the last minute. Below: a bar for each alert as long as it fired.

    Args:
        alerts: (time, alert that began or ended); span: from and to; releases: label -> release; marks: text -> time.
    """
    start, end = span
    bars = firing_times(alerts, end)
    fig, (top, low) = new_figure(2, 1, width=9.0, height=3.2 + 0.3 * len(bars), sharex=True,
                                 height_ratios=[2.2, 0.4 + 0.3 * max(1, len(bars))])  # fmt: skip
    for (label, release), colour in zip(releases.items(), COLOURS, strict=False):
        own = [row for row in rows if row.release == release and not row.probe]
        times, shares = errors_by_minute(own, start, end)
        top.plot((times - start) / 60, 100 * shares, color=colour, label=label)
    top.axhline(5, color="black", linewidth=0.9, linestyle=":")
    top.set_ylabel("errors (%, last minute)")
    top.legend(loc="center right")
    for text, at in marks.items():
        for axis in (top, low):
            axis.axvline((at - start) / 60, color=GREY, linewidth=1)
        top.text((at - start) / 60, top.get_ylim()[1], f" {text}", fontsize=8, va="top", color="#555555")
    for place, stretches in enumerate(bars.values()):
        spans = [((begin - start) / 60, (stop - begin) / 60) for begin, stop in stretches]
        low.broken_barh(spans, (place - 0.35, 0.7), color=COLOURS[1])
    low.set_yticks(range(len(bars)), list(bars))
    low.set_ylim(-0.6, max(0.6, len(bars) - 0.4))
    low.set_xlabel("minutes")
    return save_figure(fig, path)


def errors_by_minute(rows: Sequence[RunRecord], start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the share of errors over the minute before each; NaN where nothing ended."""
    times = np.arange(start + 60, end, 5.0)
    ends, bad = np.array([ended(row) for row in rows]), np.array([row.status in ERRORS for row in rows], float)
    inside = [(ends > at - 60) & (ends <= at) for at in times]
    return times, np.array([bad[each].mean() if each.any() else np.nan for each in inside])


def firing_times(alerts: Sequence[tuple[float, Alert]], end: float) -> dict[str, list[tuple[float, float]]]:
    """Each alert's name -> from when to when it fired."""
    found: dict[str, list[tuple[float, float]]] = {}
    for at, alert in alerts:
        name = alert.name if alert.about == "release" else f"{alert.name} ({alert.subject})"
        if alert.state == "firing":
            found.setdefault(name, []).append((at, end))
        elif name in found:
            found[name][-1] = (found[name][-1][0], at)
    return found
