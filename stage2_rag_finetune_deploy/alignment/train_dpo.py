"""DPO: of two answers one is preferred; the gap between their log-probabilities grows, measured from the start model.

The sections have the numbers that they have in train_sft.py and train_grpo.py: `diff` two of the files.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labkit.cli import option
from labkit.errors import LabError
from stage2_rag_finetune_deploy.alignment.logprobs import completion_logprobs
from stage2_rag_finetune_deploy.alignment.losses import dpo_loss
from stage2_rag_finetune_deploy.alignment.pairs import Pair, make_pairs
from stage2_rag_finetune_deploy.alignment.script import OnStep, ScriptConfig, batches, new_trainer, record
from stage2_rag_finetune_deploy.alignment.tasks import Item, Task
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.chat_format import encode
from stage2_rag_finetune_deploy.finetune.training import Progress


# 1. Options
@dataclass(frozen=True)
class DpoConfig(ScriptConfig):
    """Options of `dpo`."""

    lr: float = option(1e-4, "peak rate of AdamW")
    beta: float = option(0.1, "how firmly the start model is held on to")
    sft_weight: float = option(0.0, "of the chosen answers' SFT loss, added to the loss; 0 is the paper's DPO")
    samples: int = option(8, "draws a question, to find the model's own wrong answers")


def train_dpo(
    model: Any, tokenizer: Any, task: Task, items: Sequence[Item], config: DpoConfig, folder: Path | None = None,
    on_step: OnStep = lambda trainer: None,
) -> Progress:  # fmt: skip
    """Train a fresh adapter in `model`, in place.

    Args:
        folder: of the checkpoint; None keeps none.

    Raises:
        LabError: the model makes no mistakes.
    """
    # 2. Data: a question, its right answer and a wrong one, and how probable both were at the start
    pairs = make_pairs(model, tokenizer, task, items, config.seed, config.samples)
    if not pairs:
        raise LabError(f"no wrong answer to {len(items)} questions in {config.samples} draws each",
                       "more --questions, or a harder --task")  # fmt: skip
    rows = [PairRow.of(tokenizer, pair) for pair in pairs]
    reference = pair_logprobs(model, rows)  # (P, 2)
    # 3. Adapter and optimiser
    trainer = new_trainer(model, config, folder)
    for numbers in batches(trainer, [len(row.prompt) for row in rows]):
        started, chosen = time.perf_counter(), [rows[number] for number in numbers]
        # 4. Log-probabilities: of both answers, under the model and (kept) under the start
        prompts, answers = flat(chosen)
        logprobs, mask = completion_logprobs(model, prompts, answers, group=2)
        policy, start = logprobs.sum(1).view(-1, 2), reference[numbers]  # (B, 2)
        # 5. Loss
        loss, margins = dpo_loss(policy[:, 0], policy[:, 1], start[:, 0], start[:, 1], config.beta)
        if config.sft_weight:
            loss = loss - config.sft_weight * logprobs[0::2].sum() / mask[0::2].sum()
        # 6. Step
        norm = trainer.update(loss)
        figures = {
            "loss": loss.item(), "gradient": norm, "margin": margins.mean().item(),
            "accuracy": (margins > 0).float().mean().item(), "logp_chosen": policy[:, 0].mean().item(),
            "logp_rejected": policy[:, 1].mean().item(),
        }  # fmt: skip
        record(trainer, started, sum(map(len, prompts + answers)), figures, on_step)
    return trainer.progress


@dataclass(frozen=True)
class PairRow:
    """A pair as ids."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @classmethod
    def of(cls, tokenizer: Any, pair: Pair) -> "PairRow":
        """Both answers with the end of their turn."""
        chosen, rejected = (encode(tokenizer, pair.messages, text) for text in (pair.chosen, pair.rejected))
        return cls(chosen.prompt, chosen.response, rejected.response)


def flat(rows: Sequence[PairRow]) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts (B), and answers (2 B): chosen, rejected, chosen, ..."""
    return [row.prompt for row in rows], [answer for row in rows for answer in (row.chosen, row.rejected)]


@torch.no_grad()
def pair_logprobs(model: Any, rows: Sequence[PairRow], batch: int = 16) -> torch.Tensor:
    """Summed log-probabilities of both answers of each pair, (P, 2)."""
    parts = []
    for start in range(0, len(rows), batch):
        logprobs, _ = completion_logprobs(model, *flat(rows[start : start + batch]), group=2)
        parts.append(logprobs.sum(1).view(-1, 2))
    return torch.cat(parts)


def preference_accuracy(model: Any, tokenizer: Any, pairs: Sequence[Pair], batch: int = 16) -> float:
    """Share of pairs whose gap grew since the start, `model` without its adapter: TRL's rewards/accuracies."""
    rows = [PairRow.of(tokenizer, pair) for pair in pairs]
    policy = pair_logprobs(model, rows, batch)
    with lora.disabled(model):
        start = pair_logprobs(model, rows, batch)
    gap = (policy - start) @ torch.tensor([1.0, -1.0], device=policy.device)
    return (gap > 0).float().mean().item()
