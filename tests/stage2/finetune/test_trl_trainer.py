"""The library path on a small random model. Each test names the bug that it catches."""

import json

import pytest
import torch

from data.customer_service.prompt import prompt_messages
from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune import base_model, lora, trl_trainer
from stage2_rag_finetune_deploy.finetune.chat_format import encode
from stage2_rag_finetune_deploy.finetune.samples import Samples
from stage2_rag_finetune_deploy.finetune.sft_config import SftConfig
from stage2_rag_finetune_deploy.finetune.training import response_loss, validation_loss

TEXTS = ["hi", "where is my parcel?", "hello", "KM1 is broken", "send it back", "thanks", "an invoice", "too late"]


@pytest.fixture(scope="module")
def samples(tokenizer):
    """Samples of different lengths."""
    rows = [encode(tokenizer, prompt_messages(text), "label " + "y" * number) for number, text in enumerate(TEXTS)]
    return Samples("eight", rows, [], 0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_samples_do_not_see_each_other(build, tokenizer, samples, tmp_path, attention):
    """Catches: a row of several samples in which attention or positions run on from one to the next."""
    model = build(0)
    model.set_attn_implementation(attention)
    config = SftConfig(rank=4, alpha=8, batch=2, steps=1, eval_every=1, packing=True, max_length=400)
    trainer = trl_trainer.make_trainer(model, tokenizer, samples, samples, config, tmp_path, torch.float32)
    assert len(trainer.train_dataset) < len(samples.rows) / 2
    batch = next(iter(trainer.get_train_dataloader()))
    packed = " ".join(map(str, batch["input_ids"][0].tolist()))
    taken = [row for row in samples.rows if " ".join(map(str, row.ids)) in packed]
    assert len(taken) > 2
    loss = trainer.compute_loss(trainer.model, batch).item()
    assert loss == pytest.approx(validation_loss(build(0), taken, tokenizer.pad_token_id), rel=1e-4)
    joined = {**batch, "position_ids": torch.arange(batch["input_ids"].shape[1])[None]}
    assert trainer.compute_loss(trainer.model, joined).item() != pytest.approx(loss, rel=1e-3)  # so it can be seen


def test_tokens_of_packed_rows_are_counted(build, tokenizer, samples, tmp_path):
    """Catches: a price for as many samples as there are rows, where a row holds several."""
    config = SftConfig(rank=4, alpha=8, batch=2, steps=6, eval_every=3, packing=True, max_length=400)
    trainer = trl_trainer.make_trainer(build(0), tokenizer, samples, samples, config, tmp_path, torch.float32)
    rows = len(trainer.train_dataset)
    trainer.train()
    done = trl_trainer.progress_of(trainer)
    assert [row["step"] for row in done.history] == [3, 6]
    epochs = config.steps * config.batch / rows
    assert done.tokens == pytest.approx(epochs * samples.tokens, rel=0.35)  # rows are not equally full
    assert done.tokens == done.history[-1]["tokens"] > done.history[0]["tokens"] > 0


def test_four_bits_learn_on_after_an_evaluation(build, tokenizer, samples):
    """Catches: frozen layers in four bits that pass no gradient on once they were evaluated (QLORA.md)."""
    gradients = []
    for evaluated in (False, True):
        model = base_model.quantise_with_bitsandbytes(build(0, width=64))
        torch.manual_seed(1)
        lora.inject(model, rank=4, alpha=8)
        for layer in lora.lora_layers(model).values():
            torch.nn.init.normal_(layer.lora_B, std=0.1)
        if evaluated:
            validation_loss(model, samples.rows, tokenizer.pad_token_id)
        response_loss(model, samples.rows, tokenizer.pad_token_id).backward()
        gradients.append(lora.lora_parameters(model)[0].grad)
    torch.testing.assert_close(*gradients)


def test_half_a_checkpoint_is_passed_over(tmp_path):
    """Catches: a run that was killed while it saved, and cannot go on from the save before."""
    with pytest.raises(LabError, match="no checkpoint in"):
        trl_trainer.last_checkpoint(tmp_path / "none")
    for step, text in ((20, "{}"), (9, json.dumps({"global_step": 9})), (10, json.dumps({"global_step": 10})),
                       (30, None), (40, '{"global')):  # fmt: skip
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    assert trl_trainer.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
