"""`figures`: the block table over time, and the places of a batch under static and continuous batching.

Both come from the real scheduler without a model (simulation.py): a second, and the same for everybody.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from labkit.cli import option, require_at_least
from labkit.plots import COLOURS, new_figure, save_figure
from labkit.progress import console
from labkit.runs import start_run
from stage2_rag_finetune_deploy.serving.mini_engine.simulation import Lengths, Trace, ragged_lengths, simulate

SHORT = [Lengths(20, 22), Lengths(26, 10), Lengths(22, 30), Lengths(30, 16), Lengths(18, 26), Lengths(28, 12)]
BLOCK, BLOCKS, SHARED = 4, 26, 12  # small, so that preemption and sharing are seen


@dataclass(frozen=True)
class FiguresConfig:
    """Options of `figures`."""

    requests: int = option(32, "ragged requests for the second figure")
    places: int = option(8, "sequences in a batch")
    seed: int = option(1, "of their lengths")


PRESETS = {"smoke": FiguresConfig(requests=8, places=2), "cpu": FiguresConfig()}


def block_table_figure(path: Path) -> Trace:
    """Who uses which block at which step: six requests with a common beginning in a cache that is too small."""
    trace, scheduler = simulate(SHORT, BLOCKS, BLOCK, SHARED, max_num_seqs=4, max_num_batched_tokens=24)
    owner = np.array(trace.owner).T + 2  # (blocks, steps): 0 is shared, 1 is free
    colours = ListedColormap(["#333333", "#f2f2f2", *COLOURS])
    fig, ax = new_figure(width=8.0, height=4.0)
    ax.imshow(owner, cmap=colours, vmin=0, vmax=len(colours.colors) - 1, aspect="auto", interpolation="nearest",
              origin="lower", extent=(0.5, owner.shape[1] + 0.5, -0.5, BLOCKS - 0.5))  # fmt: skip
    ax.grid(False)
    ax.set_xlabel("step")
    ax.set_ylabel("block of the cache")
    ax.set_title(f"{len(SHORT)} requests, {SHARED} common tokens, {BLOCKS} blocks of {BLOCK}: "
                 f"{scheduler.counters.preemptions} preemptions")  # fmt: skip
    names = ["shared", "free", *(f"request {number + 1}" for number in range(len(SHORT)))]
    patches = [Patch(facecolor=colours(i), edgecolor="#999999", label=name) for i, name in enumerate(names)]
    ax.legend(handles=patches, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(fig, path)
    return trace


def occupancy_figure(path: Path, lengths: list[Lengths], places: int) -> dict[bool, Trace]:
    """Sequences in each step's batch, static above and continuous below."""
    traces = {static: simulate(lengths, max_num_seqs=places, static=static)[0] for static in (True, False)}
    fig, axes = new_figure(2, 1, width=8.0, height=4.2, sharex=True)
    for ax, (static, trace), colour in zip(axes, traces.items(), (COLOURS[1], COLOURS[0]), strict=True):
        steps = np.arange(1, len(trace.batch) + 1)
        ax.fill_between(steps, trace.batch, step="mid", color=colour, alpha=0.85, linewidth=0)
        share = sum(trace.batch) / (places * len(trace.batch))
        ax.set_title(f"{'static' if static else 'continuous'} batching: {len(trace.batch)} steps, "
                     f"{share:.0%} of the places in use")  # fmt: skip
        ax.set_ylim(0, places * 1.05)
        ax.set_ylabel("sequences")
    axes[1].set_xlabel("step (forward pass)")
    save_figure(fig, path)
    return traces


def run_figures(config: FiguresConfig, preset: str) -> None:
    """Draw both figures into the run's folder."""
    require_at_least(config, 1, "requests", "places")
    with start_run("stage2", "serving", "figures", config, preset, config.seed) as run:
        trace = block_table_figure(run.dir / "block_table.png")
        run.figure("block_table.png", "who uses which block of the cache at which step")
        lengths = ragged_lengths(config.requests, config.seed)
        traces = occupancy_figure(run.dir / "occupancy.png", lengths, config.places)
        run.figure("occupancy.png", "sequences in the batch, static and continuous")
        steps = {static: len(each.batch) for static, each in traces.items()}
        run.metric("steps_static", steps[True], meaning="forward passes, places filled when all are empty")
        run.metric("steps_continuous", steps[False], meaning="forward passes, places filled at once")
        run.metric("blocks_used_at_most", max(trace.used), meaning="of the first figure's cache")
        console.print(f"{config.requests} ragged requests, {config.places} places: {steps[True]} steps static, "
                      f"{steps[False]} continuous", markup=False, soft_wrap=True)  # fmt: skip
        console.print(f"  {run.dir}/block_table.png\n  {run.dir}/occupancy.png", markup=False, soft_wrap=True)
        run.next("python -m stage2_rag_finetune_deploy.serving bench")
