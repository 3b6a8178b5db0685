"""What a training run cost: tokens, minutes, memory, and money at a price for an hour of the machine."""

import torch

from labkit.progress import console
from labkit.runs import Run
from labkit.timing import human_seconds, peak_memory_mb


def forget_peak(device: torch.device) -> None:
    """Count a GPU's peak memory from here on: loading a model in 16 bits takes more than training it in four."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def record_cost(run: Run, tokens: int, seconds: float, device: torch.device, gpu_hour: float, meaning: str) -> None:
    """One line, and its figures in the report.

    Args:
        tokens, seconds: of the steps alone.
        gpu_hour: price of an hour of the machine, in whatever currency.
        meaning: which tokens are counted.
    """
    price, speed = seconds / 3600 * gpu_hour, tokens / max(seconds, 1e-9)
    memory = f"{peak_memory_mb() / 1000:.1f} GB at most"
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 1e9
        memory = f"{peak:.1f} GB of the GPU at most"
        run.metric("peak_gpu_gb", peak, "GB", meaning="allocated, while training")
    console.print(f"cost    {tokens:,} tokens, {human_seconds(seconds)}, {speed:,.0f} tokens/s, {memory}, "
                  f"{price:.3f} at {gpu_hour:g} an hour", markup=False, soft_wrap=True)  # fmt: skip
    run.metric("tokens", tokens, meaning=meaning)
    run.metric("tokens_per_second", speed, "tokens/s")
    run.metric("cost", price, meaning=f"at {gpu_hour:g} an hour")


def no_answers(run: Run, command: str) -> None:
    """Say of a model with random weights what its figures are good for, and what to type for a real one."""
    console.print("random weights: speed and memory are those of a real model, answers are not asked for", markup=False)
    run.next(command)
