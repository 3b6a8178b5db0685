"""What LOSSES.md says in numbers and drawings. Each test names the bug that it catches."""

import pytest
import torch
from PIL import Image

from labkit.errors import LabError
from labkit.runs import latest_run, read_report
from stage2_rag_finetune_deploy.alignment import loss_figures
from stage2_rag_finetune_deploy.alignment.kl_estimators import (
    ESTIMATORS,
    distributions,
    exact_kl,
    gradient_error,
    measure_estimators,
)


def test_explain(runs, capsys):
    """Catches: an empty sheet, a picture too large for the repository, a table without its rows."""
    loss_figures.run_explain(loss_figures.PRESETS["smoke"], "smoke")
    folder = latest_run("stage2", "alignment", "explain")
    figures = read_report(folder)["figures"]
    assert [figure["path"] for figure in figures] == ["dpo.png", "clip.png", "groups.png", "kl.png"]
    for figure in figures:
        assert (folder / figure["path"]).stat().st_size < 120_000
        with Image.open(folder / figure["path"]) as image:
            assert image.width > 1000 and len(image.convert("RGB").getcolors(256)) > 10
    printed = capsys.readouterr().out
    assert all(printed.count(name) >= len(loss_figures.TABLE) for name in ESTIMATORS)


def test_estimators_as_figures():
    """Catches: a table in which k2 is right on average, or k3 is not; the share of negative draws of another one."""
    exact, found = measure_estimators(1.0, 200, 200_000, seed=3)
    logits, reference = distributions(1.0, 200, 3)
    assert exact == pytest.approx(exact_kl(logits.log_softmax(-1), reference).item()) and exact > 0.2
    for name in ("k1", "k3"):
        assert found[name].mean == pytest.approx(1, abs=5 * found[name].std / 200_000**0.5)  # five standard errors
    assert abs(found["k2"].mean - 1) > 10 * found["k2"].std / 200_000**0.5
    assert found["k1"].negative > 0.1 and found["k2"].negative == found["k3"].negative == 0
    _, near = measure_estimators(0.2, 200, 200_000, seed=3)
    assert near["k3"].std < near["k1"].std / 3 and near["k1"].negative > 0.1


def test_estimators_as_losses():
    """Catches: the mean over draws differentiated through the probabilities, which makes every estimator right."""
    logits, reference = distributions(1.5, 100, 4)
    errors = {name: gradient_error(estimator, logits, reference) for name, estimator in ESTIMATORS.items()}
    assert errors["k1"] == pytest.approx(1) and errors["k3"] > 0.2
    assert errors["k2"] == pytest.approx(0, abs=1e-9) == errors["k3 times ratio"]
    assert gradient_error(ESTIMATORS["k3"], *distributions(0.01, 100, 4)) < 0.02  # near by, both directions are one


def test_drawn_losses_are_those_of_the_lab():
    """Catches: a curve that is shifted, a push with the wrong sign."""
    loss, slope = loss_figures.dpo_at(torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0]))
    margins = torch.tensor([0.0, 3.0])
    torch.testing.assert_close(loss, -margins.sigmoid().log())
    torch.testing.assert_close(slope, -(-margins).sigmoid())
    ratios = torch.tensor([0.5, 1.0, 1.5])
    for advantage, objective, push in ((1.0, [0.5, 1.0, 1.2], [0.5, 1.0, 0]), (-1.0, [-0.8, -1, -1.5], [0, -1, -1.5])):
        loss, pushed = loss_figures.clipped(ratios, advantage)
        torch.testing.assert_close(-loss, torch.tensor(objective))
        torch.testing.assert_close(pushed, torch.tensor(push))


def test_impossible_options():
    """Catches: a division by zero, or a table out of one draw."""
    for name in ("draws", "vocabulary"):
        with pytest.raises(LabError, match=f"--{name} 1"):
            loss_figures.run_explain(loss_figures.ExplainConfig(**{name: 1}), "cpu")
