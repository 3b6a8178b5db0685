"""GRPO: the model answers each question several times; what scored above its group's mean becomes more probable.

The sections have the numbers that they have in train_sft.py and train_dpo.py: `diff` two of the files.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labkit.cli import option
from labkit.errors import LabError
from stage2_rag_finetune_deploy.alignment.logprobs import completion_logprobs, pad
from stage2_rag_finetune_deploy.alignment.losses import group_advantages, grpo_loss, zero_std_share
from stage2_rag_finetune_deploy.alignment.rollout import Rollout, sample_groups
from stage2_rag_finetune_deploy.alignment.script import OnStep, ScriptConfig, batches, new_trainer, record
from stage2_rag_finetune_deploy.alignment.tasks import Item, Task
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.chat_format import encode
from stage2_rag_finetune_deploy.finetune.training import Progress


# 1. Options
@dataclass(frozen=True)
class GrpoConfig(ScriptConfig):
    """Options of `grpo`."""

    group: int = option(8, "answers a question")
    temperature: float = option(1.0, "of sampling")
    beta: float = option(0.0, "weight of the KL divergence to the start model; 0 leaves it out, as TRL does")
    clip: float = option(0.2, "how far the ratio to the sampling model may go from 1")
    updates: int = option(1, "optimiser steps on the same answers; from the second on the ratio is not 1")
    average: str = option("tokens", "mean over all tokens (DAPO), or over each answer's first (the paper)",
                          ("tokens", "sequences"))  # fmt: skip


def train_grpo(
    model: Any, tokenizer: Any, task: Task, items: Sequence[Item], config: GrpoConfig, folder: Path | None = None,
    on_step: OnStep = lambda trainer: None,
) -> Progress:  # fmt: skip
    """Train a fresh adapter in `model`, in place.

    Args:
        folder: of the checkpoint; None keeps none.
    """
    # 2. Data: a question; the answers are the model's own
    prompts = [encode(tokenizer, item.messages).ids for item in items]
    # 3. Adapter and optimiser
    check_updates(config)
    trainer = new_trainer(model, config, folder)
    for numbers in batches(trainer, [0] * len(prompts), config.updates):  # unsorted: short questions are the easy ones
        started = time.perf_counter()
        asked = [prompts[number] for number in numbers]
        rollout = roll_out(model, tokenizer, task, asked, config, trainer.progress)
        texts = rollout.texts(tokenizer)
        asked_of = [items[number] for number in numbers for _ in range(config.group)]
        rewards = torch.tensor([task.score(item, text) for item, text in zip(asked_of, texts, strict=True)])
        advantages = group_advantages(rewards, config.group).to(model.device)  # (B * G,)
        old, _ = pad(rollout.logprobs, model.device)
        for _ in range(config.updates):
            # 4. Log-probabilities: of the model's own answers, and with beta under the start
            logprobs, mask = completion_logprobs(model, rollout.prompts, rollout.completions, config.group)
            start = start_logprobs(model, rollout) if config.beta else None
            if config.updates == 1:
                old = logprobs.detach()  # the sampling model is this one; in bfloat16 sampling rounds otherwise
            # 5. Loss
            loss, figures = grpo_loss(
                logprobs, old, advantages, mask, config.clip, config.beta, start, config.average
            )
            # 6. Step
            norm = trainer.update(loss)
        figures |= {
            "loss": loss.item(), "gradient": norm, "reward": rewards.mean().item(),
            "frac_reward_zero_std": zero_std_share(rewards, config.group),
            "length": sum(map(len, rollout.completions)) / len(texts), "truncated": sum(rollout.truncated) / len(texts),
        }  # fmt: skip
        record(trainer, started, sum(map(len, rollout.prompts + rollout.completions)), figures, on_step)
    return trainer.progress


def check_updates(config: GrpoConfig) -> None:
    """Options that do not go together.

    Raises:
        LabError: a group of one, or steps that are no multiple of the updates.
    """
    if config.group < 2:
        raise LabError(f"--group {config.group}: an answer is compared with the others of its group", "--group 8")
    if config.updates > 1 and config.temperature != 1:
        raise LabError("--updates compares with untempered probabilities", "--temperature 1, or --updates 1")
    if config.updates < 1 or config.steps % config.updates:
        raise LabError(f"--steps {config.steps} is no multiple of --updates {config.updates}", "--updates 1")


def roll_out(
    model: Any, tokenizer: Any, task: Task, prompts: Sequence[list[int]], config: GrpoConfig, now: Progress
) -> Rollout:
    """A group of answers to each question, drawn with seed and step: a resumed run draws the same."""
    chance = torch.Generator().manual_seed(config.seed * 100_003 + now.step)
    return sample_groups(
        model, prompts, config.group, task.new_tokens, tokenizer.eos_token_id, config.temperature, chance
    )


@torch.no_grad()
def start_logprobs(model: Any, rollout: Rollout) -> torch.Tensor:
    """Log-probabilities under the model without its adapter, (B * G, T)."""
    with lora.disabled(model):
        return completion_logprobs(model, rollout.prompts, rollout.completions, rollout.group)[0]
