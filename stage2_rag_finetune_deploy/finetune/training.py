"""Supervised fine-tuning by hand: the same loss as TRL's SFTTrainer, and what makes it fast on a processor.

    batch -> loss of the response -> gradient of A and B -> clip -> rate -> step

- samples of similar length share a batch: little is spent on padding
- what all prompts begin with is computed once a batch, not once a sample; its gradient still flows
- only the positions that predict a response token go through the head, a fifth of the model
- the frozen weights lie in bfloat16 where the processor multiplies it; A and B and their AdamW stay in float32

A run that is resumed goes the same way as one that never stopped: the batches follow from seed and step. Where minutes
are given, the steps of the warm-up tell how many fit: up to there the rate does not depend on their number.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from labkit.errors import LabError
from labkit.files import atomic_path
from stage2_rag_finetune_deploy.finetune import lora
from stage2_rag_finetune_deploy.finetune.chat_format import IGNORE, Encoded, collate
from stage2_rag_finetune_deploy.finetune.full_disk import full_disk_named
from stage2_rag_finetune_deploy.finetune.generation import common_prefix
from stage2_rag_finetune_deploy.finetune.remembering import Reminder

POOL = 16  # batches whose samples are sorted by length together


# exercise: finetune.response_loss
def response_loss(model: nn.Module, rows: Sequence[Encoded], pad_id: int) -> Tensor:
    """Mean cross-entropy of all response tokens of a batch, in nats; equal to the loss over padded whole samples.

    The ids that all rows begin with, and of which no label is learnt, run once as a batch of one; their keys and
    values are repeated for the rows, so that their gradients add up. The hidden state at position t predicts the
    token at t + 1.
    """
    shared = min(common_prefix([row.ids for row in rows]), min(row.prompt_length for row in rows) - 1)
    shared = max(shared, 0)
    rest = collate([Encoded(row.ids[shared:], row.labels[shared:]) for row in rows], pad_id)
    ids, labels = rest["input_ids"].to(model.device), rest["labels"].to(model.device)  # (B, T)
    cache = None
    if shared:
        cache = DynamicCache(config=model.config)
        first = torch.tensor([rows[0].ids[:shared]], device=model.device)  # (1, S)
        model.model(first, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(rows))
    positions = torch.arange(shared, shared + ids.shape[1], device=model.device)[None]
    hidden = model.model(
        ids, position_ids=positions, past_key_values=cache, use_cache=bool(shared)
    ).last_hidden_state  # (B, T, C); padding is on the right, and no row looks to the right
    wanted = labels[:, 1:]  # (B, T - 1)
    learnt = wanted != IGNORE
    logits = model.lm_head(hidden[:, :-1][learnt])  # (response tokens, V)
    return F.cross_entropy(logits.float(), wanted[learnt])
# end exercise


# exercise: finetune.length_sorted_batches
def length_sorted_batches(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """One epoch: every sample once, samples of similar length together, in an order drawn from seed and epoch.

    The samples are shuffled, sorted by length within pools of POOL batches, cut into batches, and the batches are
    shuffled: two epochs never see the same batches.
    """
    chance = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(lengths), generator=chance).tolist()
    batches = []
    for start in range(0, len(order), batch * POOL):
        pool = sorted(order[start : start + batch * POOL], key=lambda number: lengths[number])
        batches += [pool[first : first + batch] for first in range(0, len(pool), batch)]
    return [batches[number] for number in torch.randperm(len(batches), generator=chance).tolist()]
# end exercise


def batch_stream(lengths: Sequence[int], batch: int, seed: int, start: int = 0) -> Iterator[list[int]]:
    """Batches without end, epoch after epoch, from the `start`-th on."""
    each = math.ceil(len(lengths) / batch)
    epoch, skip = divmod(start, each)
    while True:
        yield from length_sorted_batches(lengths, batch, seed, epoch)[skip:]
        epoch, skip = epoch + 1, 0


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """The learning rate as a share of its peak: a linear rise, then a linear fall to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / max(1, steps - warmup)


@dataclass
class Progress:
    """What a run has seen so far; it is in the checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


class AdapterTrainer:
    """AdamW over the adapter of a model: rate, clipping, checkpoints. What the loss is, the caller says.

    Args:
        model: with an adapter (`lora.inject`).
        config: has `lr`, `steps`, `warmup` and `seed`.
        folder: where state.pt goes; None keeps no checkpoint.
    """

    def __init__(self, model: nn.Module, config: Any, folder: Path | None = None) -> None:
        self.model, self.config, self.folder, self.progress = model, config, folder, Progress()
        self.parameters = lora.lora_parameters(model)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0)

    def update(self, loss: Tensor) -> float:
        """One optimiser step on a loss that still has its graph; returns the gradient's norm before clipping.

        Raises:
            LabError: the loss or the gradient is NaN or infinite; the weights are those of the step before.
        """
        now = self.progress.step
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * rate_factor(now, self.config.steps, self.config.warmup)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0).item()
        check_finite(loss.item(), norm, now)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        return norm

    def save(self) -> None:
        """state.pt: adapter, optimiser and progress, whole or not at all."""
        if self.folder is not None:
            state = {
                "adapter": lora.adapter_state(self.model), "optimizer": self.optimizer.state_dict(),
                "progress": vars(self.progress), "base": lora.fingerprint(self.model),
            }  # fmt: skip
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / "state.pt") as temporary, full_disk_named(temporary):
                torch.save(state, temporary)

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            LabError: there is none, or it belongs to another base or adapter, or to a run with other options.
        """
        check_same_run(self.config, folder.parent)
        try:
            state = torch.load(folder / "state.pt", weights_only=True)
        except FileNotFoundError:
            raise LabError(f"no checkpoint in {folder}", "the same command without --resume") from None
        except (RuntimeError, EOFError, ValueError, OSError) as error:
            raise LabError(f"the checkpoint in {folder} is damaged: {str(error)[:80]}", "start anew") from None
        if state["base"] != lora.fingerprint(self.model) or not lora.fill(self.model, state["adapter"]):
            raise LabError(f"the checkpoint in {folder} is of another base or adapter", "the same --rank and --targets")
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])


class HandTrainer(AdapterTrainer):
    """Supervised fine-tuning.

    Args:
        rows, validation: encoded samples.
        config: an SftConfig.
        reminder: a second term of the loss, against forgetting.
    """

    def __init__(
        self, model: nn.Module, rows: Sequence[Encoded], validation: Sequence[Encoded], config: Any, pad_id: int,
        folder: Path | None = None, reminder: Reminder | None = None,
    ) -> None:  # fmt: skip
        super().__init__(model, config, folder)
        self.rows, self.validation, self.pad_id, self.reminder = rows, validation, pad_id, reminder

    def train(self, on_step: Callable[["HandTrainer", float], None] = lambda *_: None) -> Progress:
        """All steps that are left; evaluation and checkpoint every `eval_every` steps and at the end."""
        config, now = self.config, self.progress
        self.model.train()
        stream = batch_stream([len(row.ids) for row in self.rows], config.batch, config.seed, start=now.step)
        losses: list[float] = []
        while now.step < self.config.steps:
            started = time.perf_counter()
            rows = [self.rows[number] for number in next(stream)]
            losses.append(self.step(rows))
            now.seconds += time.perf_counter() - started
            now.tokens += sum(len(row.ids) for row in rows)
            if config.minutes and now.step >= config.warmup and self.config is config:
                self.config = replace(config, steps=steps_that_fit(config, now))
            on_step(self, losses[-1])
            if now.step % config.eval_every == 0 or now.step == self.config.steps:
                now.history.append({
                    "step": now.step, "train_loss": sum(losses) / len(losses), "val_loss": self.evaluate(),
                    "tokens": now.tokens, "seconds": round(now.seconds, 2),
                })  # fmt: skip
                losses = []
                self.save()
        return now

    def step(self, rows: Sequence[Encoded]) -> float:
        """One optimiser step; returns the loss of the responses."""
        torch.manual_seed(self.config.seed * 100_003 + self.progress.step)  # dropout, should there be any
        loss = response_loss(self.model, rows, self.pad_id)
        kept = self.reminder.loss(self.model, self.progress.step) if self.reminder else None
        self.update(loss if kept is None else loss + kept)
        return loss.item()

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss of all response tokens of the validation samples, in nats."""
        return validation_loss(self.model, self.validation, self.pad_id)


def steps_that_fit(config: Any, now: Progress) -> int:
    """How many of the steps fit into `config.minutes`, after what was seen so far; at least those that are done."""
    return min(config.steps, max(now.step, int(60 * config.minutes * now.step / now.seconds)))


MATTERS = (
    "data", "task", "base", "start", "trainer", "limit", "questions", "max_length", "batch", "lr", "warmup",
    "rank", "alpha", "targets", "dropout", "remember", "packing", "four_bit", "group", "temperature", "beta",
    "sft_weight", "updates", "seed",
)  # fmt: skip


def check_same_run(config: Any, folder: Path) -> None:
    """See that a run goes on as it began; its number of steps may change.

    Raises:
        LabError: an option that decides what is learnt is another one than in the folder's report.
    """
    try:
        before = json.loads((folder / "report.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError):
        return  # a folder of checkpoints alone
    for name in MATTERS:
        now = getattr(config, name, None)
        if name in before and str(before[name]) != str(now):
            flag = f"--{name.replace('_', '-')}"
            raise LabError(f"the run to go on from had {flag} {before[name]}, this one has {now}",
                           f"{flag} {before[name]}")  # fmt: skip


def check_finite(loss: float, norm: float, step: int) -> None:
    """Stop at a loss or gradient that is no number.

    Raises:
        LabError: with the step and what to try.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        what = "loss" if not math.isfinite(loss) else "gradient"
        raise LabError(f"the {what} is not finite at step {step}", "a smaller --lr, or --dtype fp32")


@torch.no_grad()
def validation_loss(model: nn.Module, rows: Sequence[Encoded], pad_id: int, batch: int = 32) -> float:
    """Mean loss of all response tokens of samples, in nats; the model's mode is left as it was."""
    was_training = model.training
    model.eval()
    ordered = sorted(rows, key=lambda row: len(row.ids))
    total = tokens = 0.0
    for start in range(0, len(ordered), batch):
        part = ordered[start : start + batch]
        count = sum(label != IGNORE for row in part for label in row.labels)
        total += response_loss(model, part, pad_id).item() * count
        tokens += count
    model.train(was_training)
    return total / tokens
