"""Sampling groups of completions for GRPO, fast: the part of a step that costs most when it is done carelessly.

- the prompts' common beginning runs once, a prompt once, and its keys and values are copied for its group
- a KV cache, only the last position goes through the head, a row that has ended leaves the batch
- the log-probability of each drawn token is kept: the "old" policy of the loss
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stage2_rag_finetune_deploy.finetune.generation import decode, prefill


@dataclass(frozen=True)
class Rollout:
    """Completions in groups: rows [i * group, (i + 1) * group) answer prompt i.

    Attributes:
        completions: ids without padding; the last one is `end_id` unless the row was cut off.
        logprobs: of each completion's ids, under the distribution they were drawn from.
    """

    prompts: list[list[int]]
    completions: list[list[int]]
    logprobs: list[list[float]]
    group: int
    end_id: int

    @property
    def truncated(self) -> list[bool]:
        """Which rows reached the limit before the end of turn."""
        return [row[-1] != self.end_id for row in self.completions]

    def texts(self, tokenizer: Any) -> list[str]:
        """What the rows say."""
        return [tokenizer.decode(row, skip_special_tokens=True) for row in self.completions]


@torch.inference_mode()
def sample_groups(
    model: Any, prompts: Sequence[Sequence[int]], group: int, max_new_tokens: int, end_id: int,
    temperature: float = 1.0, chance: torch.Generator | None = None,
) -> Rollout:  # fmt: skip
    """Draw `group` completions for every prompt; the model's mode (train or eval) is left as it is.

    Args:
        prompts: token ids, of any lengths.
        max_new_tokens: longest completion, the end of turn included.
        end_id: the token that ends a turn; it is part of its completion.
        temperature: divides the logits; 0 takes the most probable token (all rows of a group are then equal).
    """
    logits, cache, mask = prefill(model, prompts)  # (Q, V), (Q, P)
    if group > 1:
        logits, mask = logits.repeat_interleave(group, 0), mask.repeat_interleave(group, 0)  # (Q * G, ...)
        cache.batch_repeat_interleave(group)
    completions: list[list[int]] = [[] for _ in range(len(logits))]
    logprobs: list[list[float]] = [[] for _ in range(len(logits))]
    drawn: list[Tensor] = []

    def draw(logits: Tensor) -> Tensor:
        ids, picked = draw_tokens(logits, temperature, chance)
        drawn.append(picked)
        return ids

    for alive, ids in decode(model, logits, cache, mask, max_new_tokens, end_id, draw):
        for row, token, logprob in zip(alive, ids, drawn.pop().tolist(), strict=True):
            completions[row].append(token)
            logprobs[row].append(logprob)
    return Rollout([list(prompt) for prompt in prompts], completions, logprobs, group, end_id)


# exercise: alignment.draw_tokens
def draw_tokens(logits: Tensor, temperature: float, chance: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """One token a row, and its log-probability under the distribution it was drawn from.

    Args:
        logits: (rows, V), any dtype.

    Returns:
        ids (rows,) and log-probabilities (rows,) in float32; at temperature 0 the distribution is the untempered one.
    """
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), -1)  # (rows, V)
    if temperature == 0:
        ids = logprobs.argmax(-1)
    else:
        ids = torch.multinomial(logprobs.exp().cpu(), 1, generator=chance)[:, 0].to(logits.device)
    return ids, logprobs.gather(1, ids[:, None])[:, 0]
# end exercise
