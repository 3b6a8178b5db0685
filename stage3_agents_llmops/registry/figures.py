"""The lab's pictures: what was in production when; two registries side by side."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from labkit.plots import COLOURS, new_figure, save_figure
from stage3_agents_llmops.registry.timeline import Span

UNITS = [(86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")]


def plot_timeline(found: Sequence[Span], path: Path, now: datetime | None = None) -> Path:
    """A lane for every alias, a bar for every span, coloured by version; hatched where a rollback brought it back."""
    now = now or datetime.now(UTC)
    start = min((span.start for span in found), default=now)
    seconds = max((now - start).total_seconds(), 1e-3)
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= 3 * size), UNITS[-1])
    lanes = list(dict.fromkeys(span.alias for span in sorted(found, key=lambda span: span.alias)))
    versions = sorted({span.version for span in found})
    fig, axis = new_figure(width=9.0, height=1.2 + 0.75 * max(1, len(lanes)))
    for span in found:
        left = (span.start - start).total_seconds() / size
        right = ((span.end or now) - start).total_seconds() / size
        y = len(lanes) - lanes.index(span.alias)
        colour = COLOURS[versions.index(span.version) % len(COLOURS)]
        axis.broken_barh([(left, right - left)], (y - 0.36, 0.72), color=colour, alpha=0.85, edgecolor="white",
                         linewidth=1.2, hatch="///" if span.rollback else None)  # fmt: skip
        if right - left > 0.015 * seconds / size:
            axis.text((left + right) / 2, y, f"v{span.version}", ha="center", va="center", fontsize=10, color="white",
                      fontweight="bold")  # fmt: skip
    axis.set_yticks(range(len(lanes), 0, -1), lanes)
    axis.set_ylim(0.4, len(lanes) + 0.6)
    axis.set_xlim(0, seconds / size)
    axis.set_xlabel(f"{unit} since {start:%Y-%m-%d %H:%M:%S} UTC; hatched: a rollback brought it back")
    axis.grid(visible=False)
    return save_figure(fig, path)


def plot_storage(sizes: Sequence[tuple[int, int]], path: Path) -> Path:
    """A bar for every release: what it added to the disk, and above it what was there already.

    Args:
        sizes: of each release its bytes, and those that were new.
    """
    fig, axis = new_figure(width=6.4, height=3.4)
    versions = [f"v{number}" for number in range(1, len(sizes) + 1)]
    new = [new / 1000 for _, new in sizes]
    shared = [max(0.0, (total - new) / 1000) for total, new in sizes]
    axis.bar(versions, new, color=COLOURS[1], width=0.6, label="new on the disk")
    axis.bar(versions, shared, bottom=new, color="#cfcfcf", width=0.6, label="an earlier release has it")
    axis.set_ylabel("kB")
    axis.set_ylim(0, 1.25 * max(total for total, _ in sizes) / 1000)
    axis.legend(loc="upper right", ncols=2)
    axis.grid(visible=False, axis="x")
    return save_figure(fig, path)


def plot_comparison(
    seconds: Mapping[str, Mapping[str, float]], sizes: Mapping[str, Sequence[int]], path: Path
) -> Path:
    """Left: milliseconds of every call, registry by registry. Right: what lies on the disk after each release."""
    fig, (left, right) = new_figure(1, 2, width=10.0, height=3.8)
    height = 0.8 / len(seconds)
    for place, ((kind, calls), colour) in enumerate(zip(seconds.items(), COLOURS, strict=False)):
        rows = [len(calls) - number - place * height for number in range(len(calls))]
        values = [1000 * value for value in calls.values()]
        left.barh(rows, values, height=height, color=colour, label=kind)
        for row, value in zip(rows, values, strict=True):
            left.text(value * 1.08, row, f"{value:.1f}" if value < 10 else f"{value:.0f}", va="center", fontsize=8)
    names = list(next(iter(seconds.values())))
    left.set_yticks([len(names) - number - height / 2 for number in range(len(names))], names)
    left.set_xscale("log")
    left.set_xlim(right=3 * max(1000 * value for calls in seconds.values() for value in calls.values()))
    left.set_title("milliseconds of one call")
    left.grid(visible=False, axis="y")
    left.legend(loc="lower right")
    for (kind, bytes_), colour in zip(sizes.items(), COLOURS, strict=False):
        right.plot(range(1, len(bytes_) + 1), [each / 1e6 for each in bytes_], color=colour, label=kind)
    right.set_ylim(bottom=0)
    right.set_title("MB on the disk")
    right.set_xlabel("releases with the same model and another prompt")
    right.legend()
    return save_figure(fig, path)
