"""Each test names the bug that it catches."""

import math

import pytest
import torch
from torch import nn

from stage1_foundations.gpt.evaluate import bits_per_character, validation_loss


class Uniform(nn.Module):
    """Gives every token the same probability."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*ids.shape, -1)


@pytest.mark.parametrize("shape", ["gpt2", "modern"])
def test_equals_a_mean_by_hand(build, shape):
    """Catches: a mean of means with a smaller last batch, a token counted twice, targets off by one."""
    model, tokens = build(shape), torch.randint(19, (24 * 5 + 7,))
    losses = []
    for block in range(5):
        ids = tokens[24 * block : 24 * block + 24]
        log_probability = model(ids[None])[0].log_softmax(-1)
        losses += [-log_probability[t, tokens[24 * block + t + 1]].item() for t in range(24)]
    assert validation_loss(model, tokens, 24, batch=2) == pytest.approx(sum(losses) / 120, abs=1e-5)


def test_does_not_depend_on_the_batch_and_repeats_itself(build):
    """Catches: random batches, or a last batch that is left out."""
    model, tokens = build(), torch.randint(19, (24 * 7 + 1,))
    losses = {batch: validation_loss(model, tokens, 24, batch=batch) for batch in (1, 2, 3, 7, 100)}
    assert max(losses.values()) - min(losses.values()) < 1e-5
    assert validation_loss(model, tokens, 24, batch=3) == losses[3]


@pytest.mark.parametrize("length", [9, 16, 17])
def test_uniform_model_costs_ln_v(length):
    """Catches: a loss in bits, a last block that reads past the end (16 tokens have 15 targets)."""
    loss = validation_loss(Uniform(65), torch.randint(65, (length,)), context=8)
    assert loss == pytest.approx(math.log(65), abs=1e-5)


def test_dropout_is_off_and_comes_back():
    """Catches: validation with dropout; a model left in evaluation mode for the rest of the training."""

    class Noisy(Uniform):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return super().forward(ids)

    model = Noisy(5).train()
    validation_loss(model, torch.zeros(20, dtype=torch.long), context=4)
    assert model.training
    model.eval()
    validation_loss(model, torch.zeros(20, dtype=torch.long), context=4)
    assert not model.training


def test_leaves_no_gradients(build):
    """Catches: a graph of the whole validation part that is kept in memory."""
    model = build()
    validation_loss(model, torch.randint(19, (100,)), 24)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bits_per_character():
    """Catches: nats called bits; a multiplication by the characters a token has."""
    assert bits_per_character(math.log(2), 1.0) == pytest.approx(1.0)
    assert bits_per_character(4 * math.log(2), 2.5) == pytest.approx(1.6)
