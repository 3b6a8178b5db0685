"""Each test names the bug that it catches."""

import pytest
import torch
from torch import nn

from stage1_foundations.gpt.block import DecoderBlock, TiedDropout


class Doubled(nn.Module):
    """Stands for attention or feed-forward: a part whose output is known."""

    def forward(self, x: torch.Tensor, *rest: object) -> torch.Tensor:
        return 2 * x


class Shifted(nn.Module):
    """Stands for a norm."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by


def test_pre_norm_residual_by_hand():
    """Catches: post-norm, a norm on the residual stream, the two norms exchanged, a missing residual."""
    block = DecoderBlock(Doubled(), Doubled(), (Shifted(1.0), Shifted(10.0)), dropout=0.0)
    x = torch.randn(2, 3, 4)
    after_attention = x + 2 * (x + 1)
    assert torch.allclose(block(x), after_attention + 2 * (after_attention + 10), atol=1e-5)


def test_dropout_spares_the_residual_stream():
    """Catches: dropout on the sum: the token itself would vanish."""
    block = DecoderBlock(Doubled(), Doubled(), (nn.Identity(), nn.Identity()), dropout=0.9)
    out = block(torch.ones(64, 3, 8))
    assert out.min() == 1.0  # both branches dropped: what came in goes out


def test_dropout_keeps_the_mean_and_shares_its_mask_over_time():
    """Catches: a missing 1 / (1 - rate), a mask per position, one mask for all rows or features."""
    dropped = TiedDropout(0.25)(torch.ones(4000, 3, 8))
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert abs(dropped.mean().item() - 1.0) < 0.02  # deviation of the mean: 0.58 / sqrt(32,000) = 0.003
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert dropped[:, 0].std(dim=0).min() > 0.5 and dropped[:, 0].std(dim=1).max() > 0.5


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_no_dropout_changes_nothing(rate, training):
    """Catches: dropout while sampling; random numbers drawn for a rate of zero."""
    x, before = torch.randn(2, 3, 4), torch.get_rng_state()
    assert torch.equal(TiedDropout(rate).train(training)(x), x)
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_keeps_bfloat16():
    """Catches: a float32 mask that turns the residual stream of a bfloat16 model into float32."""
    assert TiedDropout(0.5)(torch.ones(2, 3, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
