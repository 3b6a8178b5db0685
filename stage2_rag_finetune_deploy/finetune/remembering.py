"""Against forgetting: now and then the tuned model is asked for plain text too, and held to what the base would say.

    loss = response loss + weight * KL(base || tuned) on a stretch of text, every EVERY-th step

The base needs no second copy of the weights: it is the model with its adapter switched off. Before the first step both
agree and the term is nothing; it pulls only as far as the adapter has pulled away. (Li and Hoiem 2016, "Learning
without Forgetting", for language models and with text in place of the old task's images.)
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.texts import load_text
from stage2_rag_finetune_deploy.finetune import lora

EVERY = 4  # steps
CONTEXT = 96  # tokens of a stretch
STRETCHES = 256  # of them


def text_stretches(tokenizer: Any, seed: int) -> Tensor:
    """(STRETCHES, CONTEXT) ids out of WikiText-2's training part, from places drawn with the seed."""
    text = load_text("wikitext-2", "train")[: STRETCHES * CONTEXT * 40]
    ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    blocks = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    chance = torch.Generator().manual_seed(seed)
    return blocks[torch.randperm(len(blocks), generator=chance)[:STRETCHES]]


@dataclass(frozen=True)
class Reminder:
    """The text, and how much it counts."""

    stretches: Tensor  # (N, T)
    weight: float

    def loss(self, model: nn.Module, step: int) -> Tensor | None:
        """The term of a step, or None where it is none's turn; it follows from the step alone, so a run can resume."""
        if step % EVERY:
            return None
        return self.weight * divergence(model, self.stretches[step // EVERY % len(self.stretches)][None])


# exercise: finetune.divergence
def divergence(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean over the positions of KL(base || tuned), in nats; the base is the model without its adapter.

    Args:
        ids: (B, T).
    """
    ids = ids.to(model.device)
    with torch.no_grad(), lora.disabled(model):
        base = model(ids).logits.float().log_softmax(-1)  # (B, T, V)
    tuned = model(ids).logits.float().log_softmax(-1)
    return F.kl_div(tuned.flatten(0, 1), base.flatten(0, 1), log_target=True, reduction="batchmean")
# end exercise
