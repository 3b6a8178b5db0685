"""Calibration text, perplexity, verdicts. Each test names the bug that it catches."""

import math

import numpy as np
import pytest
import torch

from labkit.errors import LabError
from stage2_rag_finetune_deploy.quantization.calibration import calibration_ids
from stage2_rag_finetune_deploy.quantization.orderings import (
    HELD,
    REVERSED,
    UNDECIDED,
    Step,
    overall,
    perplexity_step,
    score_step,
    size_step,
    speed_step,
)
from stage2_rag_finetune_deploy.quantization.perplexity import block_losses, perplexity, ratio_interval
from stage2_rag_finetune_deploy.quantization.resident_memory import resident_memory
from stage2_rag_finetune_deploy.quantization.rows import make_rows
from stage2_rag_finetune_deploy.quantization.speed import decode_rate, prefill_rate


@pytest.fixture
def text(tmp_path):
    """A text whose every place is another: "0 1 2 3 ..."."""
    path = tmp_path / "text.txt"
    path.write_text(" ".join(map(str, range(3000))))
    return path


def test_pieces_are_of_the_text_and_do_not_overlap(tokenizer, text):
    """Catches: pieces drawn with replacement; a seed without effect."""
    first = calibration_ids(tokenizer, str(text), samples=20, length=50)
    assert first.shape == (20, 50) and len({tuple(row) for row in first.tolist()}) == 20
    assert tokenizer.decode(first[3]) in text.read_text()
    assert torch.equal(first, calibration_ids(tokenizer, str(text), samples=20, length=50))
    assert not torch.equal(first, calibration_ids(tokenizer, str(text), samples=20, length=50, seed=2))


def test_a_long_text_is_sampled_all_over(tokenizer, tmp_path):
    """Catches: a calibration on the first pages of a long text only."""
    path = tmp_path / "long.txt"
    path.write_text("a" * 50_000 + "b" * 50_000)
    pieces = calibration_ids(tokenizer, str(path), samples=4, length=32)
    assert "b" in tokenizer.decode(pieces[-1])


def test_text_too_short(tokenizer, tmp_path):
    """Catches: fewer pieces than asked for without a word; advice that does not work."""
    path = tmp_path / "short.txt"
    path.write_text("only a few words, twice over, and no more than that")
    with pytest.raises(LabError, match="has 51 tokens, 4 x 32 are wanted") as caught:
        calibration_ids(tokenizer, str(path), samples=4, length=32)
    assert caught.value.try_next.startswith("--samples 1,")
    with pytest.raises(LabError) as caught:
        calibration_ids(tokenizer, str(path), samples=4, length=100)
    assert "--length 51" in caught.value.try_next
    with pytest.raises(LabError, match="no text of the catalog and no file"):
        calibration_ids(tokenizer, "no-such-text")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(LabError, match="not UTF-8"):
        calibration_ids(tokenizer, str(tmp_path / "bytes"))


def test_perplexity_is_transformers_loss(build, ids):
    """Catches: targets shifted by one; a mean over tokens that were never predicted."""
    model = build(0)
    losses = block_losses(model, ids, batch=3)
    with torch.inference_mode():
        wanted = model(ids, labels=ids).loss.item()
    assert losses.shape == (8,) and losses.mean() == pytest.approx(wanted, rel=1e-5)
    assert perplexity(losses) == pytest.approx(math.exp(wanted), rel=1e-4)


def test_ratio_is_paired():
    """Catches: intervals of two independent means: the blocks differ by far more than the models."""
    baseline = np.linspace(1, 5, 40)
    ratio, low, high = ratio_interval(baseline + 0.1 + 0.01 * np.sin(np.arange(40)), baseline)
    assert ratio == pytest.approx(math.exp(0.1), rel=0.01)
    assert 1.09 < low < ratio < high < 1.12


def test_verdicts_by_hand():
    """Catches: a verdict from the figure alone; a reversed step taken for an undecided one."""
    assert Step("a > b", 1.2, 1.1, 1.3).verdict == HELD
    assert Step("a > b", 1.2, 0.9, 1.3).verdict == UNDECIDED
    assert Step("a > b", 0.8, 0.7, 0.9).verdict == REVERSED
    assert Step("a > b", 0.8, 0.7, 0.9, better_below=True).verdict == HELD
    assert Step("a > b", 1.2, 1.1, 1.3, better_below=True).verdict == REVERSED
    assert Step("a > b", 0.0, 0.0, 0.0, neutral=0.0).verdict == UNDECIDED
    assert Step("a ~ b", 1.01, 1.01, 1.01, about_equal=True).verdict == HELD
    assert Step("a ~ b", 1.1, 1.06, 1.2, about_equal=True).verdict == REVERSED
    assert Step("a ~ b", 1.0, 0.9, 1.1, about_equal=True).verdict == UNDECIDED


def test_an_ordering_is_as_strong_as_its_weakest_step():
    """Catches: two of three steps called a success."""
    held, undecided, reversed_ = (Step("a > b", 1, low, high) for low, high in ((1.1, 2), (0.9, 2), (0.5, 0.9)))
    assert overall([held, held]) == HELD
    assert overall([held, undecided]) == UNDECIDED
    assert overall([held, undecided, reversed_]) == REVERSED


def test_steps_of_what_was_measured():
    """Catches: a lower perplexity counted as worse; rounds not paired; one round that decides."""
    names = ("a", "b")
    assert perplexity_step(names, np.full(30, 3.0), np.full(30, 3.1), seed=1).verdict == HELD
    assert score_step(names, [True] * 50, [False] * 50, seed=1).verdict == HELD
    assert score_step(names, [False] * 50, [True] * 50, seed=1).verdict == REVERSED
    slow = np.array([10.0, 20, 40])  # the machine's speed changed from round to round, the ratio did not
    assert speed_step(names, slow * [1.2, 1.21, 1.19], slow).verdict == HELD
    assert speed_step(names, [1.2], [1.0]).verdict == UNDECIDED
    assert size_step(names, 100, 110).verdict == REVERSED
    assert size_step(names, 102, 101).verdict == UNDECIDED
    assert size_step(names, 100, 101, about_equal=True).verdict == HELD


def test_rows():
    """Catches: orderings without the rows they speak of."""
    names = [row.name for row in make_rows(64, "4,3", gptqmodel=True)]
    assert names == ["BF16", "RTN 4", "GPTQ 4", "AWQ 4", "GPTQModel 4", "RTN 3", "GPTQ 3", "AWQ 3", "GPTQModel 3",
                     "NF4", "INT8"]  # fmt: skip
    for bits in ("3", "4,5", "four", ""):
        with pytest.raises(LabError):
            make_rows(64, bits)


def test_rates_are_of_what_was_asked(build, ids):
    """Catches: a prompt counted as new tokens; a slow layer that is timed for minutes."""
    model, calls = build(0), []
    model.register_forward_hook(lambda module, words, output: calls.append(output.logits.shape[1]))
    assert prefill_rate(model, ids[:1]) > 0 and decode_rate(model, ids[:1], tokens=5) > 0
    assert len(calls) == 1 + 1 + 5
    assert decode_rate(model, ids[:1], tokens=500, seconds=0) > 0
    assert len(calls) == 7 + 1 + 1


def test_resident_memory_in_a_process_of_its_own(tiny_base):
    """Catches: a child that fails without a word; bytes and kilobytes confused."""
    assert 0.05e6 < resident_memory(tiny_base) < 60e6
