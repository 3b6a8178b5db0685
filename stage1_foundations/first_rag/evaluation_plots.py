"""The picture of the gate: how evidence separates questions with an answer from questions without one."""

from pathlib import Path

import numpy as np

from labkit.plots import COLOURS, new_figure, save_figure

TITLES = {
    "answerable": "passage in the index",
    "near": "passage left out, article in the index",
    "far": "article left out",
}


def plot_evidence(strengths: dict[str, list[float]], threshold: float, path: Path) -> Path:
    """Histograms of evidence for the three kinds of questions, one below the other, with the threshold."""
    figure, axes = new_figure(len(strengths), 1, width=7.0, height=4.6, sharex=True)
    bins = np.linspace(0.0, 1.0, 41)
    for axis, (kind, values), colour in zip(axes, strengths.items(), COLOURS, strict=False):
        clipped = np.clip(values, 0, 1)
        axis.hist(clipped, bins=bins, color=colour, weights=np.full(len(clipped), 1 / max(1, len(clipped))))
        axis.axvline(threshold, color="#333333", linestyle="--", linewidth=1.2)
        passed = float(np.mean(np.asarray(values) >= threshold)) if values else 0.0
        axis.set_title(f"{TITLES[kind]}: {passed:.0%} of {len(values)} get through", fontsize=10)
        axis.set_ylabel("share")
    axes[-1].set_xlabel("evidence: mean of cosine and coverage of the key words, best node")
    axes[-1].annotate(f"threshold {threshold:.2f}", (threshold, axes[-1].get_ylim()[1] * 0.85), xytext=(5, 0),
                      textcoords="offset points", fontsize=9)  # fmt: skip
    return save_figure(figure, path)
