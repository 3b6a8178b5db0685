"""Validation loss: every token of the validation part once, always the same way.

Training scripts often average a few random batches; that number moves by itself from call to call.
Here the part is cut into blocks of one context, and the loss is the mean over all their tokens. It is reported in
nats per character and in bits per character, which stay comparable when the tokenizer changes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from labkit.device import autocast


@torch.no_grad()
# exercise: gpt.validation_loss
def validation_loss(
    model, tokens: Tensor, context: int, *, batch: int = 32, dtype: torch.dtype = torch.float32
) -> float:
    """Mean cross-entropy over the whole part, in nats per token.

    Args:
        model: ids (B, T) -> logits (B, T, V).
        tokens: (N,) int64, N > context; the rest after the last whole block is left out.
        dtype: of the matrix products; the loss itself is float32.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    blocks = (len(tokens) - 1) // context
    ids = tokens[: blocks * context].view(blocks, context)
    targets = tokens[1 : blocks * context + 1].view(blocks, context)
    total = 0.0
    for start in range(0, blocks, batch):
        with autocast(device, dtype):
            logits = model(ids[start : start + batch].to(device))
        wanted = targets[start : start + batch].to(device).reshape(-1)
        total += F.cross_entropy(logits.float().flatten(0, 1), wanted, reduction="sum").item()
    model.train(was_training)
    return total / (blocks * context)
# end exercise


def bits_per_character(nats_per_token: float, characters_per_token: float) -> float:
    """Nats per token to bits per character."""
    return nats_per_token / math.log(2) / characters_per_token
