"""What a model can do after training, and what that cost it.

right      the most probable answer is right
reward     of answers that are sampled at temperature 1: what GRPO raises
KL         from the model to its start, on its own samples, exact over the vocabulary and summed over an answer
alike      share of questions whose sampled answers all score the same: GRPO learns nothing from them
length     tokens of a sampled answer; cut off: those that had not ended at the limit
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from labkit.progress import console
from stage1_foundations.embeddings.bootstrap import mean_interval
from stage2_rag_finetune_deploy.alignment.kl_estimators import exact_kl
from stage2_rag_finetune_deploy.alignment.logprobs import completion_logits, per_token
from stage2_rag_finetune_deploy.alignment.losses import zero_std_share
from stage2_rag_finetune_deploy.alignment.rollout import Rollout, sample_groups
from stage2_rag_finetune_deploy.alignment.tasks import Item, Task
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.chat_format import encode

LEGEND = (
    "right: the most probable answer; reward: sampled answers; in brackets 95 %; KL: how far from the start, nats an "
    "answer; alike: questions whose samples all score the same; length: tokens of an answer; cut off: not ended at the "
    "limit"
)


@dataclass(frozen=True)
class Measured:
    """Figures of one model on test questions.

    Attributes:
        right: one value a question.
        rewards: one value a question, the mean of its samples.
        kl: nats an answer.
        alike, length, truncated: see above.
    """

    right: tuple[float, ...]
    rewards: tuple[float, ...]
    kl: float
    alike: float
    length: float
    truncated: float

    def as_dict(self) -> dict[str, float]:
        """Means."""
        return {
            "right": float(np.mean(self.right)), "reward": float(np.mean(self.rewards)), "kl": self.kl,
            "alike": self.alike, "length": self.length, "truncated": self.truncated,
        }  # fmt: skip


@torch.inference_mode()
def greedy_scores(model: Any, tokenizer: Any, task: Task, items: Sequence[Item], batch: int = 64) -> list[float]:
    """The score of the most probable answer to each question."""
    scores = []
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        prompts = [encode(tokenizer, item.messages).ids for item in part]
        answers = sample_groups(model, prompts, 1, task.new_tokens, tokenizer.eos_token_id, 0.0)
        scores += [task.score(item, text) for item, text in zip(part, answers.texts(tokenizer), strict=True)]
    return scores


@torch.inference_mode()
def measure(
    model: Any, tokenizer: Any, task: Task, items: Sequence[Item], seed: int, batch: int = 32
) -> Measured:
    """Ask `items`, once greedily and `task.draws` times at temperature 1; dropout stays off."""
    was_training = model.training
    model.eval()
    samples, chance = task.draws, torch.Generator().manual_seed(seed)
    scores: list[float] = []
    kls, lengths, cut = [], [], []
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        prompts = [encode(tokenizer, item.messages).ids for item in part]
        drawn = sample_groups(model, prompts, samples, task.new_tokens, tokenizer.eos_token_id, 1.0, chance)
        scores += [task.score(part[row // samples], text) for row, text in enumerate(drawn.texts(tokenizer))]
        kls.append(kl_to_start(model, drawn))
        lengths += map(len, drawn.completions)
        cut += drawn.truncated
    right, rewards = greedy_scores(model, tokenizer, task, items), torch.tensor(scores)
    model.train(was_training)
    return Measured(
        tuple(right), tuple(rewards.view(-1, samples).mean(1).tolist()), float(torch.cat(kls).mean()),
        zero_std_share(rewards, samples), float(np.mean(lengths)), float(np.mean(cut)),
    )  # fmt: skip


@torch.inference_mode()
def kl_to_start(model: Any, drawn: Rollout) -> torch.Tensor:
    """KL(model || model without its adapter) of each sampled answer, summed over its positions: (B,) nats.

    Exact over the vocabulary at every position, so that only the answers themselves are a sample. A model without an
    adapter is its own start.
    """
    if not lora.lora_layers(model):
        return torch.zeros(len(drawn.completions))
    *logits, _, mask = completion_logits(model, drawn.prompts, drawn.completions, drawn.group)
    with lora.disabled(model):
        *start, _, _ = completion_logits(model, drawn.prompts, drawn.completions, drawn.group)
    kls = [exact_kl(*(each.float().log_softmax(-1) for each in pair)) for pair in zip(logits, start, strict=True)]
    return per_token(*kls, mask).sum(1)


def show(measured: dict[str, Measured], seed: int) -> None:
    """The table of models."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    for heading in ("right, %", "reward, %", "KL", "alike", "length", "cut off"):
        table.add_column(heading, justify="right")
    for label, each in measured.items():
        table.add_row(
            label, percent(each.right, seed), percent(each.rewards, seed), f"{each.kl:.2f}", f"{each.alike:.0%}",
            f"{each.length:.1f}", f"{each.truncated:.0%}",
        )  # fmt: skip
    console.print(table)
    console.print(LEGEND, style="dim", markup=False)


def percent(values: Sequence[float], seed: int) -> str:
    """A mean of shares with its 95 % interval, short: "76.6 (70-84)"."""
    low, high = mean_interval(values, seed)
    return f"{100 * np.mean(values):.1f} ({100 * low:.0f}-{100 * high:.0f})"
