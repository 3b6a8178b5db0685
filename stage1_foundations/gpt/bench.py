"""`bench`: this lab beside its peers, in one process; one JSON line each.

    time_to_loss   training time of the `modern` recipe to the final loss of nanoGPT's CPU recipe
    decode         tokens per second with SmolLM2's weights, here and in transformers.generate
    bpe            training a byte-level BPE, here and in the `tokenizers` library

Validation is outside the clock of both recipes; every cost of a step is inside.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import data
from labkit.cli import option
from labkit.device import choose_device
from labkit.files import write_json
from labkit.progress import error_console, progress
from labkit.runs import Run, start_run
from stage1_foundations.gpt.bench_bpe import bench_bpe
from stage1_foundations.gpt.compiled_decoder import CompiledDecoder
from stage1_foundations.gpt.corpus import load_corpus
from stage1_foundations.gpt.distributed import World
from stage1_foundations.gpt.pretrained import SMOLLM2, load_pretrained
from stage1_foundations.gpt.sampling import Sampling, generate_ids
from stage1_foundations.gpt.train_config import NANOGPT_CPU, TrainConfig
from stage1_foundations.gpt.training import new_trainer

# Modern parts at nanoGPT's CPU size, the schedule cut to the steps that reach its loss.
SPEED = TrainConfig(
    layers=4, heads=4, width=128, context=64, batch=24, steps=170, lr=0.01, matrix_lr=0.02, weight_decay=0.0,
    bigram=True, sample_every=0,
)  # fmt: skip
PROMPT = "The history of the city began when"


@dataclass(frozen=True)
class BenchConfig:
    """Which parts, and how often."""

    parts: str = option("all", "all, or one of them", ("all", "time_to_loss", "decode", "bpe"))
    data: str = option("tiny-shakespeare", "catalog name or a UTF-8 text file")
    seeds: int = option(3, "runs of each recipe")
    gpt2_steps: int = option(2000, "steps of nanoGPT's recipe")
    tokens: int = option(128, "tokens decoded")
    repeats: int = option(3, "decoding runs, the median counts")
    compile: bool = option(True, "decode by the compiled step, too (a minute to compile)")
    vocab_size: int = option(1024, "BPE vocabulary")
    threads: int = option(0, "CPU threads; 0 leaves torch's choice")


PRESETS = {
    "smoke": BenchConfig(seeds=1, gpt2_steps=20, tokens=8, repeats=1, compile=False, vocab_size=300),
    "cpu": BenchConfig(),
}
PRESETS["study"] = PRESETS["gpu"] = PRESETS["cpu"]


def run_bench(config: BenchConfig, preset: str) -> None:
    """Run the parts and print their lines."""
    if config.threads:
        torch.set_num_threads(config.threads)
    parts = {"time_to_loss": time_to_loss, "decode": decode, "bpe": bpe}
    with start_run("stage1", "gpt", "bench", config, preset=preset, seed=1) as run:
        rows = []
        for name, part in parts.items():
            if config.parts not in ("all", name):
                continue
            error_console.print(f"bench {name} ...", style="dim")
            row = {"bench": name, **part(config), "threads": torch.get_num_threads()}
            print(json.dumps(row), flush=True)
            rows.append(row)
        record(run, rows)


def time_to_loss(config: BenchConfig) -> dict:
    """Seconds and tokens of both recipes, for every seed."""
    runs = []
    for seed in range(1, config.seeds + 1):
        anchor = replace(NANOGPT_CPU, data=config.data, steps=config.gpt2_steps, seed=seed)
        gpt2 = train_to(anchor, target=None)
        modern = train_to(replace(SPEED, data=config.data, seed=seed), target=gpt2["loss"])
        runs.append({"seed": seed, "gpt2": gpt2, "modern": modern,
                     "speedup": gpt2["seconds"] / modern["seconds"] if modern["reached"] else None})  # fmt: skip
    ratios = [run["speedup"] for run in runs if run["speedup"]]
    return {
        "runs": runs,
        "all_reached": len(ratios) == len(runs),
        "speedup_mean": statistics.mean(ratios) if ratios else None,
        "speedup_range": [min(ratios), max(ratios)] if ratios else None,
    }


def train_to(config: TrainConfig, target: float | None) -> dict:
    """Train to the end of the schedule, or until the validation loss is at most `target`."""
    trainer = new_trainer(config, World(), choose_device("auto"))
    loss, reached = float("nan"), False
    with progress(total=config.steps, description=f"{config.shape}, seed {config.seed}") as bar:
        while not reached and trainer.step_number < config.steps:
            trainer.step()
            bar.advance()
            last = trainer.step_number == config.steps
            if last or (target is not None and trainer.step_number % 10 == 0):
                loss = trainer.validate()
                reached = target is not None and loss <= target
    return {
        "loss": loss, "reached": reached or target is None, "seconds": round(trainer.seconds, 3),
        "steps": trainer.step_number, "tokens": trainer.step_number * config.batch * config.context,
        "parameters": trainer.model.parameter_count(),
    }  # fmt: skip


@torch.inference_mode()
def decode(config: BenchConfig) -> dict:
    """Greedy tokens per second at batch 1 in bfloat16: the same prompt, weights, dtype and number of tokens."""
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16
    ours, tokenizer = load_pretrained(SMOLLM2, dtype, context=1024)
    theirs = AutoModelForCausalLM.from_pretrained(data.fetch(SMOLLM2), dtype=dtype).eval()
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    greedy = Sampling(tokens=config.tokens, temperature=0)

    def by_transformers() -> Tensor:
        ids = theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=config.tokens,
            min_new_tokens=config.tokens,
        )  # fmt: skip
        return ids[:, prompt.shape[1] :]

    def by_ours(decoder: CompiledDecoder | None = None) -> Tensor:
        return torch.cat(list(generate_ids(ours, prompt, greedy, decoder)), dim=1)

    calls = {"eager": by_ours, "transformers": by_transformers}
    if config.compile:
        decoder = CompiledDecoder(ours, prompt.shape[1] + config.tokens)
        calls["compiled"] = lambda: by_ours(decoder)
    warm_up = {name: clock(call)[0] for name, call in calls.items()}
    timed = {name: [] for name in calls}
    for _ in range(config.repeats):  # taking turns, so that a slower minute of the machine hits all of them
        for name, call in calls.items():
            timed[name].append(clock(call))
    speeds = {name: [config.tokens / seconds for seconds, _ in runs] for name, runs in timed.items()}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    best = "compiled" if config.compile else "eager"
    return {
        "tokens_per_second": medians,
        "all": speeds,
        "speedup": medians[best] / medians["transformers"],
        "speedup_of": best,
        "compile_seconds": round(warm_up.get("compiled", 0.0), 1),
        "same_tokens_as_transformers": share_equal(timed[best][0][1], timed["transformers"][0][1]),
        "dtype": "bfloat16",
    }


def clock(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def share_equal(ours: Tensor, theirs: Tensor) -> float:
    """Share of the tokens before the first difference: greedy texts part for good once they part."""
    different = (ours != theirs)[0].nonzero()
    return 1.0 if not len(different) else int(different[0]) / ours.shape[1]


def bpe(config: BenchConfig) -> dict:
    """BPE training and encoding, and whether the merges are equal."""
    return bench_bpe(load_corpus(config.data).text, config.vocab_size)


def record(run: Run, rows: list[dict]) -> None:
    """The lines as a file, and the bars as metrics."""
    write_json(run.dir / "bench.json", rows)
    run.artefact("bench.json", kind="results")
    for row in rows:
        if row["bench"] == "time_to_loss" and row["speedup_mean"]:
            run.metric("time_to_loss_speedup", row["speedup_mean"], "x", (4.0, None), "modern against nanoGPT's recipe")
        if row["bench"] == "decode":
            run.metric("decode_speedup", row["speedup"], "x", (2.0, None), "against transformers.generate")
            speed = row["tokens_per_second"][row["speedup_of"]]
            run.metric("decode_tokens_per_second", speed, "tokens/s", meaning="SmolLM2")
