"""`bench`: a step of GRPO here beside a step of TRL's GRPOTrainer, and where both spend their time.

The same in both: model, shape of the adapter, questions, answers a question and tokens an answer (no answer ends before
it has them all), threads, one optimiser step on each batch. Before a ratio is given, both have to have seen the same
number of tokens.

TRL 1.16 samples with transformers' `generate`, as it does without vLLM, and is given the number format in which it is
fastest. 8 questions x 8 answers x 12 tokens, one core (AMD EPYC, AVX512-BF16), two steps each, 2026-11-25, shared:

    --trl-dtype       s a step    peak memory
    fp32              64, 66      13.5 GB
    bf16              35, 55      10.5 GB        float32 adapter, as PEFT makes it
    bf16-adapter      32, 34      9.0 GB         with fused attention 19 % slower (half the batch)

Why it takes longer: every answer takes its own copy of the prompt through sampling, forward and backward; without a GPU
TRL's fused head scores the prompts' positions, too; and while sampling, a frozen head over (B, 1, C) is multiplied as
B heads (finetune/NOTES.md). With Triton and vLLM two of the three are gone: the ratio is one for processors.
"""

import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from labkit.cli import option, require_at_least
from labkit.errors import LabError
from labkit.progress import console, progress
from labkit.runs import Run, start_run
from labkit.timing import peak_memory_mb
from stage2_rag_finetune_deploy.alignment.script import PROG
from stage2_rag_finetune_deploy.alignment.tasks import Item, VerifiableTask
from stage2_rag_finetune_deploy.alignment.train_grpo import GrpoConfig, train_grpo
from stage2_rag_finetune_deploy.finetune.base_model import load_base, load_placed
from stage2_rag_finetune_deploy.finetune.sft_config import TARGETS

BAR = 3.0  # times TRL's steps a second
# What a phase is called, and the functions that make it up; none of them calls another one of the list.
PHASES = {
    "sampling": (("rollout.py", "sample_groups"), ("grpo_trainer.py", "_generate_single_turn")),
    "forward": (("logprobs.py", "completion_logprobs"), ("grpo_trainer.py", "_compute_loss")),
    "backward": (("graph.py", "_engine_run_backward"),),
}


@dataclass(frozen=True)
class BenchConfig:
    """Options of `bench`."""

    model: Path | None = option(None, "folder of a model; none is SmolLM2-135M-Instruct")
    task: str = option("chain_sum", "a task of reasoning-gym")
    steps: int = option(3, "timed steps a round; one more goes before them and one after them, for the profile")
    rounds: int = option(1, "rounds, each first here and then with TRL")
    batch: int = option(4, "questions a step")
    group: int = option(8, "answers a question")
    tokens: int = option(12, "tokens an answer")
    rank: int = option(8, "width of the adapter's detour")
    alpha: float = option(16.0, "the detour counts alpha / rank times")
    dtype: str = option("auto", "of the frozen weights here", ("auto", "fp32", "bf16"))
    trl_dtype: str = option("bf16-adapter", "of TRL's weights: all in float32, frozen ones in bfloat16, adapter too",
                            ("fp32", "bf16", "bf16-adapter"))  # fmt: skip
    seed: int = option(1, "of questions and answers")


PRESETS = {
    "smoke": BenchConfig(steps=1, rounds=1, batch=2, group=2, tokens=4),
    "cpu": BenchConfig(),
    "study": BenchConfig(steps=6, rounds=2, batch=8),
}


@dataclass
class Timing:
    """What one side did.

    Attributes:
        seconds: of each timed step.
        tokens: of prompts and answers in all steps, a prompt counted once for each of its answers.
        phases: seconds of one more step, by phase; what is in no phase is "all else".
        memory: the process's peak after the side's last step, in MB.
    """

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    memory: float = 0.0

    @property
    def middle(self) -> float:
        """The median step."""
        return statistics.median(self.seconds)


class Stopwatch:
    """Called at the end of every step: the first is not counted, then come timed ones, the last is profiled."""

    def __init__(self, timing: Timing, steps: int, on_step: Callable[[], None]) -> None:
        self.timing, self.steps, self.on_step, self.done = timing, steps, on_step, 0
        self.profile, self.last = cProfile.Profile(), 0.0

    def __call__(self, *_: Any) -> None:
        now = time.perf_counter()
        if 0 < self.done <= self.steps:
            self.timing.seconds.append(now - self.last)
        elif self.done == self.steps + 1:
            self.profile.disable()
            self.timing.phases = phases_of(self.profile, now - self.last)
        self.done += 1
        self.on_step()
        self.last = time.perf_counter()
        if self.done == self.steps + 1:
            self.profile.enable()


def phases_of(profile: cProfile.Profile, seconds: float) -> dict[str, float]:
    """Seconds spent inside the functions of each phase, and the rest of `seconds`."""
    found = dict.fromkeys(PHASES, 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():
        for phase, functions in PHASES.items():
            if (Path(file).name, function) in functions:
                found[phase] += cumulative
    return found | {"all else": seconds - sum(found.values())}


class Endless:
    """A tokenizer whose end of turn is a token that no model draws: every answer has the full length."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.eos_token_id = tokenizer, -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, *words: Any, **options: Any) -> Any:
        return self.tokenizer(*words, **options)


def time_ours(
    timing: Timing, task: VerifiableTask, items: Sequence[Item], config: BenchConfig, on_step: Callable[[], None]
) -> None:
    """A round of train_grpo.py's own loop."""
    model, tokenizer = load_placed(config.model, "cpu", config.dtype)
    model.train()
    settings = GrpoConfig(
        steps=config.steps + 2, batch=config.batch, group=config.group, rank=config.rank, alpha=config.alpha,
        seed=config.seed, test=0, save_every=config.steps + 3,
    )  # fmt: skip
    watch = Stopwatch(timing, config.steps, on_step)
    progress_made = train_grpo(model, Endless(tokenizer), task, items, settings, None, watch)
    # its own count has a prompt once a step, as that is how often it runs
    answers = len(items) * config.group * config.tokens
    timing.tokens += (progress_made.tokens - answers) * config.group + answers
    timing.memory = peak_memory_mb()


def time_trl(
    timing: Timing, task: VerifiableTask, items: Sequence[Item], config: BenchConfig, on_step: Callable[[], None]
) -> None:
    """A round of TRL's trainer."""
    from transformers import TrainerCallback

    watch = Stopwatch(timing, config.steps, on_step)

    class Follow(TrainerCallback):
        """The stopwatch."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch()

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trl_trainer(task, items, config, Path(folder))
        trainer.add_callback(Follow())
        trainer.train()
    timing.tokens += int(max(entry.get("num_tokens", 0) for entry in trainer.state.log_history))
    timing.memory = peak_memory_mb()


def make_trl_trainer(task: VerifiableTask, items: Sequence[Item], config: BenchConfig, folder: Path) -> Any:
    """A GRPOTrainer over PEFT's LoRA: the questions in their order, each batch one optimiser step."""
    import datasets
    from peft import LoraConfig, get_peft_model
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    datasets.disable_progress_bars()
    model, tokenizer = load_base(config.model, torch.float32 if config.trl_dtype == "fp32" else torch.bfloat16)
    if config.trl_dtype != "fp32":
        model.set_attn_implementation("eager")  # as here: faster in bfloat16
    adapter = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, task_type="CAUSAL_LM", target_modules=list(TARGETS["all"])
    )
    by_prompt = {item.messages[-1]["content"]: item for item in items}

    def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        return [
            task.score(by_prompt[prompt[-1]["content"]], completion[-1]["content"])
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    settings = GRPOConfig(
        output_dir=str(folder), max_steps=config.steps + 2, per_device_train_batch_size=config.batch * config.group,
        num_generations=config.group, max_completion_length=config.tokens, shuffle_dataset=False,
        generation_kwargs={"min_new_tokens": config.tokens}, learning_rate=GrpoConfig.lr, beta=0.0, bf16=False,
        use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none", logging_steps=1,
        disable_tqdm=True, log_level="error", dataloader_num_workers=0, dataloader_pin_memory=False, seed=config.seed,
    )  # fmt: skip
    trainer = GRPOTrainer(
        get_peft_model(model, adapter, autocast_adapter_dtype=config.trl_dtype != "bf16-adapter"), reward, settings,
        datasets.Dataset.from_list([{"prompt": item.messages} for item in items]), processing_class=tokenizer,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def same_work(ours: Timing, theirs: Timing) -> None:
    """Compare only what can be compared.

    Raises:
        LabError: the two did not see the same number of tokens.
    """
    if ours.tokens != theirs.tokens:
        raise LabError(f"not the same work: {ours.tokens:,} tokens here, {theirs.tokens:,} with TRL",
                       "the versions of requirements/main.txt")  # fmt: skip


def run_bench(config: BenchConfig, preset: str) -> None:
    """Time both, in turns, and print steps a second, their ratio and the phases."""
    require_at_least(config, 1, "steps", "rounds", "batch", "tokens", "rank")
    require_at_least(config, 2, "group")
    task = VerifiableTask(config.task)
    task.new_tokens = config.tokens
    items = task.train((config.steps + 2) * config.batch, config.seed)
    sides: dict[str, Timing] = {"here": Timing(), "TRL": Timing()}
    with start_run("stage2", "alignment", "bench", config, preset, config.seed) as run:
        console.print(f"{config.batch} questions x {config.group} answers x {config.tokens} tokens a step; "
                      f"{torch.get_num_threads()} threads", markup=False, soft_wrap=True)  # fmt: skip
        with progress(total=2 * config.rounds * (config.steps + 2), description="steps") as bar:
            for _ in range(config.rounds):
                time_ours(sides["here"], task, items, config, bar.advance)
                time_trl(sides["TRL"], task, items, config, bar.advance)
        same_work(*sides.values())
        show(run, sides, config == PRESETS["cpu"])
        run.next(f"{PROG} compare")


def show(run: Run, sides: Mapping[str, Timing], judged: bool) -> None:
    """The table, and its figures in the report.

    Args:
        judged: the bar holds for these options.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("", "s a step", "steps a minute", "fastest", "slowest", *PHASES, "all else"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, timing in sides.items():
        table.add_row(
            name, f"{timing.middle:.2f}", f"{60 / timing.middle:.1f}", f"{min(timing.seconds):.2f}",
            f"{max(timing.seconds):.2f}", *(f"{timing.phases[each]:.2f}" for each in (*PHASES, "all else")),
        )  # fmt: skip
        label = name.lower()
        run.metric(f"step_seconds_{label}", timing.middle, unit="s", meaning="median of the timed steps")
        run.metric(f"peak_memory_{label}", timing.memory, unit="MB", meaning="of the process so far; here comes first")
    ours, theirs = sides.values()
    ratio = theirs.middle / ours.middle
    run.metric("ratio", ratio, band=(BAR, None) if judged else None, meaning="steps a second, here / TRL")
    run.learnt(f"GRPO: {ratio:.1f} times TRL's steps a second on this processor, with the same answers.")
    console.print(table)
    console.print(f"{ratio:.2f} times TRL's steps a second (bar {BAR:g}); {ours.tokens:,} tokens on each side, "
                  "a prompt counted once an answer", markup=False, soft_wrap=True)  # fmt: skip
