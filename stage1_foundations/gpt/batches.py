"""Batches as a function of the step number.

Every epoch cuts the tokens into blocks of one context, at a fresh offset, in a fresh order; both come from
(seed, epoch). The sampler keeps no state, so the step number alone is the data position: a resumed run sees the
same batches, and data-parallel processes take their rows of the same batch without talking to each other.
"""

import torch
from torch import Tensor


class BlockSampler:
    """Rows of `context` tokens and the tokens that follow them.

    Args:
        tokens: (N,) int64.
        batch: rows a step, over all processes and micro-batches.
    """

    def __init__(self, tokens: Tensor, context: int, batch: int, seed: int) -> None:
        self.tokens, self.context, self.batch, self.seed = tokens, context, batch, seed
        self.rows_per_epoch = max(1, (len(tokens) - context) // context)  # at any offset
        self._epoch = -1
        self._starts = torch.empty(0, dtype=torch.long)

    # exercise: gpt.sample_rows
    def rows(self, step: int, first: int = 0, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Rows `first` to `first + count` of the step's batch.

        Returns:
            ids and targets, both (count, context): targets are the ids one token later.
        """
        count = self.batch if count is None else count
        numbers = range(step * self.batch + first, step * self.batch + first + count)
        starts = torch.stack([self._start(number) for number in numbers])
        window = self.tokens[starts[:, None] + torch.arange(self.context + 1)]  # (count, T + 1)
        return window[:, :-1], window[:, 1:]
    # end exercise

    def _start(self, number: int) -> Tensor:
        """Where row `number`, counted from the beginning of training, starts in the tokens."""
        epoch, row = divmod(number, self.rows_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            slack = len(self.tokens) - 1 - self.rows_per_epoch * self.context
            offset = int(torch.randint(0, slack + 1, (1,), generator=generator)) if slack > 0 else 0
            order = torch.randperm(self.rows_per_epoch, generator=generator)
            self._epoch, self._starts = epoch, order * self.context + offset
        return self._starts[row]
