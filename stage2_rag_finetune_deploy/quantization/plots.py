"""The lab's figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit.plots import COLOURS, new_figure, save_figure
from stage2_rag_finetune_deploy.quantization.perplexity import perplexity

COLOUR = {"BF16": "#444444", "RTN": COLOURS[4], "GPTQ": COLOURS[0], "GPTQModel": COLOURS[5], "AWQ": COLOURS[2],
          "NF4": COLOURS[3], "INT8": COLOURS[1]}  # fmt: skip
HEAT = 64  # inputs of the Hessian that are drawn


def draw_trade_off(results: Mapping[str, Any], label: str, path: Path) -> Path:
    """Left: perplexity over bytes on disk. Right: decoding speed, with each round as a dot."""
    figure, (left, right) = new_figure(1, 2, width=10, height=4.2)
    crowd = [name for name in ("RTN 4", "GPTQ 4", "AWQ 4", "GPTQModel 4") if name in results]  # labels in their order
    offsets = (-10, -3, 1, 5) if len(crowd) == 4 else (-7, 0, 9)
    heights = dict(zip(sorted(crowd, key=lambda name: np.mean(results[name].losses)), offsets, strict=False))
    for name, each in results.items():
        place = each.disk / 1e6, perplexity(each.losses)
        colour = COLOUR[name.split()[0]]
        left.plot(*place, "o", color=colour, markersize=7)
        aside = (-28, -3) if name == "NF4" else (6, heights.get(name, 3))
        left.annotate(name, place, xytext=aside, textcoords="offset points", size=8, color=colour)
    left.set(xlabel="MB on disk", ylabel="perplexity, WikiText-2", yscale="log", title=label)
    left.margins(x=0.15)
    for place, (name, each) in enumerate(results.items()):
        colour = COLOUR[name.split()[0]]
        right.barh(place, np.median(each.decode), color=colour, alpha=0.75)
        right.plot(each.decode, [place] * len(each.decode), ".", color="black", markersize=4)
        right.annotate(f" {each.kernel}", (max(each.decode), place), va="center", size=7)
    right.set_yticks(range(len(results)), list(results))
    right.invert_yaxis()
    right.margins(x=0.35)
    right.grid(axis="y", visible=False)
    right.set(xlabel="tokens/s, batch 1", title="decoding")
    return save_figure(figure, path)


def draw_layer_errors(errors: Mapping[str, Mapping[str, Sequence[float]]], names: Sequence[str], path: Path) -> Path:
    """Relative error of each layer's outputs: a colour a method; filled on the calibration text, empty on held-out.

    Args:
        errors: method -> {"calibration", "held-out"} -> one value a layer.
        names: of the layers.
    """
    figure, axes = new_figure(width=10, height=4.6)
    places = np.arange(len(names))
    for shift, (method, both) in enumerate(errors.items()):
        x = places + (shift - 1) * 0.22
        axes.vlines(x, both["calibration"], both["held-out"], color=COLOUR[method], alpha=0.5, linewidth=1)
        axes.plot(x, both["calibration"], "o", color=COLOUR[method], markersize=4, label=method)
        axes.plot(x, both["held-out"], "o", markerfacecolor="white", color=COLOUR[method], markersize=4)
    axes.plot([], [], "o", markerfacecolor="white", color="#666666", markersize=4, label="held-out text")
    axes.set_yscale("log")
    axes.margins(y=0.15)  # room for the legend
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set(ylabel="squared error / squared output", title="error of each layer's outputs")
    axes.legend(ncols=4, loc="upper left", bbox_to_anchor=(0, 1.0))
    return save_figure(figure, path)


def draw_hessian(hessian: Tensor, errors: Mapping[str, Tensor], name: str, path: Path) -> Path:
    """Three views of a layer's Hessian: as a picture, its eigenvalues, and where the methods put their errors.

    Args:
        hessian: (in, in).
        errors: method -> difference of the weights. (out, in).
    """
    figure, (left, middle, right) = new_figure(1, 3, width=12, height=3.9)
    strongest = hessian.diagonal().argsort(descending=True)[:HEAT]
    deviations = hessian.diagonal().clamp(min=1e-12).sqrt()
    picture = (hessian / torch.outer(deviations, deviations))[strongest][:, strongest].cpu().numpy()
    shown = left.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1)
    figure.colorbar(shown, ax=left, shrink=0.8)
    left.grid(visible=False)
    left.set(title=f"{name}: the {HEAT} strongest inputs,\nhow far they go together", xlabel="input", ylabel="input")
    values, vectors = torch.linalg.eigh(hessian.cpu().double())
    values, vectors = values.flip(0).clamp(min=1e-12), vectors.flip(1)
    middle.plot(np.arange(1, len(values) + 1), (values / values.sum()).numpy(), color="#444444")
    middle.set(xscale="log", yscale="log", xlabel="direction, the strongest first",
               ylabel="share of the inputs' energy", title="eigenvalues")  # fmt: skip
    for method, difference in errors.items():
        energy = (difference.cpu().double() @ vectors).square().sum(0)  # squared weight error in each direction
        smooth = torch.nn.functional.avg_pool1d(energy[None], 16, 16)[0]
        right.plot(8 + 16 * np.arange(len(smooth)), smooth.numpy(), color=COLOUR[method], label=method)
    right.set(yscale="log", xlabel="direction, the strongest first", ylabel="squared error of the weights",
              title="where the rounding errors lie")  # fmt: skip
    right.legend()
    return save_figure(figure, path)
