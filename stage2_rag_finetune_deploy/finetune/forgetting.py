"""What the model still knows of plain text: perplexity on WikiText-2, before and after fine-tuning."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from data.texts import load_text


@torch.no_grad()
def perplexity(model: nn.Module, tokenizer: Any, tokens: int = 8192, context: int = 256) -> float:
    """exp of the mean loss on the first `tokens` tokens of the test part, in blocks of `context`.

    Fewer and shorter blocks than in papers: for a ratio of two models, not for a comparison with other tables.
    """
    text = load_text("wikitext-2", "test")[: tokens * 8]
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False)["input_ids"][0, :tokens]
    blocks = ids[: len(ids) // context * context].view(-1, context).to(model.device)  # (N, T)
    was_training, total = model.training, 0.0
    model.eval()
    for part in blocks.split(4):
        logits = model(part).logits[:, :-1]
        total += F.cross_entropy(logits.float().flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    model.train(was_training)
    return math.exp(total / (len(blocks) * (context - 1)))
