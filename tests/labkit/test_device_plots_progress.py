"""Each test names the bug that it catches."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from labkit.device import autocast, choose_device, choose_dtype, cpu_has_bf16
from labkit.errors import LabError
from labkit.plots import new_figure, save_figure
from labkit.progress import progress


def test_device_and_dtype_choice():
    """Catches: a missing device found out by a traceback deep in torch; bf16 where it is emulated."""
    assert choose_device("cpu").type == "cpu" and choose_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:x", "cuda:99", "mps" if not torch.backends.mps.is_available() else "tpu"):
        with pytest.raises(LabError):
            choose_device(name)
    assert choose_dtype("auto", "cpu") == (torch.bfloat16 if cpu_has_bf16() else torch.float32)
    assert choose_dtype("fp16", "cpu") == torch.float16 and choose_dtype("auto", "mps") == torch.float32
    with pytest.raises(LabError, match="unknown dtype"):
        choose_dtype("float32", "cpu")


def test_autocast_changes_the_dtype_of_products():
    """Catches: an autocast that does nothing, or one that is entered for float32."""
    a = torch.randn(4, 4)
    with autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("cpu", torch.float32):
        assert (a @ a).dtype == torch.float32


def test_figure_is_a_png_of_the_asked_size(tmp_path):
    """Catches: another resolution; a figure never closed; Chinese text that stops it."""
    from matplotlib import pyplot

    fig, axes = new_figure(1, 2, width=6, height=3)
    axes[0].plot([1, 2, 1.5])
    axes[1].set_title("三国演义")
    path = save_figure(fig, tmp_path / "plots" / "loss.png")
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (6 * 144, 3 * 144))
    assert list(path.parent.iterdir()) == [path] and not pyplot.get_fignums()


def test_progress_gives_every_item_and_keeps_stdout_clean():
    """Catches: items lost at the end; a bar in a pipe of JSON lines."""
    code = "from labkit.progress import progress\nprint(sum(progress(range(5), description='add')))"
    root = Path(__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert answer.stdout == "10\n"


def test_progress_as_a_context_counts():
    """Catches: update and advance that do not add up; iteration over nothing that ends in silence."""
    with progress(total=10, description="train") as bar:
        bar.advance(3)
        bar.advance()
        bar.note("loss [1.62]")  # square brackets are rich's markup
        assert bar.done == 4
        bar.update(9)
        assert bar.done == 9
    with pytest.raises(TypeError):
        list(progress(total=3))
