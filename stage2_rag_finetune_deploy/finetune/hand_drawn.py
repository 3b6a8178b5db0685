"""The two figures that one draws on a whiteboard: LoRA, and QLoRA. Drawn by matplotlib's xkcd style, in code.

The numbers in them are computed: the counts from the shapes, the levels by nf4.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle
from PIL import Image

from labkit.errors import LabError
from labkit.files import atomic_path
from labkit.plots import COLOURS, new_figure, pyplot, save_figure, set_style
from labkit.runs import shown
from stage2_rag_finetune_deploy.finetune.nf4 import ABSMAX_BLOCK, BLOCK, nf4_levels

BLUE, ORANGE, GREEN = COLOURS[0], COLOURS[1], COLOURS[2]
FROZEN, TRAINED = "#cfe3f1", "#fbdcc4"
WIDTH, RANK = 576, 8  # SmolLM2's hidden size, a usual rank


@contextmanager
def hand_drawn() -> Iterator[None]:
    """matplotlib's xkcd style with the font that matplotlib brings: the comic fonts it asks for are on few machines."""
    set_style()
    with pyplot.xkcd(scale=0.8, length=120, randomness=2):
        pyplot.rcParams.update({"font.family": ["DejaVu Sans"], "figure.constrained_layout.use": False})
        yield


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty sheet; its coordinates are tenths of an inch."""
    figure, axes = new_figure(width=width, height=height)
    axes.set(xlim=(0, 10 * width), ylim=(0, 10 * height))
    axes.axis("off")
    axes.set_position((0, 0, 1, 1))
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, colour: str, text: str, size: int = 11) -> None:
    """A rectangle with its lower left corner at (x, y), and a text in its middle."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="black", linewidth=1.8))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", size=size, linespacing=1.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = "black", **kwargs) -> None:
    """An arrow, straight unless a `connectionstyle` bends it."""
    style = {"arrowstyle": "-|>", "mutation_scale": 16, "linewidth": 1.8, "color": colour} | kwargs
    axes.add_patch(FancyArrowPatch(start, end, **style))


def draw_lora(path: Path) -> Path:
    """LoRA: the frozen matrix, and beside it the narrow way round through two thin matrices that are trained."""
    with hand_drawn():
        figure, axes = canvas(10, 6.2)
        axes.text(50, 58.5, "LoRA: leave the big matrix alone, train a narrow detour", ha="center", size=15)
        axes.text(50, 11, f"x   ({WIDTH} numbers)", ha="center", va="center", size=13)
        axes.text(50, 52, f"h   ({WIDTH} numbers)", ha="center", va="center", size=13)
        axes.text(50, 46.5, "+", ha="center", va="center", size=18)
        arrow(axes, (50, 48), (50, 50.8))
        box(axes, 12, 18, 26, 22, FROZEN, f"W\n{WIDTH} x {WIDTH}\n{WIDTH**2:,} weights\nfrozen")
        for corners in ([(54, 18), (82, 18), (72, 27.5), (64, 27.5)], [(64, 30.5), (72, 30.5), (82, 40), (54, 40)]):
            axes.add_patch(Polygon(corners, facecolor=TRAINED, edgecolor="black", linewidth=1.8))
        axes.text(68, 21.8, "A", ha="center", va="center", size=14)
        axes.text(68, 36, "B", ha="center", va="center", size=14)
        arrow(axes, (46, 13.2), (27, 17.5))
        arrow(axes, (54, 13.2), (66, 17.5))
        arrow(axes, (68, 26.6), (68, 31.4), ORANGE)
        arrow(axes, (27, 40.5), (48, 46))
        arrow(axes, (66, 40.5), (52, 46))
        axes.text(74.5, 29, f"only {RANK} numbers\nget through: the rank r", va="center", size=10)
        axes.text(83, 21, "A starts\nrandom", size=10, va="center")
        axes.text(83, 37.5, "B starts at zero:\nat step 0, h = W x", size=10, va="center")
        axes.text(62, 44, "times alpha / r", size=10)
        share = 2 * WIDTH * RANK
        text = f"A and B: {share:,} weights, {100 * share / WIDTH**2:.1f} % of W"
        axes.text(66, 12, text, size=10, va="top", color=ORANGE)
        axes.text(3, 14, "no gradient, no optimiser state,\nany precision (see QLoRA)", size=10, va="top", color=BLUE)
        merged = "after training, W + (alpha / r) B A is one matrix again: no detour, no cost"
        axes.text(50, 3.5, merged, ha="center", size=11)
        return save_small(figure, path)


def draw_qlora(path: Path) -> Path:
    """QLoRA: sixteen levels under the bell curve, a block in memory, and the way of the gradient."""
    with hand_drawn():
        figure, axes = canvas(10, 7.8)
        axes.text(50, 74.5, "QLoRA: the frozen matrix in four bits, the detour in sixteen", ha="center", size=15)
        _bell(figure, (0.06, 0.64, 0.88, 0.3))
        _memory(axes, 43)
        _gradient(axes)
        return save_small(figure, path)


def save_small(figure: Figure, path: Path) -> Path:
    """Write the figure with 48 colours: a quarter of the bytes, and nobody sees it."""
    save_figure(figure, path)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(48)
    with atomic_path(path) as temporary:
        small.save(temporary, format="png", optimize=True)
    return path


def _bell(figure: Figure, place: tuple[float, float, float, float]) -> None:
    """The normal density with the sixteen levels under it."""
    from scipy.stats import norm  # a second to import

    axes = figure.add_axes(place)
    grid = np.linspace(-1.12, 1.12, 200)
    spread = 1 / norm.ppf(0.9677083)
    axes.plot(grid, norm.pdf(grid / spread), color="black")
    for level in nf4_levels().tolist():
        axes.plot([level, level], [0, norm.pdf(level / spread)], color=BLUE, linewidth=1.5)
    axes.plot([-1.12, 1.12], [0, 0], color="black")
    axes.text(-1.1, 0.3, "16 levels, crowded where\nthe weights are", size=11, color=BLUE)
    axes.text(0.42, 0.34, "weight / absmax of its block:\nbetween -1 and 1", size=11)
    axes.text(0.02, -0.085, "0 is exact", size=9, ha="center")
    axes.text(-1, -0.085, "-1", size=9, ha="center")
    axes.text(1, -0.085, "1", size=9, ha="center")
    axes.set(ylim=(-0.1, 0.45), xlim=(-1.15, 1.15))
    axes.axis("off")


def _memory(axes: Axes, y: float) -> None:
    """One block as it is stored, and the bits a weight."""
    for number in range(16):
        axes.add_patch(Rectangle((6 + 2 * number, y), 2, 4, facecolor=FROZEN, edgecolor="black", linewidth=1))
    axes.text(22, y - 1, f"{BLOCK} weights: 4 bits each", ha="center", va="top", size=10)
    box(axes, 41, y, 12, 4, "white", "absmax", 10)
    axes.text(47, y - 1, "32 bits, or 8 when it\nis quantised, too", ha="center", va="top", size=10)
    single, double = 4 + 32 / BLOCK, 4 + 8 / BLOCK + 32 / (BLOCK * ABSMAX_BLOCK)
    text = f"bits a weight: fp32 32, bf16 16,\nNF4 {single:g}, double quantised {double:.3f}"
    axes.text(62, y + 2, text, va="center", size=11)


def _gradient(axes: Axes) -> None:
    """Forward in black, backward in green: through the four-bit matrix, but not into it."""
    axes.text(8, 17, "x", ha="center", va="center", size=16)
    box(axes, 17, 22, 15, 9, FROZEN, "W in\n4 bits")
    box(axes, 42, 22, 22, 9, "white", "W in 16 bits,\nfor a moment")
    box(axes, 24, 4, 13, 8, TRAINED, "A\n16 bits")
    box(axes, 46, 4, 13, 8, TRAINED, "B\n16 bits")
    axes.text(76, 17, "+", ha="center", va="center", size=17)
    axes.text(86, 17, "h", ha="center", va="center", size=16)
    arrow(axes, (32.5, 26.5), (41.5, 26.5), BLUE)
    axes.text(37, 23, "look up,\ntimes absmax", ha="center", size=9, color=BLUE)
    arrow(axes, (9.5, 18.5), (47, 21.5))
    arrow(axes, (9.5, 15.5), (23.5, 9))
    arrow(axes, (37.5, 8), (45.5, 8))
    arrow(axes, (64.5, 25), (74.5, 18.8))
    arrow(axes, (59.5, 9), (74.5, 15.4))
    arrow(axes, (78, 17), (84, 17))
    bent = {"connectionstyle": "arc3,rad=0.25", "linestyle": "--"}
    arrow(axes, (85, 20), (65, 28), GREEN, **bent)
    arrow(axes, (44, 31.8), (8, 19.5), GREEN, connectionstyle="arc3,rad=0.42", linestyle="--")
    arrow(axes, (85, 14), (53, 3.4), GREEN, connectionstyle="arc3,rad=-0.35", linestyle="--")
    arrow(axes, (46, 4.5), (37.5, 4.5), GREEN, linestyle="--")
    axes.text(69, 33, "the gradient passes through W,\nand changes nothing in it", size=10, color=GREEN)
    axes.text(79, 5, "A and B learn", size=10, color=GREEN)


FIGURES: dict[str, Callable[[Path], Path]] = {"lora": draw_lora, "qlora": draw_qlora}


@dataclass(frozen=True)
class DrawConfig:
    """Options of `draw`."""

    out: Path = Path(__file__).with_name("figures")


def run_draw(config: DrawConfig, preset: str) -> None:
    """Draw both figures into a folder."""
    if config.out.exists() and not config.out.is_dir():
        raise LabError(f"{config.out} is a file", "--out with the name of a folder")
    config.out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        print(shown(draw(config.out.absolute() / f"{name}.png")))
