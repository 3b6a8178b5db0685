"""`sft`: fine-tune, export, and measure what was gained and what was forgotten.

A run's folder holds `adapter/` (PEFT's format), `merged/` (a plain checkpoint for vLLM and the quantisation lab),
`checkpoint/` (to resume from), `replies.jsonl` (what the tuned model answered) and the report.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import data
from data.customer_service.prompt import prompt_messages
from data.understanding import SETS, Utterance
from labkit.cli import require_at_least
from labkit.errors import LabError
from labkit.files import write_json, write_jsonl
from labkit.plots import new_figure, save_figure
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from labkit.timing import human_seconds
from stage2_rag_finetune_deploy.finetune import lora, trl_trainer
from stage2_rag_finetune_deploy.finetune.base_model import (
    is_random,
    load_placed,
    parameter_count,
    quantise_with_bitsandbytes,
    release,
)
from stage2_rag_finetune_deploy.finetune.cost import forget_peak, no_answers, record_cost
from stage2_rag_finetune_deploy.finetune.export import export_merged
from stage2_rag_finetune_deploy.finetune.forgetting import perplexity
from stage2_rag_finetune_deploy.finetune.full_disk import full_disk_named
from stage2_rag_finetune_deploy.finetune.generation import generate
from stage2_rag_finetune_deploy.finetune.remembering import Reminder, text_stretches
from stage2_rag_finetune_deploy.finetune.samples import Samples, evenly, load_samples
from stage2_rag_finetune_deploy.finetune.sft_config import PRESETS, TARGETS, SftConfig
from stage2_rag_finetune_deploy.finetune.training import HandTrainer, Progress, check_same_run
from stage2_rag_finetune_deploy.finetune.understanding import Scores, score

PROG = "python -m stage2_rag_finetune_deploy.finetune"


def run_sft(config: SftConfig, preset: str) -> None:
    """Train, export, measure."""
    require_at_least(config, 1, "steps", "batch", "rank", "eval_every", "max_length")
    model, tokenizer = load_placed(config.base, config.device, config.dtype)
    computed_in = model.dtype
    train = load_samples(tokenizer, config.data, "train", config.max_length, config.limit)
    validation = load_samples(tokenizer, config.data, "validation", config.max_length, config.eval_samples)
    with start_run("stage2", "finetune", "sft", config, preset, config.seed) as run:
        forgetting = config.forget_tokens and not is_random(config.base)
        before = perplexity(model, tokenizer, config.forget_tokens) if forgetting else None
        introduce(config, train, model)
        whole, trainer = parameter_count(model)[1], train_by_hand if config.trainer == "hand" else train_by_trl
        done = trainer(model, tokenizer, train, validation, config, run.dir)
        usual = replace(config, minutes=0.0) == PRESETS["cpu"] and done.step == config.steps  # what bands are for
        record_training(run, whole, train, done, config, model.device, usual)
        run.artefact("adapter", kind="adapter")
        run.figure(loss_curve(done, run.dir / "loss.png", config.data), "training and validation loss")
        if is_random(config.base):
            no_answers(run, f"{PROG} sft --preset {preset} --base FOLDER")
            return
        if config.trainer == "trl":
            model = load_tuned(model, config, run.dir / "adapter")
        export_merged(model, tokenizer, run.dir / "merged")
        model.to(computed_in)  # the weights stay as they were written; a processor may have to emulate their 16 bits
        run.artefact("merged", kind="model")
        if before is not None:
            record_forgetting(run, before, perplexity(model, tokenizer, config.forget_tokens))
        if config.data in SETS and config.test_samples != 0:
            test = data.load_understanding(config.data, "test")
            test = evenly(test, config.test_samples) if config.test_samples else test
            record_test(run, test, *answer(model, tokenizer, test), config.data, usual)
        run.next(f'{PROG} ask "where is KM204817?"')


def introduce(config: SftConfig, train: Samples, model: Any) -> None:
    """What is about to be done."""
    console.print(f"data    {train.name}: {len(train.rows):,} samples, {train.tokens:,} tokens", markup=False)
    if train.too_long:
        console.print(f"        {train.too_long} samples are longer than {config.max_length} tokens and left out",
                      style="yellow")  # fmt: skip
    console.print(f"train   {config.trainer}, {config.steps} steps of {config.batch}, LoRA rank {config.rank} on "
                  f"{config.targets} layers; {model.device}, weights in {str(model.dtype).removeprefix('torch.')}, "
                  f"{torch.get_num_threads()} threads", markup=False, soft_wrap=True)  # fmt: skip


def train_by_hand(
    model: Any, tokenizer: Any, train: Samples, validation: Samples, config: SftConfig, folder: Path
) -> Progress:
    """The loop of training.py; the model has its adapter afterwards, and `folder/adapter` holds it."""
    if config.four_bit or config.packing:
        raise LabError("--four-bit and --packing are TRL's", "--trainer trl")
    torch.manual_seed(config.seed)
    lora.inject(model, config.rank, config.alpha, TARGETS[config.targets], config.dropout)
    reminder = Reminder(text_stretches(tokenizer, config.seed), config.remember) if config.remember else None
    trainer = HandTrainer(
        model, train.rows, validation.rows, config, tokenizer.pad_token_id, folder / "checkpoint", reminder
    )
    if config.resume:
        trainer.resume(config.resume / "checkpoint")
    with progress(total=config.steps, description="train") as bar:

        def on_step(trainer: HandTrainer, loss: float) -> None:
            bar.total = trainer.config.steps
            bar.update(trainer.progress.step)
            bar.note(f"loss {loss:.3f}")

        done = trainer.train(on_step)
    if done.step < config.steps:
        console.print(
            f"        {done.step} of {config.steps} steps, {done.seconds / done.step:.1f} s each: more do not fit into "
            f"{config.minutes:g} minutes (--minutes 0 for all)", markup=False, style="yellow", soft_wrap=True,
        )  # fmt: skip
    lora.save_adapter(model, folder / "adapter")
    return done


def train_by_trl(
    model: Any, tokenizer: Any, train: Samples, validation: Samples, config: SftConfig, folder: Path
) -> Progress:
    """TRL's SFTTrainer over PEFT; `folder/adapter` holds what came out."""
    if config.minutes:
        raise LabError("--minutes is of the loop by hand", "--steps, or --trainer hand")
    dtype, resume = model.dtype, None
    if config.resume:
        check_same_run(config, config.resume)
        resume = trl_trainer.last_checkpoint(config.resume / "checkpoint")
    if config.four_bit:
        quantise_with_bitsandbytes(model)
        forget_peak(model.device)
    with progress(total=config.steps, description="train (trl)") as bar, full_disk_named(folder):

        def on_log(step: int, loss: float) -> None:
            bar.update(step)
            bar.note(f"loss {loss:.3f}")

        trainer = trl_trainer.make_trainer(
            model, tokenizer, train, validation, config, folder / "checkpoint", dtype, on_log
        )
        trainer.train(resume_from_checkpoint=resume)
        trainer.model.save_pretrained(folder / "adapter")
    return trl_trainer.progress_of(trainer)


def load_tuned(model: Any, config: SftConfig, adapter: Path) -> Any:
    """The base again, in 16 bits and without PEFT's wrapping, with the adapter in this lab's layers.

    The model that was trained is given up: both would not fit on a card that holds a 7B model once.
    """
    release(model)
    plain, _ = load_placed(config.base, config.device, config.dtype)
    lora.save_adapter(lora.load_adapter(plain, adapter), adapter)  # now it says which base it belongs to
    return plain


def record_training(
    run: Run, whole: int, train: Samples, done: Progress, config: SftConfig, device: torch.device, usual: bool
) -> None:
    """Loss, and what it cost.

    Args:
        whole: parameters of the base.
        usual: whether this is the run that the time's band is for.
    """
    trained, size = lora.adapter_size(run.dir / "adapter")
    small, last = config.base is None, done.history[-1]
    for row in done.history:
        console.print(f"step {row['step']:5d}  {row['seconds']:6.0f} s  train {row['train_loss']:.4f}  "
                      f"validation {row['val_loss']:.4f}  {row['tokens']:,} tokens", markup=False)  # fmt: skip
    record_cost(run, done.tokens, done.seconds, device, config.gpu_hour,
                "of all samples that were trained on, repeated ones again")  # fmt: skip
    run.metric("val_loss", last["val_loss"], "nats/token", meaning="response tokens of validation samples")
    run.metric("train_steps", done.step, "steps", meaning="of the optimiser")
    run.metric("train_seconds", done.seconds, "s", (None, 480) if usual else None, "steps alone")
    run.metric("too_long", train.too_long, "samples", meaning="left out")
    run.metric("trainable_share", trained / (whole + trained), band=(None, 0.02) if small else None,
               meaning="of all parameters")  # fmt: skip
    run.metric("adapter_mb", size / 1e6, "MB", (None, 20) if small else None)
    run.data(train.name, train.sha256, train.tokens * 4)
    write_json(run.dir / "history.json", done.history)


def record_forgetting(run: Run, before: float, after: float) -> None:
    """WikiText-2 perplexity."""
    run.metric("perplexity_base", before, meaning="WikiText-2, before")
    run.metric("perplexity_ratio", after / before, band=(None, 1.15), meaning="WikiText-2, after / before")
    console.print(f"forgot  WikiText-2 perplexity {before:.2f} -> {after:.2f} ({after / before:.3f}x)", markup=False)


def answer(model: Any, tokenizer: Any, utterances: Sequence[Utterance]) -> tuple[list[str], float]:
    """The model's replies, and the seconds they took."""
    started = time.perf_counter()
    prompts = [prompt_messages(each.text, each.language) for each in utterances]
    return generate(model, tokenizer, prompts), time.perf_counter() - started


def record_test(
    run: Run, test: Sequence[Utterance], replies: Sequence[str], seconds: float, name: str, usual: bool
) -> Scores:
    """Exact match, intent, slots; all replies go to a file. `usual`: whether this is the run that has bands."""
    scores = score(test, replies)
    rows = [
        {"id": each.id, "text": each.text, "label": each.label, "reply": reply, "exact": exact}
        for each, reply, exact in zip(test, replies, scores.exact, strict=True)
    ]
    write_jsonl(run.dir / "replies.jsonl", rows)
    run.artefact("replies.jsonl", kind="replies")
    bands = {"exact": (0.75, None), "intent": (0.90, None)} if usual else {}
    for name, value in scores.as_dict().items():
        run.metric(name, value, band=bands.get(name), meaning=f"{len(test)} test utterances")
    console.print(
        f"test    {len(test)} utterances in {human_seconds(seconds)}: exact {scores.mean('exact'):.1%}, "
        f"intent {scores.mean('intent'):.1%}, slot F1 {scores.slot_f1:.3f}, valid {scores.mean('valid'):.1%}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    run.learnt(f"SFT: {scores.mean('exact'):.0%} of {name}'s test utterances exactly right.")
    return scores


def loss_curve(done: Progress, path: Path, name: str) -> Path:
    """Loss against steps."""
    fig, axis = new_figure()
    steps = [row["step"] for row in done.history]
    axis.plot(steps, [row["train_loss"] for row in done.history], marker=".", label="training (mean since the last)")
    axis.plot(steps, [row["val_loss"] for row in done.history], marker="o", label="validation")
    axis.set(xlabel="optimiser steps", ylabel="nats per response token", title=f"SFT on {name}")
    axis.set_yscale("log")
    axis.legend()
    return save_figure(fig, path)
