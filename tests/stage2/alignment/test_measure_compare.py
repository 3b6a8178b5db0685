"""Measures and the comparison. Each test names the bug that it catches."""

import json
import math
from dataclasses import astuple

import pytest
import torch
from scipy.stats import ttest_1samp

from stage1_foundations.embeddings.bootstrap import over_repetitions
from stage2_rag_finetune_deploy.alignment import compare_command
from stage2_rag_finetune_deploy.alignment.measure import kl_to_start, measure
from stage2_rag_finetune_deploy.alignment.rollout import sample_groups
from stage2_rag_finetune_deploy.alignment.tasks import load_task
from stage2_rag_finetune_deploy.finetune import lora

PROMPTS = [[5, 6, 7], [5, 6, 9, 10]]


def adapted(build, size):
    """A model with an adapter; `size` 0 changes nothing."""
    model = lora.inject(build(3), rank=4, alpha=8)
    for layer in lora.lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=size)
    return model


def test_kl_by_hand(build):
    """Catches: the divergence the other way round, a mean over tokens, padding that counts."""
    model = adapted(build, 0.3)
    drawn = sample_groups(model, PROMPTS, 2, 3, end_id=-1, chance=torch.Generator().manual_seed(0))
    found = kl_to_start(model, drawn)
    for row, completion in enumerate(drawn.completions):
        prompt = PROMPTS[row // 2]
        ids = torch.tensor([prompt + completion])
        with torch.no_grad():
            p = model(ids).logits[0, len(prompt) - 1 : -1].softmax(-1)
            with lora.disabled(model):
                q = model(ids).logits[0, len(prompt) - 1 : -1].softmax(-1)
        assert found[row].item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-3)


def test_a_model_is_no_way_from_itself(build):
    """Catches: a reference that is another model."""
    model = adapted(build, 0.0)
    drawn = sample_groups(model, PROMPTS, 2, 3, end_id=-1, chance=torch.Generator().manual_seed(0))
    assert kl_to_start(model, drawn).abs().max() < 1e-6
    assert kl_to_start(adapted(build, 0.3), drawn).min() > 0


def test_measure_counts_questions(build, tokenizer):
    """Catches: samples counted as questions, figures that change from call to call."""
    task = load_task("chain_sum")
    model = build(3)
    first, again = (measure(model, tokenizer, task, task.test(5), seed=1, batch=2) for _ in range(2))
    assert first == again
    assert len(first.right) == len(first.rewards) == 5
    assert 1 <= first.length <= task.new_tokens and 0 <= first.truncated <= 1 and first.kl == 0


def test_interval_over_seeds():
    """Catches: an interval of the normal distribution from three values; a p-value of one sample against itself."""
    gains = [0.2, 0.3, 0.25]
    mean, low, high, p = astuple(over_repetitions(gains))
    assert mean == pytest.approx(0.25) and p == pytest.approx(ttest_1samp(gains, 0).pvalue)
    assert (low, high) == pytest.approx((0.25 - 4.3027 * 0.05 / 3**0.5, 0.25 + 4.3027 * 0.05 / 3**0.5), abs=1e-4)
    assert all(math.isnan(value) for value in astuple(over_repetitions([0.2]))[1:])


@pytest.mark.assets
def test_every_method_leaves_the_start_as_it_was(cli, tiny_base, runs, monkeypatch, tokenizer):
    """Catches: DPO that goes on from SFT's result, a comparison of different questions."""
    from stage2_rag_finetune_deploy.finetune import base_model

    load = base_model.load_placed
    monkeypatch.setattr(compare_command, "load_placed", lambda folder, device: load(tiny_base, device, "fp32"))
    code, out, err = cli("compare", "--preset", "smoke")
    assert code == 0, err
    rows = json.loads((runs / "stage2" / "alignment" / "latest-compare" / "rows.json").read_text())
    assert [row["method"] for row in rows] == ["base", "start", "sft", "dpo", "grpo"]
    alone = {}
    for method in ("sft", "dpo", "grpo"):
        assert cli("compare", "--preset", "smoke", "--methods", method)[0] == 0
        alone[method] = json.loads((runs / "stage2" / "alignment" / "latest-compare" / "rows.json").read_text())[-1]
    for row in rows[2:]:
        assert {**row, "seconds": 0, "peak_memory_mb": 0, "history": 0} == {
            **alone[row["method"]], "seconds": 0, "peak_memory_mb": 0, "history": 0
        }
