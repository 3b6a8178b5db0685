"""Draw docs/path.png: the labs in their order, the months they end in, and which of them are built.

python docs/path.py
"""

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 160.0, 88.0  # of the drawing, in units of a tenth of an inch
LEFT, RIGHT = 3.0, 157.0
INK, PALE = "#22303c", "#8a97a3"


@dataclass(frozen=True)
class Lab:
    """One box: the lab's folder, two lines about it, and the milestone reached with it."""

    name: str
    text: str
    month: tuple[int, str] | None = None


@dataclass(frozen=True)
class Stage:
    """One row."""

    folder: str
    title: str
    colour: str
    labs: tuple[Lab, ...]
    hands_on: str = ""


STAGES = (
    Stage("stage1_foundations", "Stage 1 · Foundations", "#2f6db5", (
        Lab("gpt", "attention to a trained,\nsampled, opened-up mini-GPT", (1, "it writes coherent text")),
        Lab("embeddings", "which model, and\nhow do you know?"),
        Lab("vector_index", "Flat, IVF, PQ, HNSW\nby hand and in FAISS"),
        Lab("first_rag", "LlamaIndex\nopened up"),
    ), "embeddings, indexes"),
    Stage("stage2_rag_finetune_deploy", "Stage 2 · RAG, fine-tuning, deployment", "#23876f", (
        Lab("chunking", "a knife for\neach document"),
        Lab("vector_db", "Milvus and\nWeaviate"),
        Lab("rag", "hybrid search,\nreranking, citations", (2, "MRR@10 > 0.7")),
        Lab("finetune", "LoRA, QLoRA,\nLLaMA-Factory"),
        Lab("alignment", "SFT, DPO,\nGRPO"),
        Lab("quantization", "GPTQ\nby hand"),
        Lab("serving", "paged attention,\nvLLM", (3, "tuned beats base")),
    ), "the RAG, the served model"),
    Stage("stage3_agents_llmops", "Stage 3 · Agents and LLMOps", "#b8642b", (
        Lab("agent", "customer service\nby several agents", (4, "five turns and more")),
        Lab("registry", "versions of model,\nRAG and prompt"),
        Lab("experiments", "A/B tests\nin layers"),
        Lab("monitoring", "traces, metrics,\nalerts, drift"),
        Lab("pipeline", "canary, rollback,\nby itself", (5, "deploys and monitors by itself")),
    )),
)  # fmt: skip


def built(stage: Stage, lab: Lab) -> bool:
    """A lab that one can start is built."""
    return (ROOT / stage.folder / lab.name / "__main__.py").is_file()


def draw_lab(axis: Axes, lab: Lab, colour: str, done: bool, x: float, y: float, width: float) -> None:
    """One box with its lower left corner at (x, y), 12 units high, and the month's flag below."""
    height = 12.0
    axis.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=1.4", linewidth=1.6, edgecolor=colour,
            facecolor=colour if done else "white", linestyle="-" if done else (0, (3, 2)), zorder=3,
        )
    )  # fmt: skip
    middle, ink = x + width / 2, "white" if done else INK
    axis.text(middle, y + 9.0, lab.name, ha="center", va="center", fontsize=11, fontweight="bold", color=ink, zorder=4)
    axis.text(
        middle, y + 3.9, lab.text, ha="center", va="center", fontsize=8.6, color=ink, linespacing=1.25, zorder=4
    )
    if lab.month:
        month, goal = lab.month
        last = x + width > RIGHT - 1  # its text may be wider than the box: let it grow to the left
        axis.text(
            RIGHT - 3 if last else middle, y - 2.6, f"⚑ month {month}: {goal}", ha="right" if last else "center",
            va="center", fontsize=8.6, fontweight="bold", color=colour, zorder=4,
        )  # fmt: skip


def draw_stage(axis: Axes, stage: Stage, top: float) -> None:
    """A title, and the boxes from left to right with arrows between them."""
    axis.text(LEFT, top, stage.title, fontsize=13, fontweight="bold", color=stage.colour, va="center")
    gap = 3.4
    width = (RIGHT - LEFT - gap * (len(stage.labs) - 1)) / len(stage.labs)
    y = top - 15.4
    for index, lab in enumerate(stage.labs):
        x = LEFT + index * (width + gap)
        draw_lab(axis, lab, stage.colour, built(stage, lab), x, y, width)
        if index:
            arrow(axis, (x - gap + 0.3, y + 6), (x - 0.3, y + 6))


def arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A short grey arrow."""
    axis.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, linewidth=1.4, color=PALE, zorder=2)
    )


def draw_turn(axis: Axes, bottom: float, label: str) -> None:
    """From the end of a row back to the start of the next one, with what is handed on."""
    right, left, level, end = RIGHT - 1.5, LEFT + 1.2, bottom - 5.6, bottom - 8.4
    axis.plot([right, right, left], [bottom - 0.5, level, level], color=PALE, linewidth=1.4, zorder=1)
    arrow(axis, (left, level), (left, end))
    axis.text(
        (left + right) / 2, level, label, ha="center", va="center", fontsize=8.6, color=INK, style="italic",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 3}, zorder=2,
    )  # fmt: skip


def draw_legend(axis: Axes) -> None:
    """Filled is built, dashed is planned."""
    y = HEIGHT - 5.4
    for x, text, face, style in ((124.0, "built", INK, "-"), (140.0, "planned", "white", (0, (3, 2)))):
        axis.add_patch(
            FancyBboxPatch(
                (x, y), 4, 2.2, boxstyle="round,pad=0,rounding_size=0.6", facecolor=face, edgecolor=INK,
                linestyle=style, linewidth=1.2,
            )
        )  # fmt: skip
        axis.text(x + 5.4, y + 1.0, text, fontsize=9.5, color=INK, va="center")


def main() -> None:
    """Write docs/path.png."""
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure = plt.figure(figsize=(WIDTH / 10 * 0.8, HEIGHT / 10 * 0.8))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axis.axis("off")
    axis.text(LEFT, HEIGHT - 4.2, "From attention to a deployed, monitored LLM service", fontsize=16,
              fontweight="bold", color=INK, va="center")  # fmt: skip
    draw_legend(axis)
    for index, stage in enumerate(STAGES):
        top = HEIGHT - 12.0 - index * 26.4
        draw_stage(axis, stage, top)
        if stage.hands_on:
            draw_turn(axis, top - 15.4, stage.hands_on)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=130, facecolor="white")
    small = Image.open(drawn).convert("RGB").quantize(64)  # flat colours: a third of the bytes
    small.save(Path(__file__).with_name("path.png"), optimize=True)


if __name__ == "__main__":
    main()
