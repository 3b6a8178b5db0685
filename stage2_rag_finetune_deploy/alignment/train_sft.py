"""SFT: the right answer is shown, and every one of its tokens becomes more probable.

The sections have the numbers that they have in train_dpo.py and train_grpo.py: `diff` two of the files.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stage2_rag_finetune_deploy.alignment.logprobs import completion_logprobs
from stage2_rag_finetune_deploy.alignment.losses import sft_loss
from stage2_rag_finetune_deploy.alignment.script import OnStep, ScriptConfig, batches, new_trainer, record
from stage2_rag_finetune_deploy.alignment.tasks import Item, Task
from stage2_rag_finetune_deploy.finetune.chat_format import encode
from stage2_rag_finetune_deploy.finetune.training import Progress


# 1. Options
@dataclass(frozen=True)
class SftConfig(ScriptConfig):
    """Options of `sft`."""


def train_sft(
    model: Any, tokenizer: Any, task: Task, items: Sequence[Item], config: SftConfig, folder: Path | None = None,
    on_step: OnStep = lambda trainer: None,
) -> Progress:  # fmt: skip
    """Train a fresh adapter in `model`, in place.

    Args:
        folder: of the checkpoint; None keeps none.
    """
    # 2. Data: a question and its right answer
    rows = [encode(tokenizer, item.messages, item.gold) for item in items]
    # 3. Adapter and optimiser
    trainer = new_trainer(model, config, folder)
    for numbers in batches(trainer, [len(row.ids) for row in rows]):
        started, chosen = time.perf_counter(), [rows[number] for number in numbers]
        # 4. Log-probabilities: of the right answers
        logprobs, mask = completion_logprobs(model, [row.prompt for row in chosen], [row.response for row in chosen])
        # 5. Loss
        loss = sft_loss(logprobs, mask)
        # 6. Step
        norm = trainer.update(loss)
        tokens = sum(len(row.ids) for row in chosen)
        record(trainer, started, tokens, {"loss": loss.item(), "gradient": norm}, on_step)
    return trainer.progress
