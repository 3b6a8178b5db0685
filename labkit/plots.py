"""One plot style for all labs: quiet axes, six colours that a colour-blind reader can tell apart."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window: labs run over ssh and in CI

from cycler import cycler  # noqa: E402
from matplotlib import font_manager, pyplot  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from labkit.files import atomic_path  # noqa: E402

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]  # Okabe and Ito 2008
CHINESE_FONTS = [
    "Noto Sans CJK SC",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
]


@cache
def set_style() -> None:
    """Set matplotlib's defaults, once. A Chinese font is added where the machine has one."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    pyplot.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#666666",
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "lines.linewidth": 1.8,
            "font.family": ["DejaVu Sans", *(name for name in CHINESE_FONTS if name in installed)],
            "figure.constrained_layout.use": True,
        }
    )


def new_figure(
    rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 4.2, **kwargs: Any
) -> tuple[Figure, Any]:
    """A figure in the project's style and its axes, as `pyplot.subplots` gives them. Sizes in inches."""
    set_style()
    return pyplot.subplots(rows, columns, figsize=(width, height), **kwargs)


def save_figure(fig: Figure, path: str | Path) -> Path:
    """Write a PNG at 144 dpi, atomically, and close the figure."""
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # no Chinese font: boxes
        fig.savefig(temporary, dpi=144, format="png", facecolor="white")
    pyplot.close(fig)
    return Path(path)
