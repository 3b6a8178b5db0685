"""`train`: a run folder around the training loop, with a log one can read, a loss curve and the next command."""

import dataclasses
import os
from pathlib import Path

import torch

from labkit.errors import LabError
from labkit.plots import new_figure, save_figure
from labkit.progress import console, progress
from labkit.runs import Run, shown, start_run
from stage1_foundations.gpt import checkpoint, training
from stage1_foundations.gpt.sampling import Sampling, generate
from stage1_foundations.gpt.train_config import PRESETS, TrainConfig
from stage1_foundations.gpt.training import Trainer

# Validation loss in nats per character to expect of a preset on its default corpus (README, "Numbers to expect").
BANDS = {"cpu": (1.45, 1.70), "study": (1.43, 1.53)}
COMMAND = "python -m stage1_foundations.gpt"


def run_train(config: TrainConfig, preset: str) -> None:
    """Train, and leave a run folder: checkpoint, log.jsonl, loss curve, report."""
    config = resumed_config(config, preset)
    if int(os.environ.get("RANK", "0")) > 0:  # torchrun: the main process alone writes
        training.train(config, Path())
        return
    folder = None
    try:
        with start_run("stage1", "gpt", "train", config, preset=preset, seed=config.seed) as run:
            folder = run.dir
            with progress(total=100, description="train") as bar:
                trainer = training.train(config, run.dir, on_evaluation=show_evaluation, on_step=follow(bar))
            record(run, trainer, preset)
    except KeyboardInterrupt:
        if folder is None or not (folder / "checkpoint.pt").is_file():
            raise
        raise LabError(
            "training stopped by Ctrl-C; the checkpoint is saved", f"{COMMAND} train --resume {shown(folder)}"
        ) from None


def resumed_config(config: TrainConfig, preset: str) -> TrainConfig:
    """With --resume: the configuration of the checkpoint, changed where the command line differs from its preset."""
    if config.resume is None:
        return config
    saved = checkpoint.read_checkpoint(config.resume).get("config", {})
    base = PRESETS[preset]
    asked = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(base, field.name)
    }
    known = {field.name for field in dataclasses.fields(config)}
    return TrainConfig(**{**{k: v for k, v in saved.items() if k in known}, **asked})


def follow(bar: progress):
    """What moves the bar: the share of the run that is over."""

    def on_step(trainer: Trainer) -> None:
        bar.update(round(100 * trainer.progress, 1))
        bar.note(f"step {trainer.step_number}  loss {trainer.train_loss:.3f}")

    return on_step


def show_evaluation(trainer: Trainer, row: dict) -> None:
    """A line a validation; a sample now and then."""
    if row["step"] == 0:
        introduce(trainer)
    train_loss = "     -" if row["train_loss"] is None else f"{row['train_loss']:6.3f}"
    speed = f"  {row['tokens'] / row['seconds']:,.0f} tokens/s" if row["seconds"] else ""
    console.print(
        f"step {row['step']:5d} {row['seconds']:6.0f} s  train {train_loss}  val {row['val_loss']:.4f}  "
        f"{row['val_bits_per_char']:.3f} bits/char{speed}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    every = trainer.config.sample_every
    if every and row["step"] and row["step"] % every == 0:
        trainer.model.eval()
        sampling = Sampling(tokens=160, temperature=0.8, seed=trainer.config.seed)
        text = "".join(generate(trainer.model, trainer.tokenizer, first_line_break(trainer), sampling))
        trainer.model.train()
        console.print("  | " + text.strip().replace("\n", "\n  | "), markup=False, style="dim")


def introduce(trainer: Trainer) -> None:
    """What is about to be trained, on what."""
    c = trainer.model.config
    dtype = str(trainer.dtype).removeprefix("torch.")
    lines = [
        f"model   {trainer.config.shape}: {c.layers} layers, {c.heads} heads, width {c.width}, context {c.context}, "
        f"{trainer.model.parameter_count():,} parameters",
        f"text    {trainer.corpus.name}: {len(trainer.corpus.text):,} characters, vocabulary {c.vocab_size:,}",
        f"machine {trainer.device}, {dtype}, {torch.get_num_threads()} threads; losses in nats per token",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def first_line_break(trainer: Trainer) -> str:
    """A prompt that every corpus has: a line break, or its first character."""
    return "\n" if "\n" in trainer.corpus.text else trainer.corpus.text[0]


def record(run: Run, trainer: Trainer, preset: str) -> None:
    """Fill in the report."""
    last = trainer.history[-1]
    per_char = last["val_loss"] / trainer.characters_per_token
    band = BANDS.get(preset) if trainer.config == PRESETS[preset] else None
    run.metric("val_loss", per_char, "nats/char", band, "loss on the whole validation part")
    run.metric("val_bits_per_char", last["val_bits_per_char"], "bits/char", meaning="the same in bits")
    run.metric("tokens_per_second", last["tokens"] / max(last["seconds"], 1e-9), "tokens/s", meaning="training")
    run.metric("train_seconds", last["seconds"], "s", meaning="time spent on steps")
    run.metric("parameters", trainer.model.parameter_count(), "", meaning="trainable numbers")
    run.data(trainer.corpus.name, trainer.corpus.sha256, len(trainer.corpus.text.encode()))
    run.artefact("checkpoint.pt", kind="checkpoint")
    run.artefact("log.jsonl", kind="log")
    run.figure(loss_curve(trainer, run.dir / "loss.png"), "training and validation loss against time")
    run.learnt(
        f"A {trainer.model.parameter_count() / 1e6:.1f} M parameter transformer reads {trainer.corpus.name} and "
        f"predicts its next character with {last['val_bits_per_char']:.2f} bits (guessing blindly costs "
        f"{trainer.history[0]['val_bits_per_char']:.2f})."
    )
    run.next(f"{COMMAND} sample")


def loss_curve(trainer: Trainer, path: Path) -> Path:
    """Loss against seconds of training."""
    fig, axis = new_figure()
    rows = trainer.history
    seconds = [row["seconds"] for row in rows]
    axis.plot(seconds, [row["val_loss"] for row in rows], marker="o", label="validation (whole part)")
    train = [(row["seconds"], row["train_loss"]) for row in rows if row["train_loss"] is not None]
    axis.plot(*zip(*train, strict=True), marker=".", label="training (last batch)") if train else None
    axis.annotate(f"{rows[-1]['val_loss']:.3f}", (seconds[-1], rows[-1]["val_loss"]), textcoords="offset points",
                  xytext=(-4, 8), ha="right")  # fmt: skip
    axis.set(xlabel="seconds of training", ylabel="nats per token", title=f"Loss on {trainer.corpus.name}")
    axis.legend()
    return save_figure(fig, path)
