"""Comparing models. Each test names the bug that it catches."""

import json
import shutil

import pytest

import data
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune.evaluate_command import mcnemar, parse_shots, pick_examples


def test_mcnemar_by_hand():
    """Catches: items counted that both have right, a one-sided test, no answer where nothing differs."""
    assert mcnemar([True, False, False, False], [True, True, True, True]) == pytest.approx(2 * 0.5**3)
    assert mcnemar([True, False] * 5, [False, True] * 5) == pytest.approx(1.0)
    assert mcnemar([True] * 9, [True] * 9) == 1.0
    assert mcnemar([True] * 12, [False] * 12) == pytest.approx(2 * 0.5**12)  # a loss is as clear as a win


def test_examples_show_all_intents_and_come_from_training():
    """Catches: fourteen examples of one intent; test utterances in the prompt."""
    train = data.load_understanding("customer-service-en", "train")
    examples = pick_examples(train, 14)
    assert len({example.intent for example in examples}) == 14 and all(example in train for example in examples)
    assert pick_examples(train, 3) == examples[:3]


def test_shots_are_parsed():
    """Catches: a traceback for a word among the numbers."""
    assert parse_shots("5, 14") == [5, 14] and parse_shots("") == []
    with pytest.raises(LabError, match="no list of numbers"):
        parse_shots("5,x")


def test_evaluate_reports_all_models(cli, runs, tiny_base):
    """Catches: a model left out of the report, a comparison with itself."""
    code, out, err = cli("evaluate", "--preset", "smoke", "--model", tiny_base, "--base", tiny_base,
                         "--data", "customer-service-en")  # fmt: skip
    assert code == 0, err
    metrics = json.loads((runs / "stage2/finetune/latest/report.json").read_text())["metrics"]
    assert {"exact base", "exact base, 1 examples", "exact tuned", "intent p", "intent gain"} <= set(metrics)
    assert metrics["intent p"]["value"] == 1.0 and "McNemar" in out
    assert cli("evaluate", "--model", tiny_base)[0] == 2


def test_a_truncated_base_is_one_line(cli, tiny_base, tmp_path):
    """Catches: a traceback of safetensors for a copy that was cut off."""
    broken = shutil.copytree(tiny_base, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    code, _, err = cli("evaluate", "--preset", "smoke", "--model", tiny_base, "--base", broken,
                       "--data", "customer-service-en")  # fmt: skip
    assert code == 2 and "no whole model" in err and "Traceback" not in err
