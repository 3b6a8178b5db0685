"""The loop by hand, against plain transformers and against TRL. Each test names the bug that it catches."""

import math
from dataclasses import dataclass

import pytest
import torch

from data.customer_service.prompt import prompt_messages
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune import lora, remembering, training
from stage2_rag_finetune_deploy.finetune.chat_format import Encoded, collate, encode
from stage2_rag_finetune_deploy.finetune.remembering import Reminder, divergence

TEXTS = ["hi", "where is my parcel?", "hello", "KM1 is broken", "send it back", "thanks", "an invoice", "too late"]


@dataclass(frozen=True)
class Settings:
    """What HandTrainer reads of a config."""

    steps: int = 8
    batch: int = 3
    lr: float = 0.02
    warmup: int = 2
    eval_every: int = 2
    seed: int = 1
    minutes: float = 0.0


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Samples of different lengths, with labels of different lengths."""
    return [
        encode(tokenizer, prompt_messages(text), '{"intent": "x", "slots": {}}' + "y" * number)
        for number, text in enumerate(TEXTS)
    ]


@pytest.fixture
def trainer(build, rows, tokenizer):
    """Makes a trainer whose adapter is always the same."""

    def make(folder=None, **changes):
        torch.manual_seed(5)
        model = lora.inject(build(0), rank=4, alpha=8)
        return training.HandTrainer(model, rows, rows[:3], Settings(**changes), tokenizer.pad_token_id, folder)

    return make


@pytest.mark.parametrize(("minutes", "made"), [(5 * 1.25 / 60, 5), (0.001, 2), (60.0, 8)])
def test_minutes_decide_how_many_steps_there_are(trainer, monkeypatch, minutes, made):
    """Catches: a machine that is slower than the course's training three times as long, a rate that never falls to zero
    because the steps it fell for were never made, and steps beyond --steps."""
    ticks = iter(number * 1.25 for number in range(99))  # a clock that says 1.25 s a step
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(ticks))
    rates = []
    one = trainer(minutes=minutes)
    done = one.train(lambda trainer, loss: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    assert done.step == made == len(rates) and done.history[-1]["step"] == made
    assert made < 3 or rates[-1] == pytest.approx(0.02 / (made - 2))


def test_the_loss_is_transformers(build, rows, tokenizer):
    """Catches: labels off by one, the shared beginning at the wrong positions, padding that counts."""
    fast, plain = (lora.inject(build(0), rank=4, alpha=8) for _ in range(2))
    for model in (fast, plain):
        torch.manual_seed(1)
        for parameter in lora.lora_parameters(model):
            torch.nn.init.normal_(parameter, std=0.2)
    loss = training.response_loss(fast, rows, tokenizer.pad_token_id)
    expected = plain(**collate(rows, tokenizer.pad_token_id)).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    expected.backward()
    for mine, theirs in zip(lora.lora_parameters(fast), lora.lora_parameters(plain), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-6)  # other orders of summing


def test_the_loss_without_a_shared_beginning(build, rows, tokenizer):
    """Catches: a batch of one, or of prompts that differ from their first token on."""
    model = build(0)
    for batch in (rows[:1], [rows[0], Encoded([9, *rows[1].ids[1:]], rows[1].labels)]):
        expected = model(**collate(batch, tokenizer.pad_token_id)).loss
        torch.testing.assert_close(training.response_loss(model, batch, tokenizer.pad_token_id), expected,
                                   rtol=1e-5, atol=1e-5)  # fmt: skip


def test_an_epoch_has_every_sample_once():
    """Catches: samples lost or repeated, batches in the order of their lengths, the same epoch twice."""
    lengths = [number % 37 + 5 for number in range(500)]
    epoch = training.length_sorted_batches(lengths, 8, seed=1, epoch=0)
    assert sorted(number for batch in epoch for number in batch) == list(range(500))
    assert epoch == training.length_sorted_batches(lengths, 8, seed=1, epoch=0)
    assert epoch != training.length_sorted_batches(lengths, 8, seed=1, epoch=1)
    assert epoch != training.length_sorted_batches(lengths, 8, seed=2, epoch=0)
    padded = sum(max(lengths[number] for number in batch) * len(batch) for batch in epoch)
    assert padded < 1.15 * sum(lengths)  # without sorting it is 1.6
    longest = [max(lengths[number] for number in batch) for batch in epoch]
    assert longest != sorted(longest)


def test_a_stream_goes_on_where_it_stopped():
    """Catches: a resumed run that sees the first epoch again."""
    stream = training.batch_stream([5] * 10, 4, seed=3)
    whole = [next(stream) for _ in range(9)]
    later = training.batch_stream([5] * 10, 4, seed=3, start=5)
    assert [next(later) for _ in range(4)] == whole[5:]


def test_rate_by_hand():
    """Catches: a rate of zero in the first step, or one that does not fall to zero."""
    assert [training.rate_factor(step, 6, 2) for step in range(7)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_training_lowers_the_loss_and_moves_the_adapter_only(trainer):
    """Catches: an optimiser that has other parameters than the model."""
    run = trainer(steps=30)
    before = run.evaluate()
    base = {name: layer.base.weight.clone() for name, layer in lora.lora_layers(run.model).items()}
    progress = run.train()
    assert progress.history[-1]["val_loss"] < 0.7 * before
    assert all(torch.equal(layer.base.weight, base[name]) for name, layer in lora.lora_layers(run.model).items())
    assert progress.step == 30 and progress.tokens > 30 * 3 * 30


def test_resumed_is_as_if_never_stopped(trainer, tmp_path):
    """Catches: an optimiser or a position in the data that is not in the checkpoint."""
    whole = trainer().train()

    def stop(run, loss):
        if run.progress.step == 5:  # after the checkpoint of step 4: that step is repeated
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(folder=tmp_path).train(stop)
    second = trainer(folder=tmp_path)
    second.resume(tmp_path)
    assert second.progress.step == 4
    again = second.train()
    for row, other in zip(whole.history, again.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


def test_checkpoints_that_do_not_fit(trainer, build, tmp_path):
    """Catches: a checkpoint loaded into another model, a traceback for half a file."""
    with pytest.raises(LabError, match="no checkpoint"):
        trainer().resume(tmp_path)
    trainer(folder=tmp_path, steps=2).train()
    other = training.HandTrainer(lora.inject(build(1), rank=4), [], [], Settings(), 0)
    with pytest.raises(LabError, match="another base"):
        other.resume(tmp_path)
    smaller = training.HandTrainer(lora.inject(build(0), rank=2), [], [], Settings(), 0)
    with pytest.raises(LabError, match="another base or adapter"):
        smaller.resume(tmp_path)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:500])
    with pytest.raises(LabError, match="damaged"):
        trainer().resume(tmp_path)


def test_a_loss_that_is_no_number_stops(trainer):
    """Catches: weights of NaN that are saved as if nothing had happened."""
    run = trainer()
    with torch.no_grad():
        lora.lora_parameters(run.model)[0][0, 0] = math.nan
    with pytest.raises(LabError, match="not finite at step 0"):
        run.train()


def test_the_loss_is_trls(build, rows, tokenizer, tmp_path):
    """Catches: two trainers of one lab that learn different tokens."""
    from stage2_rag_finetune_deploy.finetune import trl_trainer
    from stage2_rag_finetune_deploy.finetune.samples import Samples
    from stage2_rag_finetune_deploy.finetune.sft_config import SftConfig

    samples = Samples("eight", rows, [], 0)
    config = SftConfig(rank=4, alpha=8, batch=8, steps=1, eval_every=1)
    theirs = trl_trainer.make_trainer(build(0), tokenizer, samples, samples, config, tmp_path, torch.float32)
    mine = lora.inject(build(0), rank=4, alpha=8)
    state = dict(theirs.model.named_parameters())
    with torch.no_grad():
        for name, layer in lora.lora_layers(mine).items():
            for part in ("lora_A", "lora_B"):
                value = torch.randn_like(getattr(layer, part)) * 0.2
                getattr(layer, part).copy_(value)
                state[f"{lora.PREFIX}{name}.{part}.default.weight"].copy_(value)
    batch = next(iter(theirs.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 8
    expected = theirs.compute_loss(theirs.model, batch)
    torch.testing.assert_close(
        training.response_loss(mine, rows, tokenizer.pad_token_id), expected, rtol=1e-4, atol=1e-5
    )


def test_reminding_holds_the_tuned_model_to_the_base(build, rows, tokenizer, monkeypatch):
    """Catches: the wrong way round, the adapter left off, and a term that pulls before anything was learnt."""
    monkeypatch.setattr(remembering, "EVERY", 1)
    text = torch.randint(0, len(tokenizer), (4, 24), generator=torch.Generator().manual_seed(3))

    def trained(weight):
        torch.manual_seed(5)
        model = lora.inject(build(0), rank=4, alpha=8)
        assert divergence(model, text).item() == pytest.approx(0, abs=1e-6)
        reminder = Reminder(text, weight) if weight else None
        settings = Settings(steps=40)
        training.HandTrainer(model, rows, rows[:3], settings, tokenizer.pad_token_id, reminder=reminder).train()
        return divergence(model, text).item()

    free, held = trained(0.0), trained(5.0)
    assert free > 0.05 and held < 0.5 * free


def test_the_divergence_is_kl_from_the_base(build, tokenizer):
    """Catches: KL(tuned || base), a sum over tokens instead of their mean."""
    model = lora.inject(build(0), rank=4, alpha=8)
    for parameter in lora.lora_parameters(model):
        torch.nn.init.normal_(parameter, std=0.3)
    text = torch.arange(12)[None]
    base = build(0)(text).logits.log_softmax(-1)
    tuned = model(text).logits.log_softmax(-1)
    expected = (base.exp() * (base - tuned)).sum(-1).mean()
    torch.testing.assert_close(divergence(model, text), expected, rtol=1e-5, atol=1e-6)
