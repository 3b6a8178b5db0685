"""`qlora`: what four bits cost and save, and the same training by hand and by bitsandbytes under PEFT.

1. memory of the weights in four schemes, counted and by formula, and what each does to the loss
2. some steps from the same A and B on the same batches: two columns of losses that agree

With `--model random-7b` a model of the shape of Qwen2.5-7B with random weights is trained: time and memory are real.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

import data
from labkit.cli import option, require_at_least
from labkit.device import choose_device, choose_dtype
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from stage2_rag_finetune_deploy.finetune.base_model import (
    RANDOM_7B,
    is_random,
    load_base,
    load_random,
    quantise_with_bitsandbytes,
)
from stage2_rag_finetune_deploy.finetune.chat_format import collate
from stage2_rag_finetune_deploy.finetune.cost import forget_peak
from stage2_rag_finetune_deploy.finetune.lora import ALL_LINEAR, find_linear
from stage2_rag_finetune_deploy.finetune.nf4 import dequantise_nf4
from stage2_rag_finetune_deploy.finetune.qlora import (
    NF4Linear,
    QLoRALinear,
    expected_bytes,
    make_qlora,
    weight_bytes,
)
from stage2_rag_finetune_deploy.finetune.samples import encode_pairs, utterance_pairs
from stage2_rag_finetune_deploy.finetune.training import validation_loss

DATA, MAX_LENGTH = "customer-service-en", 512
SCHEMES = ("fp32", "bf16", "nf4", "nf4-double")
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class QloraConfig:
    """Options of `qlora`."""

    model: str = option("smollm2", f"smollm2, a folder, or {RANDOM_7B}: Qwen2.5-7B's shape, random weights")
    steps: int = option(8, "optimiser steps of each of the two trainings")
    batch_size: int = option(4, "utterances a step")
    rank: int = option(8, "width of the detour")
    alpha: float = option(16.0, "the detour counts alpha / rank times")
    lr: float = option(1e-3, "learning rate of AdamW")
    double: bool = option(True, "quantise the absmax values as well")
    evaluate: int = option(32, "validation utterances for the loss in each scheme; 0 leaves it out")
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda"))
    seed: int = option(1, "seed of A and of the order of the utterances")


PRESETS = {
    "smoke": QloraConfig(steps=2, batch_size=2, evaluate=2),
    "cpu": QloraConfig(),
    "study": QloraConfig(steps=40, batch_size=8, evaluate=157),
    "gpu": QloraConfig(model=RANDOM_7B, steps=20, batch_size=16, rank=16, alpha=32.0, evaluate=0, device="cuda"),
}


def run_qlora(config: QloraConfig, preset: str) -> None:
    """Both parts, with a report."""
    require_at_least(config, 1, "steps", "batch_size", "rank")
    device = choose_device(config.device)
    dtype = choose_dtype("auto", device.type)
    with start_run("stage2", "finetune", "qlora", config, preset, config.seed) as run:
        if is_random(config.model):
            model, tokenizer = load_random(device, torch.bfloat16)
        else:
            model, tokenizer = load_base(None if config.model == "smollm2" else config.model, dtype)
        model = model.to(device).train()
        batches = make_batches(tokenizer, config, device)
        if is_random(config.model):
            train_large(run, model, batches, config, device)
        else:
            compare_memory(run, model, tokenizer, config)
            compare_training(run, model, batches, config)
        run.next("python -m stage2_rag_finetune_deploy.finetune llamafactory train sft_qlora.yaml")


def make_batches(tokenizer: Any, config: QloraConfig, device: torch.device) -> list[Batch]:
    """As many batches of training utterances as there are steps, the order drawn from the seed."""
    utterances = data.load_understanding(DATA, "train")
    order = torch.randperm(len(utterances), generator=torch.Generator().manual_seed(config.seed)).tolist()
    wanted = config.steps * config.batch_size
    chosen = [utterances[number] for number in (order * (wanted // len(order) + 1))[:wanted]]
    return batched(tokenizer, chosen, config.batch_size, device)


def batched(tokenizer: Any, utterances: Sequence[Any], size: int, device: torch.device) -> list[Batch]:
    """Utterances with their labels, encoded and padded."""
    rows = encode_pairs(tokenizer, DATA, utterance_pairs(utterances), MAX_LENGTH).rows
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [
        {name: value.to(device) for name, value in collate(part, tokenizer.pad_token_id).items()} for part in parts
    ]


# ------------------------------------------------------------------------------------------------------------- memory


def in_scheme(model: nn.Module, scheme: str) -> nn.Module:
    """A copy of a model in one of SCHEMES; the linear layers inside the blocks are quantised, nothing else."""
    made = copy.deepcopy(model).requires_grad_(False).to(torch.float32 if scheme == "fp32" else torch.bfloat16)
    if scheme.startswith("nf4"):
        for parent, name, child in find_linear(made, ALL_LINEAR):
            setattr(parent, name, NF4Linear(child, double=scheme == "nf4-double"))
    return made.eval()


def compare_memory(run: Run, model: nn.Module, tokenizer: Any, config: QloraConfig) -> None:
    """The table of the four schemes."""
    inside = sum(child.weight.numel() for name, child in model.named_modules()
                 if name.split(".")[-1] in ALL_LINEAR)  # fmt: skip
    others = sum(parameter.numel() for parameter in model.parameters()) - inside
    table = Table(box=None, pad_edge=False)
    for heading in ("weights in", "MB", "by formula", "bits a weight", "relative error", "loss"):
        table.add_column(heading, justify="left" if heading == "weights in" else "right")
    utterances = data.load_understanding(DATA, "validation")[: config.evaluate]
    rows = encode_pairs(tokenizer, DATA, utterance_pairs(utterances), MAX_LENGTH).rows if utterances else []
    for scheme in progress(SCHEMES, description="schemes"):
        made = in_scheme(model, scheme)
        kept, formula = weight_bytes(made), expected_bytes(inside, others, scheme)
        bits = 8 * expected_bytes(inside, 0, scheme) / inside
        loss = validation_loss(made, rows, tokenizer.pad_token_id) if rows else float("nan")
        error = relative_error(model, made) if scheme.startswith("nf4") else 0.0
        table.add_row(scheme, f"{kept / 1e6:.1f}", f"{formula / 1e6:.1f}", f"{bits:.3f}", f"{100 * error:.1f} %",
                      f"{loss:.4f}" if rows else "-")  # fmt: skip
        run.metric(f"mb_{scheme}", kept / 1e6, unit="MB", meaning="all weights as kept, linear layers in this scheme")
        if rows:
            run.metric(f"loss_{scheme}", loss, unit="nats/token", meaning="labels of validation utterances, untrained")
        del made
    console.print(table)
    note = f"{inside:,} weights in linear layers; {others:,} in embeddings and norms stay in 16 bits"
    console.print(note, style="dim")


@torch.inference_mode()
def relative_error(model: nn.Module, quantised: nn.Module) -> float:
    """|W' - W| / |W| over all quantised layers."""
    wrong = whole = 0.0
    plain = dict(model.named_modules())
    for name, module in quantised.named_modules():
        if isinstance(module, NF4Linear):
            weight = plain[name].weight.float()
            wrong += (dequantise_nf4(module.stored, torch.float32) - weight).square().sum().item()
            whole += weight.square().sum().item()
    return (wrong / whole) ** 0.5


# ----------------------------------------------------------------------------------------------------------- training


def with_peft(model: nn.Module, config: QloraConfig) -> nn.Module:
    """PEFT's LoRA on the quantised layers."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(ALL_LINEAR), task_type="CAUSAL_LM"))  # fmt: skip


@torch.no_grad()
def copy_start(ours: nn.Module, theirs: nn.Module) -> None:
    """PEFT's A and B as ours."""
    layers = {name.removeprefix("base_model.model."): module for name, module in theirs.named_modules()}
    for name, module in ours.named_modules():
        if isinstance(module, QLoRALinear):
            layers[name].lora_A["default"].weight.copy_(module.lora_A)
            layers[name].lora_B["default"].weight.copy_(module.lora_B)


def train(
    model: nn.Module, batches: Sequence[Batch], lr: float, on_step: Callable[[], None]
) -> tuple[list[float], list[float]]:
    """AdamW over what is not frozen; the loss and the seconds of each step."""
    optimiser = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr, weight_decay=0.0)
    losses, seconds = [], []
    for batch in batches:
        started = time.perf_counter()
        loss = model(**batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
        on_step()
    return losses, seconds


def compare_training(run: Run, model: nn.Module, batches: list[Batch], config: QloraConfig) -> None:
    """The same steps by hand and by the libraries."""
    by_hand, library = copy.deepcopy(model), copy.deepcopy(model)
    make_qlora(by_hand, config.rank, config.alpha, double=config.double, seed=config.seed)
    library = with_peft(quantise_with_bitsandbytes(library, config.double), config)
    copy_start(by_hand, library)
    with progress(total=2 * len(batches), description="training") as bar:
        ours, our_seconds = train(by_hand, batches, config.lr, bar.advance)
        theirs, their_seconds = train(library, batches, config.lr, bar.advance)
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "by hand", "bitsandbytes + PEFT"):
        table.add_column(heading, justify="right")
    for step, pair in enumerate(zip(ours, theirs, strict=True), 1):
        table.add_row(str(step), *(f"{loss:.4f}" for loss in pair))
    console.print(table)
    apart = max(abs(a - b) / b for a, b in zip(ours, theirs, strict=True))
    middle = [sorted(seconds)[len(seconds) // 2] for seconds in (our_seconds, their_seconds)]
    times = f"{middle[0]:.2f} s a step by hand, {middle[1]:.2f} s by the libraries"
    console.print(f"at most {100 * apart:.2f} % apart; {times}")
    run.metric("largest_difference", apart, meaning="of the two losses of a step, relative")
    run.metric("step_seconds_by_hand", middle[0], unit="s", meaning="median")
    run.metric("step_seconds_library", middle[1], unit="s", meaning="median")
    run.metric("last_loss", theirs[-1], unit="nats/token")
    run.learnt(f"QLoRA by hand and by bitsandbytes under PEFT: losses at most {100 * apart:.2f} % apart")


def train_large(run: Run, model: nn.Module, batches: list[Batch], config: QloraConfig, device: torch.device) -> None:
    """Speed and memory of a model too large for the comparison: bitsandbytes and PEFT only."""
    model = with_peft(quantise_with_bitsandbytes(model, config.double), config)
    forget_peak(device)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    with progress(total=len(batches), description="training") as bar:
        _, seconds = train(model, batches, config.lr, bar.advance)
    tokens = sum(batch["input_ids"].numel() for batch in batches[1:])
    speed = tokens / max(sum(seconds[1:]), 1e-9)
    run.metric("tokens_per_second", speed, meaning="without the first step, padding counted")
    text = f"{speed:,.0f} tokens/s"
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
        run.metric("peak_gpu_gb", peak, unit="GB")
        text += f", peak GPU memory {peak:.1f} GB"
    console.print(text)
