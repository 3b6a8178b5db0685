"""Two pictures: how good each chunker is, and where each of them cuts one document."""

from collections.abc import Sequence
from pathlib import Path

from llama_index.core import Document
from llama_index.core.node_parser import get_leaf_nodes

from labkit.plots import COLOURS, new_figure, save_figure
from stage2_rag_finetune_deploy.chunking.spans import SpanParser
from stage2_rag_finetune_deploy.chunking.summary import Line

ROLE_COLOURS = {"right": COLOURS[2], "wrong": COLOURS[1], "": COLOURS[0]}


def plot_scores(tables: dict[str, list[Line]], path: Path) -> Path:
    """MRR@10 with its interval, a panel an exam, a line a chunker."""
    columns = 2 if len(tables) > 1 else 1
    rows = -(-len(tables) // columns)
    fig, axes = new_figure(rows, columns, width=5.0 * columns, height=2.9 * rows, squeeze=False)
    for axis, (name, lines) in zip(axes.flat, tables.items(), strict=False):
        for place, line in enumerate(reversed(lines)):
            colour = ROLE_COLOURS[line.role]
            axis.plot([line.low, line.high], [place, place], color=colour, linewidth=2.5)
            axis.plot(line.mrr, place, "o", color=colour, markersize=5)
        right = next(line for line in lines if line.role == "right")
        axis.axvline(right.mrr, color=ROLE_COLOURS["right"], linewidth=0.8, linestyle=":")
        axis.set_yticks(range(len(lines)), [line.name for line in reversed(lines)])
        axis.set_title(name)
        axis.set_xlabel("MRR@10, 95 % interval")
    for axis in axes.flat[len(tables) :]:
        axis.set_visible(False)
    return save_figure(fig, path)


def plot_borders(
    document: Document, chunkers: dict[str, SpanParser], evidence: Sequence[tuple[int, int]], path: Path,
    first: int = 0, last: int = 6000,
) -> Path:  # fmt: skip
    """One document as a strip a chunker, a colour a chunk; the answers as vertical lines through all of them.

    Args:
        evidence: offsets of the answers.
        first, last: the part of the document to show, in characters.
    """
    last = min(last, len(document.text))
    fig, axis = new_figure(width=10.0, height=0.8 + 0.42 * len(chunkers))
    for place, chunker in enumerate(reversed(chunkers.values())):
        leaves = get_leaf_nodes(chunker.get_nodes_from_documents([document]))
        for number, node in enumerate(leaves):
            start, end = max(first, node.start_char_idx), min(last, node.end_char_idx)
            if start < end:
                # neighbours that overlap lie on two levels, so that what they share can be seen
                axis.broken_barh([(start, end - start)], (place - 0.4 + 0.35 * (number % 2), 0.38),
                                 color=COLOURS[number % len(COLOURS)], linewidth=0)  # fmt: skip
    for start, end in evidence:
        if first <= start < last:
            axis.axvspan(start, end, color="black", alpha=0.55, linewidth=0)
    axis.set_yticks(range(len(chunkers)), list(reversed(chunkers)))
    axis.set_xlim(first, last)
    axis.set_xlabel(f"character of {document.id_} (black: answers to questions)")
    axis.grid(visible=False)
    return save_figure(fig, path)
