"""`experiments`: rank, alpha and target modules, one at a time: memory against quality."""

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

import data
from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.plots import new_figure, save_figure
from labkit.progress import console
from labkit.runs import start_run
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.base_model import load_placed, parameter_count
from stage2_rag_finetune_deploy.finetune.samples import Samples, evenly, load_samples
from stage2_rag_finetune_deploy.finetune.sft_command import answer
from stage2_rag_finetune_deploy.finetune.sft_config import TARGETS, SftConfig
from stage2_rag_finetune_deploy.finetune.training import HandTrainer
from stage2_rag_finetune_deploy.finetune.understanding import score


@dataclass(frozen=True)
class ExperimentsConfig:
    """Options of `experiments`."""

    data: str = option("customer-service-en", "an understanding set")
    base: Path | None = option(None, "folder of the base model; none is SmolLM2-135M-Instruct")
    cells: str = option("8/16/all,2/4/all,32/64/all,8/8/all,8/16/attention,8/16/mlp,8/16/qv", "rank/alpha/targets, ...")
    steps: int = option(220, "optimiser steps of each")
    batch: int = option(16, "samples a step")
    lr: float = option(2e-3, "peak rate of AdamW")
    limit: int | None = option(None, "training samples")
    samples: int = option(157, "validation utterances that each answers")
    seed: int = option(1, "of A and of the order of the samples")


PRESETS = {
    "smoke": ExperimentsConfig(cells="2/4/qv,4/8/all", steps=2, batch=2, limit=8, samples=2),
    "cpu": ExperimentsConfig(data="kwik-e-mart", steps=50, batch=8),
    "study": ExperimentsConfig(),
}


def parse_cells(text: str) -> list[tuple[int, float, str]]:
    """"8/16/all,2/4/qv" -> [(8, 16.0, "all"), (2, 4.0, "qv")].

    Raises:
        LabError: a cell that is not rank/alpha/targets.
    """
    cells = []
    for word in text.split(","):
        rank, _, rest = word.strip().partition("/")
        alpha, _, targets = rest.partition("/")
        try:
            cells.append((int(rank), float(alpha), targets))
        except ValueError:
            raise LabError(f"{word!r} is not rank/alpha/targets", "--cells 8/16/all,2/4/qv") from None
        if targets not in TARGETS:
            raise LabError(f"no targets are called {targets!r}", f"one of: {', '.join(TARGETS)}")
    return cells


def run_experiments(config: ExperimentsConfig, preset: str) -> None:
    """Train every cell from the same base on the same batches; a table and a figure."""
    cells = parse_cells(config.cells)
    base, tokenizer = load_placed(config.base)
    train = load_samples(tokenizer, config.data, "train", 600, config.limit)
    validation = load_samples(tokenizer, config.data, "validation", 600, config.samples)
    rows = []
    with start_run("stage2", "finetune", "experiments", config, preset, config.seed) as run:
        for rank, alpha, targets in cells:
            model = copy.deepcopy(base)
            torch.manual_seed(config.seed)
            lora.inject(model, rank, alpha, TARGETS[targets])
            row = {"rank": rank, "alpha": alpha, "targets": targets}
            row |= run_cell(config, model, tokenizer, train, validation)
            rows.append(row)
            write_json(run.dir / "cells.json", rows)
            name = f"rank {rank}, alpha {alpha:g}, {targets}"
            console.print(f"{name}: exact {row['exact']:.1%}, validation {row['val_loss']:.4f}", markup=False)
            run.metric(f"exact {name}", row["exact"], meaning=f"{row['asked']} validation utterances")
        show(rows)
        run.figure(draw(rows, run.dir / "cells.png"), "trainable parameters against exact match")


def run_cell(
    config: ExperimentsConfig, model: Any, tokenizer: Any, train: Samples, validation: Samples
) -> dict[str, float]:
    """One model with a fresh adapter: trained, counted and asked."""
    settings = dataclasses.replace(
        SftConfig(), steps=config.steps, batch=config.batch, lr=config.lr, seed=config.seed, eval_every=config.steps
    )
    done = HandTrainer(model, train.rows, validation.rows, settings, tokenizer.pad_token_id).train()
    utterances = evenly(data.load_understanding(config.data, "validation"), config.samples)
    scores = score(utterances, answer(model, tokenizer, utterances)[0])
    trainable, whole = parameter_count(model)
    return {
        "trainable": trainable, "share": trainable / whole, "training_mb": 16 * trainable / 1e6,
        "seconds": done.seconds, "val_loss": done.history[-1]["val_loss"],
        "exact": scores.mean("exact"), "intent": scores.mean("intent"), "asked": len(utterances),
    }  # fmt: skip


def show(rows: list[dict]) -> None:
    """The table. Sixteen bytes a trained number: itself, its gradient and AdamW's two, in float32."""
    table = Table(box=None, pad_edge=False)
    for heading in ("rank", "alpha", "targets", "trained", "share", "MB to train", "s", "val loss", "exact", "intent"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["rank"]), f"{row['alpha']:g}", row["targets"], f"{row['trainable']:,}", f"{row['share']:.2%}",
            f"{row['training_mb']:.0f}", f"{row['seconds']:.0f}", f"{row['val_loss']:.4f}", f"{row['exact']:.1%}",
            f"{row['intent']:.1%}",
        )  # fmt: skip
    console.print(table)


def draw(rows: list[dict], path: Path) -> Path:
    """Quality against trained parameters."""
    fig, axis = new_figure()
    axis.scatter([row["trainable"] for row in rows], [100 * row["exact"] for row in rows])
    for row in rows:
        axis.annotate(f"r{row['rank']} α{row['alpha']:g} {row['targets']}", (row["trainable"], 100 * row["exact"]),
                      textcoords="offset points", xytext=(4, 4), fontsize=8)  # fmt: skip
    axis.set(xscale="log", xlabel="trained parameters", ylabel="exact match, %", title="Rank, alpha, target modules")
    return save_figure(fig, path)
