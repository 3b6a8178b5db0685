"""The experiments' grid. Each test names the bug that it catches."""

import json

import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.experiments_command import parse_cells


def test_cells_are_parsed():
    """Catches: a grid that silently lacks a cell."""
    assert parse_cells("8/16/all, 2/4/qv") == [(8, 16.0, "all"), (2, 4.0, "qv")]
    for wrong in ("8/16", "a/1/all", "8/16/alll", ""):
        with pytest.raises(LabError):
            parse_cells(wrong)


def test_every_cell_is_trained_and_counted(cli, runs, tiny_base):
    """Catches: all cells with the same adapter, parameters that are not counted."""
    code, out, err = cli("experiments", "--preset", "smoke", "--base", tiny_base)
    assert code == 0, err
    rows = json.loads((runs / "stage2/finetune/latest/cells.json").read_text())
    # q: 32 x 32, v: 32 x 16, two layers: rank * (in + out)
    assert rows[0]["trainable"] == 2 * 2 * (64 + 48)
    assert rows[1]["trainable"] > 4 * rows[0]["trainable"] and rows[0]["val_loss"] != rows[1]["val_loss"]
    assert "qv" in out
