"""What can be set about `sft`, and its presets.

    smoke   seconds: the tests
    cpu     minutes on two cores: `make stage2`
    study   longer, for the best figures on two cores
    gpu     Qwen2.5-7B's shape, weights in four bits (bitsandbytes), PEFT and TRL; --base FOLDER for real weights
"""

from dataclasses import dataclass, replace
from pathlib import Path

from labkit.cli import option
from stage2_rag_finetune_deploy.finetune.base_model import RANDOM_7B
from stage2_rag_finetune_deploy.finetune.lora import ALL_LINEAR, ATTENTION, MLP

TARGETS = {"all": ALL_LINEAR, "attention": ATTENTION, "mlp": MLP, "qv": ("q_proj", "v_proj")}


@dataclass(frozen=True)
class SftConfig:
    """Options of `sft`."""

    data: str = option("customer-service-en", "customer-service-en, customer-service-zh, kwik-e-mart, or a JSONL file")
    base: Path | None = option(None, "folder of the base model; none is SmolLM2-135M-Instruct, random-7b a model of "
                                     "Qwen2.5-7B's shape with random weights")  # fmt: skip
    trainer: str = option("hand", "the loop of this lab, or TRL's SFTTrainer with PEFT", ("hand", "trl"))
    steps: int = option(220, "optimiser steps")
    minutes: float = option(0.0, "hand: of training; fewer --steps are made where this machine is slower; 0: all")
    batch: int = option(16, "samples a step")
    lr: float = option(2e-3, "peak rate of AdamW")
    warmup: int = option(10, "steps of linear warm-up")
    rank: int = option(8, "width of the adapter's detour")
    alpha: float = option(16.0, "the detour counts alpha / rank times")
    targets: str = option("all", "which linear layers get an adapter", tuple(TARGETS))
    dropout: float = option(0.0, "of the detour's input")
    remember: float = option(0.2, "hand: weight of staying close to the base on plain text; 0 leaves it out")
    packing: bool = option(False, "trl: fill rows of --max-length with whole samples")
    four_bit: bool = option(False, "trl: the frozen weights in NF4 (QLoRA)")
    max_length: int = option(256, "tokens of the longest sample; longer ones are counted and left out")
    limit: int | None = option(None, "as many training samples, taken evenly; none takes all")
    eval_every: int = option(50, "steps between evaluations and checkpoints")
    eval_samples: int | None = option(64, "validation samples for the loss while training; none takes all")
    test_samples: int | None = option(None, "test utterances to answer at the end; none takes all, 0 leaves it out")
    forget_tokens: int = option(8192, "WikiText-2 tokens for the perplexity before and after; 0 leaves it out")
    seed: int = option(1, "of A, of the order of the samples")
    device: str = option("auto", "auto, cpu, cuda, mps")
    dtype: str = option("auto", "of the frozen weights", ("auto", "fp32", "bf16"))
    gpu_hour: float = option(2.0, "price of an hour of the machine, for the cost that is printed")
    resume: Path | None = option(None, "run folder to go on from")


SMOKE = SftConfig(
    steps=4, batch=2, warmup=1, limit=8, remember=0.0, eval_every=2, eval_samples=2, test_samples=0, forget_tokens=0,
)  # fmt: skip
PRESETS = {
    "smoke": SMOKE,
    "cpu": SftConfig(),
    "study": SftConfig(steps=560, eval_every=80, eval_samples=None, forget_tokens=65536),
    "gpu": replace(
        SftConfig(), base=Path(RANDOM_7B), trainer="trl", four_bit=True, packing=True, rank=16, alpha=32.0, lr=2e-4,
        max_length=1024, batch=4, steps=120, eval_every=40, device="cuda", dtype="bf16",
    ),
}  # fmt: skip
