"""What train_sft.py, train_dpo.py and train_grpo.py have in common: options, start, bookkeeping, and what is measured.

Each script says only what is its own: what a step reads, which log-probabilities it needs, and the loss.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labkit.cli import option, require_at_least
from labkit.files import write_json
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage2_rag_finetune_deploy.alignment.measure import Measured, measure, show
from stage2_rag_finetune_deploy.alignment.tasks import Task, load_task
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.base_model import (
    is_random,
    load_placed,
    parameter_count,
    quantise_with_bitsandbytes,
    release,
)
from stage2_rag_finetune_deploy.finetune.cost import forget_peak, no_answers, record_cost
from stage2_rag_finetune_deploy.finetune.export import export_merged, newest_merged
from stage2_rag_finetune_deploy.finetune.forgetting import perplexity
from stage2_rag_finetune_deploy.finetune.sft_config import TARGETS
from stage2_rag_finetune_deploy.finetune.training import AdapterTrainer, Progress, batch_stream

PROG = "python -m stage2_rag_finetune_deploy.alignment"
OnStep = Callable[[AdapterTrainer], None]
Train = Callable[..., Progress]
After = Callable[[Run, Any, Any, Task], None]


@dataclass(frozen=True)
class ScriptConfig:
    """Options that all three scripts have."""

    task: str = option("chain_sum", "chain_sum or another task of reasoning-gym, or customer-service-en, -zh")
    start: Path | None = option(None, "folder of the model to start from; none is the newest `warm-up`'s, or for the "
                                      "customer service the newest one of `finetune sft`; random-7b a model of "
                                      "Qwen2.5-7B's shape with random weights")  # fmt: skip
    questions: int = option(512, "to learn from")
    steps: int = option(64, "optimiser steps")
    batch: int = option(8, "questions a step")
    lr: float = option(5e-4, "peak rate of AdamW")
    warmup: int = option(3, "steps of linear warm-up")
    rank: int = option(8, "width of the adapter's detour")
    alpha: float = option(16.0, "the detour counts alpha / rank times")
    targets: str = option("all", "which linear layers get an adapter", tuple(TARGETS))
    save_every: int = option(8, "steps between checkpoints")
    test: int = option(128, "test questions; 0 measures nothing")
    forget_tokens: int = option(8192, "WikiText-2 tokens for the perplexity; 0 leaves it out")
    seed: int = option(1, "of the questions, their order, A, and what is sampled")
    device: str = option("auto", "auto, cpu, cuda, mps")
    dtype: str = option("auto", "of the frozen weights", ("auto", "fp32", "bf16"))
    four_bit: bool = option(False, "the frozen weights in NF4, by bitsandbytes (QLoRA)")
    gpu_hour: float = option(2.0, "price of an hour of the machine, for the cost that is printed")
    resume: Path | None = option(None, "run folder to go on from")


def check(config: ScriptConfig) -> None:
    """Numbers that no run can have.

    Raises:
        LabError: a number is too small.
    """
    require_at_least(config, 1, "questions", "steps", "batch", "rank", "save_every")
    require_at_least(config, 0, "test")


def new_trainer(model: Any, config: ScriptConfig, folder: Path | None) -> AdapterTrainer:
    """A fresh adapter in a model, drawn with the seed, and its optimiser; or the state of the run to go on from."""
    torch.manual_seed(config.seed)
    lora.inject(model, config.rank, config.alpha, TARGETS[config.targets])
    trainer = AdapterTrainer(model, config, folder)
    if config.resume:
        trainer.resume(config.resume / "checkpoint")
    return trainer


def batches(trainer: AdapterTrainer, lengths: Sequence[int], updates: int = 1) -> Iterator[list[int]]:
    """Numbers of the samples of each batch, until the trainer has done all its steps; `updates` steps use one batch."""
    config = trainer.config
    stream = batch_stream(lengths, config.batch, config.seed, start=trainer.progress.step // updates)
    while trainer.progress.step < config.steps:
        yield next(stream)


def record(trainer: AdapterTrainer, started: float, tokens: int, figures: dict[str, float], on_step: OnStep) -> None:
    """One line of the history; a checkpoint every `save_every` steps and at the end.

    Args:
        started: `time.perf_counter()` at the beginning of the step.
        tokens: of all prompts and completions that went through the model with a gradient.
    """
    now, config = trainer.progress, trainer.config
    now.seconds += time.perf_counter() - started
    now.tokens += tokens
    now.history.append({"step": now.step, "seconds": round(now.seconds, 3), **figures})
    if now.step % config.save_every == 0 or now.step == config.steps:
        trainer.save()
    on_step(trainer)


def start_folder(config: ScriptConfig) -> Path:
    """Where the model lies that a script starts from.

    Raises:
        LabError: no run has made one.
    """
    if config.start is not None:
        return config.start
    lab, command = ("finetune", "sft") if config.task.startswith("customer-service") else ("alignment", "warm-up")
    return newest_merged(lab, command, "no model to start from yet")


def run_script(
    name: str, train: Train, config: ScriptConfig, preset: str, folder: Path | None, after: After
) -> None:
    """Load, train, measure, save.

    Args:
        train: `train(model, tokenizer, task, items, config, folder, on_step)`.
        folder: of the model to start from; None is the packaged base.
        after: what is measured besides; the model still has its adapter.
    """
    check(config)
    task = load_task(config.task)
    model, tokenizer = load_placed(folder, config.device, config.dtype)
    asked = config.test if not is_random(folder) else 0
    items, test = task.train(config.questions, config.seed), task.test(asked) if asked else []
    with start_run("stage2", "alignment", name, config, preset, config.seed) as run:
        console.print(f"{name:<8}{task.name}: {len(items)} questions, {config.steps} steps of {config.batch}; "
                      f"{model.device}, {torch.get_num_threads()} threads", markup=False, soft_wrap=True)  # fmt: skip
        if config.four_bit:
            quantise_with_bitsandbytes(model)
        forget_peak(model.device)
        forgetting = config.forget_tokens and not is_random(folder)
        plain = perplexity(model, tokenizer, config.forget_tokens) if forgetting else None
        before = measure(model, tokenizer, task, test, config.seed) if test else None
        with step_bar(config.steps, name) as on_step:
            done = train(model, tokenizer, task, items, config, run.dir / "checkpoint", on_step)
        record_training(run, model, done, config.gpu_hour)
        if before is not None:
            trained = measure(model, tokenizer, task, test, config.seed)
            record_measured(run, {"start": before, name: trained}, config.seed)
        if plain is not None:
            ratio = perplexity(model, tokenizer, config.forget_tokens) / plain
            run.metric("perplexity_ratio", ratio, meaning="WikiText-2, after / start")
            console.print(f"forgot  WikiText-2 perplexity {ratio:.3f} times the start's", markup=False)
        lora.save_adapter(model, run.dir / "adapter")
        run.artefact("adapter", kind="adapter")
        if is_random(folder):
            no_answers(run, f"{PROG} {name} --preset {preset} --start FOLDER")
            return
        after(run, model, tokenizer, task)
        if config.four_bit:  # four bits don't merge
            release(model)
            model = lora.load_adapter(load_placed(folder, config.device, config.dtype)[0], run.dir / "adapter")
        export_merged(model, tokenizer, run.dir / "merged")
        run.artefact("merged", kind="model")


@contextmanager
def step_bar(total: int, name: str) -> Iterator[OnStep]:
    """Progress that begins with the first step: DPO's search for pairs would make a bad estimate of the time left."""
    with ExitStack() as stack:
        bars: list[progress] = []

        def on_step(trainer: AdapterTrainer) -> None:
            if not bars:
                bars.append(stack.enter_context(progress(total=total, description=name)))
            bars[0].note(headline(trainer.progress.history[-1]))
            bars[0].update(trainer.progress.step)

        yield on_step


def headline(row: dict[str, float]) -> str:
    """The figures of a step for the progress line."""
    shown = [name for name in ("reward", "accuracy", "loss") if name in row][:2]
    return ", ".join(f"{name} {row[name]:.3f}" for name in shown)


def record_training(run: Run, model: Any, done: Progress, gpu_hour: float) -> None:
    """What it cost, and every step."""
    trainable, whole = parameter_count(model)
    run.metric("train_seconds", done.seconds, "s")
    run.metric("trainable_share", trainable / whole, meaning="of all parameters")
    write_json(run.dir / "history.json", done.history)
    record_cost(run, done.tokens, done.seconds, model.device, gpu_hour, "through the model with a gradient")


def record_measured(run: Run, measured: dict[str, Measured], seed: int) -> None:
    """The table, and its figures in the report."""
    show(measured, seed)
    for label, figures in measured.items():
        for name, value in figures.as_dict().items():
            run.metric(f"{name} {label}", value)

