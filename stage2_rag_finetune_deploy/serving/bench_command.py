"""`bench`: the same ragged requests by transformers' generate in batches, by the mini engine and by vLLM, in one run.

The same in all three: checkpoint, dtype, prompts (random ids, so that no prefix is shared), lengths of the answers
(nobody stops early), greedy decoding, cores. Useful tokens a second count the tokens that were asked for; what a static
batch computes beyond them, while it waits for its longest answer, is not counted. Loading and a warm-up are not timed.
"""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

import data
from labkit.cli import option, require_at_least
from labkit.device import choose_dtype
from labkit.errors import LabError
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from labkit.side_environment import SERVE
from stage2_rag_finetune_deploy.serving.checkpoint_folder import check_checkpoint
from stage2_rag_finetune_deploy.serving.mini_engine import LLM, SamplingParams
from stage2_rag_finetune_deploy.serving.mini_engine.simulation import Lengths, ragged_lengths, simulate
from stage2_rag_finetune_deploy.serving.serve_command import BASE
from stage2_rag_finetune_deploy.serving.vllm_command import Serving, cpu_variables, dtype_name

PROG = "python -m stage2_rag_finetune_deploy.serving"
STATIC_BAR, VLLM_BAR = 2.5, 0.7  # times transformers in batches of 8, times vLLM
STATIC, MINI, VLLM = "transformers, batches", "mini engine", "vLLM"


@dataclass(frozen=True)
class BenchConfig:
    """Options of `bench`."""

    model: Path | None = option(None, "a checkpoint folder; none is SmolLM2-135M-Instruct")
    requests: int = option(32, "requests: prompts of 16 to 128 tokens, answers of 16 to 192")
    batch: int = option(8, "of transformers' generate")
    max_num_seqs: int = option(32, "requests at once in the engines")
    rounds: int = option(1, "each engine so many times, in turns; the median counts")
    vllm: bool = option(True, "vLLM as well, where `make setup-serve` made its environment")
    dtype: str = option("auto", "of the weights", choices=("auto", "bf16", "fp32"))
    attention: str = option("auto", "of the mini engine", choices=("auto", "kernel", "gather"))
    seed: int = option(1, "of prompts and lengths")


PRESETS = {
    "smoke": BenchConfig(requests=4, batch=2, max_num_seqs=4, vllm=False),
    "cpu": BenchConfig(),
    "study": BenchConfig(rounds=3),
}


@dataclass(frozen=True)
class Workload:
    """Prompts as token ids, and how long each answer is."""

    model: Path
    prompts: list[list[int]]
    answers: list[int]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and the longest answer together."""
        return max(map(len, self.prompts)) + max(self.answers)


@dataclass(frozen=True)
class Timing:
    """What one engine did: its seconds, and the answers."""

    seconds: float
    tokens: list[list[int]]


def make_workload(folder: Path, lengths: list[Lengths], seed: int) -> Workload:
    """Random ids of the model's vocabulary, without the first thousand: among them are the special ones."""
    vocabulary = check_checkpoint(folder)["vocab_size"]
    draw = np.random.default_rng(seed)
    first = min(1000, vocabulary // 2)
    prompts = [draw.integers(first, vocabulary, each.prompt).tolist() for each in lengths]
    return Workload(folder, prompts, [each.answer for each in lengths])


def time_static(work: Workload, config: BenchConfig, on_answer: Callable[[int], None]) -> Timing:
    """transformers' generate: batches in the order of arrival, padded on the left, each to its longest answer."""
    from stage2_rag_finetune_deploy.finetune.base_model import load_base

    model, _ = load_base(work.model, choose_dtype(config.dtype, "cpu"))
    tokens: list[list[int]] = []

    def generate(prompts: list[list[int]], longest: int) -> torch.Tensor:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts])
        limits = {"max_new_tokens": longest, "min_new_tokens": longest, "pad_token_id": 0}
        return model.generate(ids, attention_mask=mask, do_sample=False, **limits)[:, width:]

    with torch.inference_mode():
        generate(work.prompts[:1], 2)
        started = time.perf_counter()
        for first in range(0, len(work.prompts), config.batch):
            some = slice(first, first + config.batch)
            answers = work.answers[some]
            out = generate(work.prompts[some], max(answers)).tolist()
            tokens += [row[:length] for row, length in zip(out, answers, strict=True)]
            on_answer(len(answers))
    return Timing(time.perf_counter() - started, tokens)


def time_mini(work: Workload, config: BenchConfig, on_answer: Callable[[int], None]) -> Timing:
    """The engine by hand."""
    llm = LLM(work.model, dtype=config.dtype, device="cpu", attention=config.attention,
              max_model_len=work.longest, max_num_seqs=config.max_num_seqs)  # fmt: skip
    llm.engine.warm_up()
    params = [SamplingParams(temperature=0, max_tokens=each, ignore_eos=True) for each in work.answers]
    started = time.perf_counter()
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in work.prompts], params)
    seconds = time.perf_counter() - started
    on_answer(len(outputs))
    return Timing(seconds, [output.outputs[0].token_ids for output in outputs])


def time_vllm(work: Workload, config: BenchConfig, on_answer: Callable[[int], None], folder: Path) -> Timing:
    """vLLM in its own environment, on the same cores.

    Raises:
        LabError: it ended with an error; the reason is its last line that names one.
    """
    asked = {
        "model": str(work.model), "dtype": dtype_name(config.dtype, True), "max_num_seqs": config.max_num_seqs,
        "max_model_len": work.longest, "prompts": work.prompts, "answers": work.answers,
    }  # fmt: skip
    question, answer = folder / "vllm-workload.json", folder / "vllm-result.json"
    question.write_text(json.dumps(asked), encoding="utf-8")
    env = SERVE.variables(VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="WARNING",
                          **cpu_variables(Serving(work.model, {}, "model")))  # fmt: skip
    script = Path(__file__).with_name("bench_vllm.py")
    done = subprocess.run(
        [SERVE.folder() / "bin" / "python", script, question, answer], env=env, capture_output=True, text=True
    )
    (folder / "vllm.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        named = [line for line in done.stderr.splitlines() if "Error" in line] or [f"exit code {done.returncode}"]
        raise LabError(f"vLLM stopped: {named[-1][:200]}", f"the whole log: {folder / 'vllm.log'}")
    result = json.loads(answer.read_text(encoding="utf-8"))
    on_answer(len(work.answers))
    return Timing(result["seconds"], result["tokens"])


def check_answers(name: str, timing: Timing, work: Workload) -> None:
    """A speed counts only for answers of the length that was asked for.

    Raises:
        LabError: another number of answers, or another length.
    """
    lengths = [len(each) for each in timing.tokens]
    if lengths != work.answers:
        raise LabError(f"{name} gave other lengths than asked for", "the versions of requirements/")


def run_bench(config: BenchConfig, preset: str) -> None:
    """Time the engines in turns; table, ratios, report."""
    require_at_least(config, 1, "requests", "batch", "max_num_seqs", "rounds")
    folder = config.model or data.fetch(BASE)
    lengths = ragged_lengths(config.requests, config.seed)
    work = make_workload(Path(folder), lengths, config.seed)
    with start_run("stage2", "serving", "bench", config, preset, config.seed) as run:
        sides: dict[str, Callable[..., Timing]] = {STATIC: time_static, MINI: time_mini}
        if config.vllm and SERVE.ready():
            sides[VLLM] = lambda *words: time_vllm(*words, run.dir)
        timings: dict[str, list[Timing]] = {name: [] for name in sides}
        with progress(total=config.rounds * len(sides) * config.requests, description="answers") as bar:
            for _ in range(config.rounds):
                for name, side in sides.items():
                    bar.note(name)
                    timings[name].append(side(work, config, bar.advance))
                    check_answers(name, timings[name][-1], work)
        show(run, timings, work, config, lengths)
        if VLLM not in sides and config.vllm:
            console.print("left out: vLLM is not there (make setup-serve)", markup=False, style="dim")
        run.next(f"{PROG} compare")


def show(
    run: Run, timings: dict[str, list[Timing]], work: Workload, config: BenchConfig, lengths: list[Lengths]
) -> None:
    """The table, and its figures in the report."""
    useful = sum(work.answers)
    speeds = {name: useful / float(np.median([each.seconds for each in some])) for name, some in timings.items()}
    table = Table(box=None, pad_edge=False)
    for heading in ("", "tokens/s", "slowest", "fastest", "same tokens as the mini engine"):
        table.add_column(heading, justify="right" if heading else "left")
    mini = timings[MINI][0].tokens
    for name, some in timings.items():
        rates = sorted(useful / each.seconds for each in some)
        same = sum(a == b for a, b in zip(some[0].tokens, mini, strict=True))
        agree = "" if name == MINI else f"{same} of {len(mini)} answers"
        table.add_row(name, f"{speeds[name]:.0f}", f"{rates[0]:.0f}", f"{rates[-1]:.0f}", agree)
        label = {STATIC: "transformers", MINI: "mini", VLLM: "vllm"}[name]
        meaning = "useful tokens, median of the rounds"
        run.metric(f"tokens_per_second_{label}", speeds[name], unit="tokens/s", meaning=meaning)
    console.print(table)
    judged = (config.model, config.requests, config.batch) == (None, 32, 8)
    lines = [ratio(run, speeds, STATIC, STATIC_BAR, judged)]
    lines += [ratio(run, speeds, VLLM, VLLM_BAR, judged)] if VLLM in speeds else []
    played = {static: simulate(lengths, max_num_seqs=config.batch, static=static)[1] for static in (True, False)}
    steps = {static: scheduler.counters.steps for static, scheduler in played.items()}
    run.metric("steps_static", steps[True], meaning=f"forward passes, static batches of {config.batch}")
    run.metric("steps_continuous", steps[False], band=(None, steps[True] - 1) if judged else None,
               meaning=f"forward passes, {config.batch} places filled continuously")  # fmt: skip
    lines.append(f"forward passes with {config.batch} places: {steps[True]} static, {steps[False]} continuous")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    run.learnt(f"Serving: {lines[0]}; {lines[-1]}.")


def ratio(run: Run, speeds: dict[str, float], other: str, bar: float, judged: bool) -> str:
    """Record the mini engine's speed as a multiple of another's, and say it."""
    value = speeds[MINI] / speeds[other]
    label = "vllm" if other == VLLM else "transformers"
    run.metric(f"ratio_{label}", value, band=(bar, None) if judged else None, meaning=f"mini engine / {other}")
    return f"the mini engine does {value:.2f} times the useful tokens/s of {other} (bar {bar:g})"
