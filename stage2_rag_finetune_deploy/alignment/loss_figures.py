"""`explain`: the losses drawn, and how good the estimators of a KL divergence are, measured.

Every curve is what losses.py returns, and every slope its gradient by autograd: nothing is drawn from a formula.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from rich.table import Table
from torch import Tensor

from labkit.cli import option, require_at_least
from labkit.plots import COLOURS, new_figure
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage2_rag_finetune_deploy.alignment.kl_estimators import ESTIMATORS, Quality, measure_estimators
from stage2_rag_finetune_deploy.alignment.losses import dpo_loss, group_advantages, grpo_loss
from stage2_rag_finetune_deploy.alignment.script import PROG
from stage2_rag_finetune_deploy.finetune.hand_drawn import save_small

BLUE, ORANGE, GREEN = COLOURS[:3]
CLIP, GROUP = 0.2, 8
ONE = torch.tensor([[True]])
SPREADS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0)
TABLE = (0.2, 1.0, 2.0)  # the spreads that are printed
Row = tuple[float, dict[str, Quality]]


@dataclass(frozen=True)
class ExplainConfig:
    """Options of `explain`."""

    draws: int = option(200_000, "tokens drawn at each distance, to measure the estimators")
    vocabulary: int = option(1000, "tokens that there are")
    seed: int = option(1, "of policy, reference and draws")


PRESETS = {"smoke": ExplainConfig(draws=2000, vocabulary=50), "cpu": ExplainConfig()}


def run_explain(config: ExplainConfig, preset: str) -> None:
    """Print the table of the estimators and draw the figures into the run's folder."""
    require_at_least(config, 2, "draws", "vocabulary")
    with start_run("stage2", "alignment", "explain", config, preset, config.seed) as run:
        rows = {
            spread: measure_estimators(spread, config.vocabulary, config.draws, config.seed)
            for spread in progress(SPREADS, description="estimators")
        }
        show_estimators(run, rows)
        for path, caption in (
            (draw_dpo(run.dir / "dpo.png"), "DPO: the loss and its slope, and what it leaves open"),
            (draw_clip(run.dir / "clip.png"), "GRPO: the clipped loss of a good and of a bad answer"),
            (draw_groups(run.dir / "groups.png"), "GRPO: advantages in a group, and groups that say nothing"),
            (draw_kl(run.dir / "kl.png", list(rows.values())), "Estimators of the KL divergence"),
        ):
            run.figure(path, caption)
            console.print(f"{path.name:<12}{caption}", markup=False, soft_wrap=True)
        run.next(f"{PROG} compare")


def show_estimators(run: Run, rows: dict[float, Row]) -> None:
    """The table of three distances."""
    table = Table(box=None, pad_edge=False)
    for heading in ("KL, nats", "estimator", "mean / KL", "std of a draw / KL", "negative", "gradient off by"):
        table.add_column(heading, justify="left" if heading == "estimator" else "right")
    for spread in TABLE:
        exact, found = rows[spread]
        for name, quality in found.items():
            table.add_row(
                f"{exact:.3f}" if name == "k1" else "", name, f"{quality.mean:.3f}", f"{quality.std:.1f}",
                f"{quality.negative:.0%}", f"{quality.gradient_error:.0%}",
            )  # fmt: skip
    console.print(table)
    exact, found = rows[TABLE[1]]
    for name, quality in found.items():
        run.metric(f"mean_{name}", quality.mean, meaning=f"mean of the draws / exact KL of {exact:.3f} nats")
        run.metric(f"std_{name}", quality.std, meaning="standard deviation of one draw / exact KL")
        run.metric(f"gradient_error_{name}", quality.gradient_error, meaning="relative, against the gradient of KL")


# ----------------------------------------------------------------------------------------------------------------- DPO


def dpo_at(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and its slope along the chosen log-ratio, one pair at a time; log-ratios are multiplied by beta already."""
    chosen = chosen.detach().requires_grad_()
    zero = torch.zeros(())
    losses = torch.stack([
        dpo_loss(a, b, zero, zero, 1.0)[0] for a, b in zip(chosen.flatten(), rejected.flatten(), strict=True)
    ])  # fmt: skip
    return losses.detach().view(chosen.shape), torch.autograd.grad(losses.sum(), chosen)[0]


def draw_dpo(path: Path) -> Path:
    """Left: loss and push against the margin. Right: the plane of both log-ratios, where only the difference counts."""
    figure, (left, right) = new_figure(1, 2, width=10, height=4.2)
    margins = torch.linspace(-6, 6, 121)
    loss, slope = dpo_at(margins, torch.zeros_like(margins))
    left.plot(margins, loss, color=BLUE, label="loss")
    left.plot(margins, -slope, color=ORANGE, label="push on the gap (minus the slope)")
    start = dpo_at(torch.zeros(1), torch.zeros(1))[0].item()
    left.plot([0], [start], "o", color="black")
    left.annotate(f"every run starts here:\nmargin 0, loss {start:.3f}", (0, start), (0.6, 2.6),
                  arrowprops={"arrowstyle": "-", "color": "#666666"})  # fmt: skip
    left.set(xlabel="margin", ylabel="nats", title="What is wrong is pushed hardest", ylim=(0, 6))
    left.legend(loc="upper right")
    axis = torch.linspace(-4, 4, 41)
    rejected, chosen = torch.meshgrid(axis, axis, indexing="ij")
    levels = right.contour(chosen, rejected, dpo_at(chosen, rejected)[0], [0.05, 0.2, 0.5, 1, 2, 4], cmap="viridis")
    right.clabel(levels, fmt="%g")
    for end, colour, text, place in (
        ((2.0, -1.0), GREEN, "chosen up,\nrejected down", (2.1, -1.5)),
        ((-0.6, -3.6), ORANGE, "both down: just as\ngood for the loss", (-3.8, -3.5)),
    ):
        right.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2})
        right.text(*place, text, color=colour, size=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})
    right.plot([0], [0], "o", color="black")
    right.set(xlabel="beta x log-ratio of the chosen answer", ylabel="beta x log-ratio of the rejected answer",
              title="Only the difference counts", xlim=(-4, 4), ylim=(-4, 4))  # fmt: skip
    return save_small(figure, path)


# ---------------------------------------------------------------------------------------------------------------- GRPO


def clipped(ratios: Tensor, advantage: float) -> tuple[Tensor, Tensor]:
    """Loss of one token at each ratio, and the push on its log-probability (minus the slope)."""
    logprobs = ratios.log().detach().requires_grad_()
    losses = torch.stack([
        grpo_loss(value.view(1, 1), torch.zeros(1, 1), torch.tensor([advantage]), ONE, CLIP)[0] for value in logprobs
    ])  # fmt: skip
    return losses.detach(), -torch.autograd.grad(losses.sum(), logprobs)[0]


def draw_clip(path: Path) -> Path:
    """One token's objective against its ratio, for an answer better and one worse than its group."""
    figure, axes = new_figure(1, 2, width=10, height=3.8, sharex=True)
    ratios = torch.linspace(0.4, 1.8, 281)
    for side, advantage, title in ((axes[0], 1.0, "better"), (axes[1], -1.0, "worse")):
        loss, push = clipped(ratios, advantage)
        side.axvspan(1 - CLIP, 1 + CLIP, color="#f0f0f0", zorder=0)
        side.axhline(0, color="#999999", linewidth=0.8)
        side.plot(ratios, -loss, color="#9ecae8", linewidth=6, label="objective (minus the loss)")
        side.plot(ratios, push, color=ORANGE, label="push on the log-probability")
        side.plot([1], [advantage], "o", color="black")
        still = ratios[push == 0]
        side.text(still.mean(), 0.12 * advantage, "no push", color=ORANGE, ha="center", va="center", size=9)
        side.set(title=f"Advantage {advantage:+.0f}: {title} than its group", xlabel="probability now / when drawn")
    axes[0].legend(loc="upper left")
    return save_small(figure, path)


def draw_groups(path: Path) -> Path:
    """Left: what an answer's advantage is, by how many of its group are right. Right: how often all are alike."""
    figure, (left, right) = new_figure(1, 2, width=10, height=3.8)
    counts = torch.arange(1, GROUP)
    rewards = (torch.arange(GROUP)[None] < counts[:, None]).float()  # (GROUP - 1, GROUP), the right ones first
    advantages = group_advantages(rewards.flatten(), GROUP).view_as(rewards)
    left.plot(counts, advantages[:, 0], "o-", color=GREEN, label="a right answer")
    left.plot(counts, advantages[:, -1], "o-", color=ORANGE, label="a wrong answer")
    left.plot([0, GROUP], [0, 0], "x", color="black", label="all alike: 0, nothing is learnt")
    left.axhline(0, color="#999999", linewidth=0.8)
    left.set(xlabel=f"right answers among {GROUP}", ylabel="advantage", title="The rare answer moves most")
    left.legend(loc="lower left")
    chance = torch.linspace(0, 1, 201)
    for group, colour in zip((2, 4, 8, 16), COLOURS, strict=False):
        right.plot(chance, chance**group + (1 - chance) ** group, color=colour, label=f"group of {group}")
    right.set(xlabel="how often the model answers a question right", ylabel="share of groups", ylim=(0, 1),
              title="Groups in which all answers score the same")  # fmt: skip
    right.legend(loc="upper center")
    return save_small(figure, path)


# ------------------------------------------------------------------------------------------------------------------ KL


def draw_kl(path: Path, rows: list[Row]) -> Path:
    """Mean, noise and gradient of the estimators against the exact divergence."""
    figure, (mean, noise, gradient) = new_figure(1, 3, width=11, height=3.8)
    exact = [row[0] for row in rows]
    for name, colour, style in zip(ESTIMATORS, COLOURS, ("-", "-", "-", "--"), strict=False):
        found = [row[1][name] for row in rows]
        if name != "k3 times ratio":  # as a figure it is k3
            mean.plot(exact, [each.mean for each in found], color=colour, marker="o", markersize=4, label=name)
            noise.plot(exact, [each.std for each in found], color=colour, marker="o", markersize=4, label=name)
        gradient.plot(exact, [each.gradient_error for each in found], style, color=colour, marker="o", markersize=4,
                      label=name)  # fmt: skip
    for axes, title, label in (
        (mean, "Right on average?", "mean of the draws / KL"),
        (noise, "How noisy?", "standard deviation of a draw / KL"),
        (gradient, "As a loss: the right gradient?", "distance of the mean gradient, relative"),
    ):
        logarithmic(axes, title, label)
    mean.axhline(1, color="#999999", linewidth=0.8)
    noise.set_yscale("log")
    return save_small(figure, path)


def logarithmic(axes: Axes, title: str, label: str) -> None:
    """The axis of the divergence, and texts."""
    axes.set_xscale("log")
    axes.set(xlabel="KL(policy || reference), nats", ylabel=label, title=title)
    axes.legend()
