"""`memory`: does it fit? Weights and KV cache of a model on one card and on several, by arithmetic."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from labkit.cli import nearest, option, require_at_least
from labkit.errors import LabError
from labkit.progress import console
from stage2_rag_finetune_deploy.serving.checkpoint_folder import read_json
from stage2_rag_finetune_deploy.serving.memory import (
    GIB,
    SHAPES,
    Shape,
    cache_tokens,
    check_cards,
    kv_bytes_per_token,
    linear_parameters,
    other_parameters,
    weight_bytes,
)


@dataclass(frozen=True)
class MemoryConfig:
    """Which model, on which cards."""

    model: str = option("qwen2.5-7b", f"{', '.join(SHAPES)}, or a checkpoint folder")
    card_gib: float = option(24.0, "memory of one card")
    utilisation: float = option(0.9, "share of it that the server may fill (--gpu-memory-utilization)")
    other_gib: float = option(1.5, "activations, CUDA graphs and libraries on each card")
    cards: str = option("1,2,4", "tensor-parallel sizes")
    context: int = option(4096, "tokens of one request, prompt and answer")
    block_size: int = option(16, "tokens of a block (vLLM: 16 with CUDA, 128 on a processor)")


def shape_of(model: str) -> Shape:
    """A shape by name or from a folder.

    Raises:
        LabError: neither.
    """
    if model in SHAPES:
        return SHAPES[model]
    if Path(model).is_dir():
        return Shape.of(read_json(Path(model) / "config.json", "a checkpoint folder"))
    raise LabError(f"there is no model {model}", f"--model {nearest(model, list(SHAPES)) or next(iter(SHAPES))}")


def run_memory(config: MemoryConfig, preset: str) -> None:
    """Two tables: the model by itself, and what is left for requests."""
    require_at_least(config, 1, "context", "block_size")
    shape = shape_of(config.model)
    sizes = [int(part) if part.isdigit() else 0 for part in config.cards.split(",")]
    for cards in sizes:
        check_cards(shape, cards)
    total, kv = linear_parameters(shape) + other_parameters(shape), kv_bytes_per_token(shape)
    console.print(f"{config.model}: {total:,} parameters, {kv:,.0f} bytes of KV cache a token in bf16", markup=False)
    console.print(f"  one request of {config.context:,} tokens: {config.context * kv / 1e6:,.0f} MB of cache\n")
    table = Table(box=None, pad_edge=False)
    for title in ("weights", "cards", "weights GiB each", "left for KV GiB", "tokens", f"requests of {config.context}"):
        table.add_column(title, justify="left" if title == "weights" else "right")
    for dtype in ("bf16", "int8", "int4"):
        for cards in sizes:
            weights = weight_bytes(shape, dtype, cards) / GIB
            left = config.card_gib * config.utilisation - weights - config.other_gib
            tokens = cache_tokens(shape, left * GIB, config.block_size, cards) if left > 0 else 0
            fits = f"{tokens:,}" if tokens else "does not fit"
            table.add_row(dtype, str(cards), f"{weights:.2f}", f"{left:.2f}", fits, f"{tokens / config.context:.1f}")
    console.print(table)
    console.print(f"cards of {config.card_gib:g} GiB, {config.utilisation:.0%} used, {config.other_gib:g} GiB for the "
                  "rest; the KV cache stays in bf16", style="dim")  # fmt: skip
