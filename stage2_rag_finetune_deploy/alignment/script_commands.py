"""The commands `warm-up`, `sft`, `dpo` and `grpo`: a script, its presets, and what it reports besides."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit.progress import console
from labkit.runs import Run
from stage2_rag_finetune_deploy.alignment.pairs import make_pairs
from stage2_rag_finetune_deploy.alignment.script import PROG, run_script, start_folder
from stage2_rag_finetune_deploy.alignment.tasks import Task
from stage2_rag_finetune_deploy.alignment.train_dpo import DpoConfig, preference_accuracy, train_dpo
from stage2_rag_finetune_deploy.alignment.train_grpo import GrpoConfig, train_grpo
from stage2_rag_finetune_deploy.alignment.train_sft import SftConfig, train_sft
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.base_model import RANDOM_7B

SMALL: dict[str, Any] = {"questions": 4, "steps": 2, "batch": 2, "warmup": 1, "save_every": 1, "test": 2,
                         "forget_tokens": 0}  # fmt: skip
LONG: dict[str, Any] = {"questions": 768, "steps": 96, "forget_tokens": 65536}
LARGE: dict[str, Any] = {"start": Path(RANDOM_7B), "four_bit": True, "device": "cuda", "dtype": "bf16", "rank": 16,
                         "alpha": 32.0}  # fmt: skip
WARM_UP = SftConfig(questions=96, steps=12, lr=1e-3)
WARM_UP_PRESETS = {"smoke": replace(WARM_UP, **SMALL), "cpu": WARM_UP, "gpu": replace(WARM_UP, **LARGE, lr=2e-4)}
SFT_PRESETS = {
    "smoke": SftConfig(**SMALL), "cpu": SftConfig(), "study": SftConfig(**LONG), "gpu": SftConfig(**LARGE, lr=1e-4),
}  # fmt: skip
DPO_PRESETS = {
    "smoke": DpoConfig(**SMALL), "cpu": DpoConfig(questions=192, steps=24, sft_weight=1.0, test=64),
    "study": DpoConfig(**LONG),
    # random weights never end an answer, so they make no wrong ones: the pairs are the shop's
    "gpu": DpoConfig(**LARGE, task="customer-service-en", lr=2e-5, sft_weight=1.0),
}  # fmt: skip
GRPO_PRESETS = {
    "smoke": GrpoConfig(**SMALL, group=2), "cpu": GrpoConfig(), "study": GrpoConfig(**LONG),
    "gpu": GrpoConfig(**LARGE, lr=2e-5),
}  # fmt: skip


def run_warm_up(config: SftConfig, preset: str) -> None:
    """SFT of the base on a few questions: the start of the three others."""
    run_script("warm-up", train_sft, config, preset, config.start, lambda run, *_: run.next(f"{PROG} grpo"))


def run_sft(config: SftConfig, preset: str) -> None:
    """SFT from the start."""
    run_script("sft", train_sft, config, preset, start_folder(config), lambda run, *_: run.next(f"{PROG} compare"))


def run_grpo(config: GrpoConfig, preset: str) -> None:
    """GRPO from the start."""
    run_script("grpo", train_grpo, config, preset, start_folder(config), lambda run, *_: run.next(f"{PROG} compare"))


def run_dpo(config: DpoConfig, preset: str) -> None:
    """DPO from the start; its preference accuracy on pairs of questions that it did not see."""

    def after(run: Run, model: Any, tokenizer: Any, task: Task) -> None:
        with lora.disabled(model):
            pairs = make_pairs(model, tokenizer, task, task.test(max(config.test, 1)), config.seed + 1)
        if pairs:
            accuracy = preference_accuracy(model, tokenizer, pairs)
            settings = replace(config, task=DpoConfig.task)
            band = (0.8, None) if settings == DPO_PRESETS["cpu"] else None
            run.metric("preference_accuracy", accuracy, band=band, meaning=f"{len(pairs)} pairs of test questions")
            run.learnt(f"DPO: prefers the right answer in {accuracy:.0%} of {len(pairs)} unseen pairs.")
            console.print(f"pairs   more than at the start, the right answer is preferred in {accuracy:.1%} of "
                          f"{len(pairs)} unseen pairs", markup=False, soft_wrap=True)  # fmt: skip
        run.next(f"{PROG} compare")

    run_script("dpo", train_dpo, config, preset, start_folder(config), after)
