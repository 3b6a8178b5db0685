"""What can be set about a training run, and its presets.

    smoke   seconds: the tests
    cpu     minutes: `make stage1`
    study   the best loss on tiny-shakespeare that was found; more steps overfit (NOTES.md)
    gpu     nanoGPT's A100 shape, 10.7 M parameters
"""

from dataclasses import dataclass, replace
from pathlib import Path

from labkit.cli import option
from stage1_foundations.gpt import feed_forward, normalisation, optimizer, position_encoding, schedule
from stage1_foundations.gpt.model_config import SHAPES, ModelConfig, bigram_table_rows, model_config


@dataclass(frozen=True)
class TrainConfig:
    """One dial for the size of the run (the preset), and every part by name."""

    data: str = option("tiny-shakespeare", "catalog name (python -m data list) or a UTF-8 text file")
    shape: str = option("modern", "which recipe of parts", SHAPES)
    tokenizer: str = option("character", "how text becomes ids", ("character", "bpe"))
    vocab_size: int = option(1024, "vocabulary of the bpe tokenizer")
    layers: int = option(6, "blocks")
    heads: int = option(4, "attention heads")
    width: int = option(256, "features of the residual stream")
    context: int = option(256, "tokens the model sees at once")
    position: str | None = option(None, "replace the shape's position encoding", position_encoding.KINDS)
    norm: str | None = option(None, "replace the shape's normalisation", normalisation.KINDS)
    feed_forward: str | None = option(None, "replace the shape's feed-forward", feed_forward.KINDS)
    bigram: bool = option(False, "a table of token pairs beside the embedding: helps a sprint, harms a long run")
    dropout: float = option(0.0, "on the residual branches, one mask a row")
    batch: int = option(16, "rows of one context a step, over all processes")
    accumulation: int = option(1, "micro-batches a step in each process")
    steps: int = option(600, "optimiser steps")
    minutes: float | None = option(None, "stop after this many minutes, the schedule stretched to fit")
    optimizer: str = option("muon", "muon (with adamw for the tables) or adamw alone", optimizer.KINDS)
    lr: float = option(0.01, "peak rate of AdamW")
    matrix_lr: float = option(0.02, "peak rate of Muon")
    beta2: float = option(0.95, "AdamW's second moment")
    weight_decay: float = option(0.1, "decoupled weight decay")
    warmup: int = option(10, "steps of linear warm-up")
    schedule: str = option("linear", "how the rate falls", schedule.KINDS)
    floor: float = option(0.0, "the rate at the end, as a share of the peak")
    clip: float = option(1.0, "largest norm of the gradient; 0 for no clipping")
    eval_every: int = option(100, "steps between validations (the whole part, deterministic)")
    sample_every: int = option(300, "steps between samples printed while training; 0 for none")
    seed: int = option(1, "of weights, batches and samples")
    device: str = option("auto", "auto, cpu, cuda, mps")
    dtype: str = option("auto", "of the matrix products", ("auto", "fp32", "bf16"))
    compile: bool = option(False, "torch.compile: pays for itself on runs of several minutes")
    threads: int = option(0, "CPU threads; 0 leaves torch's choice")
    resume: Path | None = option(None, "run folder or checkpoint to go on from")

    def model_config(self, vocab_size: int) -> ModelConfig:
        """The model's shape for a vocabulary."""
        rows = bigram_table_rows(vocab_size) if self.bigram else None
        parts = {"bigram_rows": rows, "position": self.position, "norm": self.norm, "feed_forward": self.feed_forward}
        return model_config(
            self.shape, vocab_size=vocab_size, context=self.context, layers=self.layers, heads=self.heads,
            width=self.width, dropout=self.dropout, **{name: part for name, part in parts.items() if part},
        )  # fmt: skip


CPU = TrainConfig(context=128, steps=450, minutes=10.0, eval_every=150)
SMOKE = TrainConfig(
    layers=2, heads=2, width=32, context=32, batch=8, steps=20, eval_every=10, sample_every=0, minutes=None
)
PRESETS = {
    "smoke": SMOKE,
    "cpu": CPU,
    "study": replace(CPU, context=256, steps=900, weight_decay=0.2, compile=True),
    "gpu": TrainConfig(heads=6, width=384, batch=64, steps=5000, dropout=0.2, eval_every=250, compile=True),
}

# nanoGPT's recipe for a laptop CPU (its README, "I only have a macbook"), the anchor of `bench`.
NANOGPT_CPU = TrainConfig(
    shape="gpt2", layers=4, heads=4, width=128, context=64, batch=12, steps=2000, optimizer="adamw", lr=1e-3,
    beta2=0.99, weight_decay=0.1, warmup=100, schedule="cosine", floor=0.1, eval_every=250, sample_every=0,
    dtype="fp32",
)  # fmt: skip
