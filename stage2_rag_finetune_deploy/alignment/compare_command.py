"""`compare`: SFT, DPO and GRPO from the same start, on the same questions, with several seeds.

    base --warm-up (SFT on a few questions)--> start --+-- SFT   (the right answers)
                                                       +-- DPO   (the right answers, and the start's own mistakes)
                                                       +-- GRPO  (a verifier's word on its own answers)

A seed draws the questions, their order, the adapter and every sample. "Better" is said of a gain over the start whose
95 % interval over the seeds does not contain 0 (Student's t over the seeds' gains).
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from labkit.cli import option
from labkit.errors import LabError
from labkit.files import write_json
from labkit.plots import COLOURS, new_figure, save_figure
from labkit.progress import console
from labkit.runs import start_run
from labkit.timing import peak_memory_mb
from stage1_foundations.embeddings.bootstrap import over_repetitions
from stage2_rag_finetune_deploy.alignment.measure import greedy_scores, measure
from stage2_rag_finetune_deploy.alignment.script import ScriptConfig, Train, step_bar
from stage2_rag_finetune_deploy.alignment.script_commands import WARM_UP
from stage2_rag_finetune_deploy.alignment.tasks import Item, Task, load_task
from stage2_rag_finetune_deploy.alignment.train_dpo import DpoConfig, train_dpo
from stage2_rag_finetune_deploy.alignment.train_grpo import GrpoConfig, train_grpo
from stage2_rag_finetune_deploy.alignment.train_sft import SftConfig, train_sft
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.base_model import load_placed
from stage2_rag_finetune_deploy.finetune.forgetting import perplexity

METHODS: dict[str, tuple[Train, ScriptConfig]] = {
    "sft": (train_sft, SftConfig()), "dpo": (train_dpo, DpoConfig()), "grpo": (train_grpo, GrpoConfig()),
}  # fmt: skip

LEGEND = (
    "right: the most probable answer; reward: sampled answers; seeds: lowest and highest; KL: how far from the start, "
    "nats an answer; alike: questions whose samples all score the same; length: tokens of an answer; cut: not ended at "
    "the limit; 2nd task: nobody trained it; text: WikiText-2 perplexity over the base's; s: all of a method's training"
)


@dataclass(frozen=True)
class CompareConfig:
    """Options of `compare`."""

    task: str = option("chain_sum", "a task of reasoning-gym")
    other: str = option("letter_counting", "a second task, that nothing is trained on")
    methods: str = option("sft,dpo,grpo", "which of sft, dpo, grpo")
    seeds: str = option("1", "with commas; three for an interval")
    warm_up: int = option(96, "questions of the warm-up")
    questions: int = option(512, "further questions, the same for all methods")
    steps: int = option(64, "optimiser steps of each method")
    batch: int = option(8, "questions a step")
    test: int = option(128, "test questions")
    forget_tokens: int = option(8192, "WikiText-2 tokens for the perplexity")
    device: str = option("auto", "auto, cpu, cuda, mps")


PRESETS = {
    "smoke": CompareConfig(seeds="1", warm_up=8, questions=8, steps=2, batch=4, test=4, forget_tokens=512),
    "cpu": CompareConfig(warm_up=80, questions=32, steps=8, batch=4, test=16, forget_tokens=512),
    "study": CompareConfig(seeds="1,2,3"),
}


def run_compare(config: CompareConfig, preset: str) -> None:
    """All methods with all seeds: a table of means and intervals, and a figure."""
    seeds, methods = parse_seeds(config.seeds), parse_methods(config.methods)
    task, other = load_task(config.task), load_task(config.other)
    rows: list[dict[str, Any]] = []
    with start_run("stage2", "alignment", "compare", config, preset, seeds[0]) as run:
        for seed in seeds:
            for row in run_seed(config, seed, methods, task, other):
                rows.append(row)
                write_json(run.dir / "rows.json", rows)
                console.print(line(row), markup=False, soft_wrap=True)
        show(rows)
        for method in methods:
            found = over_repetitions([row["reward_gain"] for row in rows if row["method"] == method])
            band = (0.15, None) if method == "grpo" and config == PRESETS["study"] else None
            run.metric(f"reward_gain {method}", found.difference, band=band,
                       meaning=f"over the start; seeds {config.seeds}")  # fmt: skip
            interval, seen = "one seed: no interval", "one seed, this may be chance (study: three)"
            if len(seeds) > 1:
                run.metric(f"reward_p {method}", found.p, meaning="t test of the seeds' gains against 0")
                seen = f"seeds {config.seeds}"
                interval = f"{found.low:+.3f} to {found.high:+.3f}, p = {found.p:.2g}"
            console.print(f"{method:<5} reward {found.difference:+.3f} over the start ({interval})", markup=False)
            run.learnt(f"{method.upper()}: reward {found.difference:+.2f} over the start; {seen}.")
        run.figure(draw(rows, run.dir / "compare.png"), "learning curves, and reward against KL")
        run.next("make milestones")


def run_seed(
    config: CompareConfig, seed: int, methods: list[str], task: Task, other: Task
) -> list[dict[str, Any]]:
    """The warm-up and every method: one row each."""
    model, tokenizer = load_placed(None, config.device)
    items, test = task.train(config.warm_up + config.questions, seed), task.test(config.test)
    second = other.test(config.test)

    def row(method: str, seconds: float, history: list[dict[str, float]]) -> dict[str, Any]:
        figures = measure(model, tokenizer, task, test, seed).as_dict()
        figures["other"] = float(np.mean(greedy_scores(model, tokenizer, other, second)))
        figures["perplexity"] = perplexity(model, tokenizer, config.forget_tokens)
        return {"method": method, "seed": seed, "seconds": seconds, "peak_memory_mb": peak_memory_mb(),
                "history": history, **figures}  # fmt: skip

    rows = [row("base", 0.0, [])]
    warm = replace(WARM_UP, seed=seed, questions=config.warm_up, batch=config.batch,
                   steps=max(1, config.warm_up // config.batch))  # fmt: skip
    done = train(train_sft, "warm-up", model, tokenizer, task, items[: config.warm_up], warm)
    lora.unload(model)
    rows.append(start := row("start", done["seconds"], done["history"]))
    for method in methods:
        script, settings = METHODS[method]
        settings = replace(settings, seed=seed, questions=config.questions, steps=config.steps, batch=config.batch)
        done = train(script, method, model, tokenizer, task, items[config.warm_up :], settings)
        rows.append(row(method, done["seconds"], done["history"]))
        rows[-1]["reward_gain"] = rows[-1]["reward"] - start["reward"]
        lora.strip(model)
    for each in rows:
        each["perplexity_ratio"] = each["perplexity"] / rows[0]["perplexity"]
    return rows


def train(
    script: Train, name: str, model: Any, tokenizer: Any, task: Task, items: list[Item], settings: ScriptConfig
) -> dict[str, Any]:
    """One script with a progress line: seconds of everything in it, and its history."""
    started = time.perf_counter()
    with step_bar(settings.steps, f"{name}, seed {settings.seed}") as on_step:
        done = script(model, tokenizer, task, items, settings, None, on_step)
    return {"seconds": time.perf_counter() - started, "history": done.history}


def parse_seeds(text: str) -> list[int]:
    """"1,2,3" -> [1, 2, 3].

    Raises:
        LabError: not a list of whole numbers from 1 on.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise LabError(f"--seeds {text!r} is no list of numbers from 1 on", "--seeds 1,2,3")
    return [int(word) for word in words]


def parse_methods(text: str) -> list[str]:
    """"sft,grpo" -> ["sft", "grpo"].

    Raises:
        LabError: an unknown one.
    """
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in METHODS]:
        raise LabError(f"no method is called {unknown[0]!r}", f"--methods {','.join(METHODS)}")
    return words


def line(row: dict[str, Any]) -> str:
    """One model of one seed."""
    return (f"seed {row['seed']}  {row['method']:<6} right {row['right']:.1%}  reward {row['reward']:.3f}  "
            f"KL {row['kl']:.2f}  {row['seconds']:.0f} s")  # fmt: skip


def show(rows: list[dict[str, Any]]) -> None:
    """Means over the seeds."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    for heading in ("right", "reward", "seeds", "KL", "alike", "length", "cut", "2nd task", "text", "s"):
        table.add_column(heading, justify="right")
    for method in dict.fromkeys(row["method"] for row in rows):
        chosen = [row for row in rows if row["method"] == method]
        mean = {key: np.mean([row[key] for row in chosen]) for key in chosen[0] if isinstance(chosen[0][key], float)}
        rewards = [row["reward"] for row in chosen]
        table.add_row(
            method, f"{mean['right']:.1%}", f"{mean['reward']:.3f}", f"{min(rewards):.2f}-{max(rewards):.2f}",
            f"{mean['kl']:.2f}", f"{mean['alike']:.0%}", f"{mean['length']:.1f}", f"{mean['truncated']:.0%}",
            f"{mean['other']:.1%}", f"{mean['perplexity_ratio']:.3f}x", f"{mean['seconds']:.0f}",
        )  # fmt: skip
    console.print(table)
    console.print(LEGEND, style="dim", markup=False)


def smooth(values: list[float], width: int = 8) -> np.ndarray:
    """Running mean over up to `width` values: a step asks eight questions, and some are easy."""
    return np.array([np.mean(values[max(0, place + 1 - width) : place + 1]) for place in range(len(values))])


def draw(rows: list[dict[str, Any]], path: Path) -> Path:
    """Left: GRPO's reward step by step. Right: what was won against how far the model went."""
    fig, (left, right) = new_figure(1, 2, width=10.0, height=3.8)
    colours = dict(zip(("base", "start", *METHODS), ("#666666", *COLOURS), strict=False))
    for number, row in enumerate(row for row in rows if row["method"] == "grpo"):
        history, label = row["history"], number == 0
        steps = [each["step"] for each in history]
        left.plot(steps, smooth([each["reward"] for each in history]), color=colours["grpo"],
                  label="reward of the sampled answers" if label else None)  # fmt: skip
        left.plot(steps, smooth([each["frac_reward_zero_std"] for each in history]), ":", color="#888888",
                  label="groups that are all alike" if label else None)  # fmt: skip
    left.set(xlabel="optimiser steps", ylabel="share, mean of 8 steps", ylim=(0, 1), title="GRPO, one line a seed")
    if left.lines:
        left.legend()
    for method in dict.fromkeys(row["method"] for row in rows):
        chosen = [row for row in rows if row["method"] == method]
        kls, rewards = [row["kl"] for row in chosen], [row["reward"] for row in chosen]
        right.scatter(kls, rewards, color=colours[method], label=method)
    right.set(xlabel="KL to the start, nats an answer", ylabel="reward on test questions", title="Won, and how far")
    right.legend()
    return save_figure(fig, path)
