"""`sft`: fine-tune, export, and measure what was gained and what was forgotten.

A run's folder holds `adapter/` (PEFT's format), `merged/` (a plain checkpoint for vLLM and the quantisation lab),
`checkpoint/` (to resume from), `replies.jsonl` (what the tuned model answered) and the report.
"""

import time
from collections.abc import Sequence
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
from labkit.timing import human_seconds, peak_memory_mb
from stage2_rag_finetune_deploy.finetune import lora, trl_trainer
from stage2_rag_finetune_deploy.finetune.base_model import load_placed, parameter_count
from stage2_rag_finetune_deploy.finetune.export import export_merged
from stage2_rag_finetune_deploy.finetune.forgetting import perplexity
from stage2_rag_finetune_deploy.finetune.generation import generate
from stage2_rag_finetune_deploy.finetune.samples import Samples, evenly, load_samples
from stage2_rag_finetune_deploy.finetune.sft_config import PRESETS, TARGETS, SftConfig
from stage2_rag_finetune_deploy.finetune.training import HandTrainer, Progress
from stage2_rag_finetune_deploy.finetune.understanding import Scores, score

PROG = "python -m stage2_rag_finetune_deploy.finetune"


def run_sft(config: SftConfig, preset: str) -> None:
    """Train, export, measure."""
    require_at_least(config, 1, "steps", "batch", "rank", "eval_every", "max_length")
    model, tokenizer = load_placed(config.base, config.device, config.dtype)
    train = load_samples(tokenizer, config.data, "train", config.max_length, config.limit)
    validation = load_samples(tokenizer, config.data, "validation", config.max_length, config.eval_samples)
    with start_run("stage2", "finetune", "sft", config, preset, config.seed) as run:
        before = perplexity(model, tokenizer, config.forget_tokens) if config.forget_tokens else None
        introduce(config, train, model)
        trainer = train_by_hand if config.trainer == "hand" else train_by_trl
        model, done = trainer(model, tokenizer, train, validation, config, run.dir)
        record_training(run, model, train, done, config)
        lora.save_adapter(model, run.dir / "adapter")
        export_merged(model, tokenizer, run.dir / "merged")
        run.artefact("adapter", kind="adapter")
        run.artefact("merged", kind="model")
        run.figure(loss_curve(done, run.dir / "loss.png", config.data), "training and validation loss")
        if before is not None:
            record_forgetting(run, before, perplexity(model, tokenizer, config.forget_tokens))
        if config.data in SETS and config.test_samples != 0:
            test = data.load_understanding(config.data, "test")
            test = evenly(test, config.test_samples) if config.test_samples else test
            record_test(run, test, *answer(model, tokenizer, test), preset, config)
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
) -> tuple[Any, Progress]:
    """The loop of training.py."""
    if config.four_bit or config.packing:
        raise LabError("--four-bit and --packing are TRL's", "--trainer trl")
    torch.manual_seed(config.seed)
    lora.inject(model, config.rank, config.alpha, TARGETS[config.targets], config.dropout)
    trainer = HandTrainer(model, train.rows, validation.rows, config, tokenizer.pad_token_id, folder / "checkpoint")
    if config.resume:
        trainer.resume(config.resume / "checkpoint")
    with progress(total=config.steps, description="train") as bar:

        def on_step(trainer: HandTrainer, loss: float) -> None:
            bar.update(trainer.progress.step)
            bar.note(f"loss {loss:.3f}")

        return model, trainer.train(on_step)


def train_by_trl(
    model: Any, tokenizer: Any, train: Samples, validation: Samples, config: SftConfig, folder: Path
) -> tuple[Any, Progress]:
    """TRL's SFTTrainer over PEFT; the adapter comes back into this lab's layers."""
    dtype = model.dtype
    if config.four_bit:
        from stage2_rag_finetune_deploy.finetune.qlora_command import quantise_with_bitsandbytes

        model = quantise_with_bitsandbytes(model, True, dtype)
    started = time.perf_counter()
    with progress(total=config.steps, description="train (trl)") as bar:

        def on_log(step: int, loss: float) -> None:
            bar.update(step)
            bar.note(f"loss {loss:.3f}")

        trainer = trl_trainer.make_trainer(
            model, tokenizer, train, validation, config, folder / "checkpoint", dtype, on_log
        )
        trainer.train(
            resume_from_checkpoint=trl_trainer.last_checkpoint(config.resume / "checkpoint") if config.resume else None
        )
    done = trl_trainer.progress_of(trainer, train, config, time.perf_counter() - started)
    trainer.model.save_pretrained(folder / "adapter")
    plain, _ = load_placed(config.base, config.device, config.dtype)  # PEFT's wrapping is undone, four bits don't merge
    return lora.load_adapter(plain, folder / "adapter"), done


def record_training(run: Run, model: Any, train: Samples, done: Progress, config: SftConfig) -> None:
    """Loss, tokens, minutes, memory, money."""
    trainable, whole = parameter_count(model)
    share, last = trainable / whole, done.history[-1]
    price = done.seconds / 3600 * config.gpu_hour
    for row in done.history:
        console.print(f"step {row['step']:5d}  {row['seconds']:6.0f} s  train {row['train_loss']:.4f}  "
                      f"validation {row['val_loss']:.4f}  {row['tokens']:,} tokens", markup=False)  # fmt: skip
    console.print(
        f"cost    {done.tokens:,} tokens, {human_seconds(done.seconds)}, {peak_memory_mb() / 1000:.1f} GB at most, "
        f"{price:.3f} at {config.gpu_hour:g} an hour", markup=False, soft_wrap=True,
    )  # fmt: skip
    run.metric("val_loss", last["val_loss"], "nats/token", meaning="response tokens of validation samples")
    run.metric("train_seconds", done.seconds, "s", (None, 480) if config == PRESETS["cpu"] else None, "steps alone")
    run.metric("tokens", done.tokens, meaning="of all samples that were trained on, repeated ones again")
    run.metric("tokens_per_second", done.tokens / max(done.seconds, 1e-9), "tokens/s")
    run.metric("too_long", train.too_long, "samples", meaning="left out")
    small = config.base is None
    run.metric("trainable_share", share, band=(None, 0.02) if small else None, meaning="of all parameters")
    size = sum(value.nbytes for value in lora.adapter_state(model).values()) / 1e6
    run.metric("adapter_mb", size, "MB", (None, 20) if small else None)
    run.metric("cost", price, meaning=f"at {config.gpu_hour:g} an hour")
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
    run: Run, test: Sequence[Utterance], replies: Sequence[str], seconds: float, preset: str, config: SftConfig
) -> Scores:
    """Exact match, intent, slots; all replies go to a file."""
    scores = score(test, replies)
    rows = [
        {"id": each.id, "text": each.text, "label": each.label, "reply": reply, "exact": exact}
        for each, reply, exact in zip(test, replies, scores.exact, strict=True)
    ]
    write_jsonl(run.dir / "replies.jsonl", rows)
    run.artefact("replies.jsonl", kind="replies")
    bands = {"exact": (0.75, None), "intent": (0.90, None)} if config == PRESETS.get("cpu") else {}
    for name, value in scores.as_dict().items():
        run.metric(name, value, band=bands.get(name), meaning=f"{len(test)} test utterances")
    console.print(
        f"test    {len(test)} utterances in {human_seconds(seconds)}: exact {scores.mean('exact'):.1%}, "
        f"intent {scores.mean('intent'):.1%}, slot F1 {scores.slot_f1:.3f}, valid {scores.mean('valid'):.1%}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    run.learnt(f"SFT: {scores.mean('exact'):.0%} of {config.data}'s test utterances exactly right.")
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
