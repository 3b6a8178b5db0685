"""Preference pairs: to one prompt, an answer that is wanted and one that is not.

    own_mistakes    the right answer, and a wrong one that the model itself sampled: what it is likely to do wrong
    drawn_pairs     the shop's pairs: the label, and one with a wrong intent, a slot too many, and so on
                    (data/customer_service/preferences.py)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data.customer_service.preferences import preference_pairs
from data.customer_service.prompt import prompt_messages
from data.understanding import Utterance
from labkit.progress import progress
from stage2_rag_finetune_deploy.alignment.rollout import sample_groups
from stage2_rag_finetune_deploy.alignment.tasks import Item, Task, VerifiableTask
from stage2_rag_finetune_deploy.finetune.chat_format import Message, encode


@dataclass(frozen=True)
class Pair:
    """A prompt and two replies."""

    messages: list[Message]
    chosen: str
    rejected: str


def own_mistakes(
    model: Any, tokenizer: Any, task: Task, items: Sequence[Item], seed: int, samples: int = 8, batch: int = 16
) -> list[Pair]:
    """One pair for every question that the model gets wrong in at least one of `samples` draws.

    The rejected answer is the wrong reply that was drawn first and ended by itself: of wrong replies, the likely ones
    come first. What was cut off at the limit is left out: it would teach that the limit is wrong.
    """
    chance = torch.Generator().manual_seed(seed)
    pairs = []
    for start in progress(range(0, len(items), batch), description="its own wrong answers"):
        part = items[start : start + batch]
        prompts = [encode(tokenizer, item.messages).ids for item in part]
        rollout = sample_groups(model, prompts, samples, task.new_tokens, tokenizer.eos_token_id, 1.0, chance)
        texts = rollout.texts(tokenizer)
        for number, item in enumerate(part):
            rows = range(number * samples, (number + 1) * samples)
            wrong = [
                texts[row].strip() for row in rows
                if not rollout.truncated[row] and texts[row].strip() and not task.score(item, texts[row])
            ]  # fmt: skip
            if wrong:
                pairs.append(Pair(item.messages, item.gold, wrong[0]))
    return pairs


def make_pairs(
    model: Any, tokenizer: Any, task: Task, items: Sequence[Item], seed: int, samples: int = 8
) -> list[Pair]:
    """The model's own mistakes for a verifiable task; for the shop's utterances its drawn pairs."""
    if isinstance(task, VerifiableTask):
        return own_mistakes(model, tokenizer, task, items, seed, samples)
    return drawn_pairs([item.source for item in items], seed)


def drawn_pairs(utterances: Sequence[Utterance], seed: int) -> list[Pair]:
    """The shop's pairs, one for an utterance."""
    return [
        Pair(prompt_messages(each.text, each.language), pair.chosen, pair.rejected)
        for each in utterances
        for pair in preference_pairs([each], seed)
    ]
